"""The hot path takes no more instructions than it may (benchmarks/instructions.json).

Counted by valgrind and not timed, so it holds on a busy machine. What is slower on purpose gets a
new budget, in the same commit, with `python -m benchmarks.instructions --update`.
"""

from benchmarks import instructions
from tests import needs


def test_the_hot_path_keeps_to_its_budget() -> None:
    budget = instructions.load()
    needs.command("valgrind")
    if budget is None:
        needs.lacking(f"budget for {instructions.python()}")
    problems = instructions.excess(instructions.count(), budget)
    assert not problems, "\n".join(problems)


def test_a_count_beyond_the_margin_is_a_failure_that_names_it() -> None:
    budget = {"a step": 1000, "a request": 2000}
    assert instructions.excess({"a step": 1100, "a request": 2200}, budget) == []
    (problem,) = instructions.excess({"a step": 1101, "a request": 1}, budget)
    assert problem == "a step: 1,101 instructions, the budget is 1,000 (+10%, 10% are allowed)"
