"""The hot path takes no more instructions than it may (benchmarks/instructions.json).

Counted by valgrind and not timed, so it holds on a busy machine. What is slower on purpose gets a
new budget, in the same commit, with `python -m benchmarks.instructions --update`.
"""

import os
import shutil

import pytest

from benchmarks import instructions


def test_the_hot_path_keeps_to_its_budget() -> None:
    budget = instructions.load()
    if shutil.which("valgrind") is None or budget is None:
        if os.environ.get("CI"):
            pytest.fail(f"needs valgrind, and a budget for {instructions.python()}")
        pytest.skip(f"no valgrind, or no budget for {instructions.python()}; with CI a failure")
    problems = instructions.excess(instructions.count(), budget)
    assert not problems, "\n".join(problems)


def test_a_count_beyond_the_margin_is_a_failure_that_names_it() -> None:
    budget = {"a step": 1000, "a request": 2000}
    assert instructions.excess({"a step": 1100, "a request": 2200}, budget) == []
    (problem,) = instructions.excess({"a step": 1101, "a request": 1}, budget)
    assert problem == "a step: 1,101 instructions, the budget is 1,000 (+10%, 10% are allowed)"
