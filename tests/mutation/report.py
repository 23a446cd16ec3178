"""What came of the mutants: figures by module, and the survivors that are not explained.

`equivalent.txt` explains the others: a line `# …` says why, and the lines below it name mutants as
`function: old -> new`, with the text of the line that mutmut changed. Numbers of mutants would
change with every edit; these do not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant

from tests.mutation.runner import KILLED, SURVIVED, TIMEOUT, UNTESTED

EXPLAINED = Path(__file__).with_name("equivalent.txt")
GOAL = 0.9


def report(outcomes: Mapping[str, str]) -> int:
    """Print it. Returns 1 if less than `GOAL` are killed."""
    known = explained()
    modules: dict[str, Counter[str]] = defaultdict(Counter)
    for name, outcome in sorted(outcomes.items()):
        module = name.partition("__mutmut_")[0].rpartition(".")[0]
        lives = outcome in (SURVIVED, UNTESTED)
        equivalent = lives and described(name) in known
        if lives and not equivalent:
            print(f"{outcome} {name}\n  {described(name)}")
        modules[module]["equivalent" if equivalent else outcome] += 1
    total: Counter[str] = sum(modules.values(), Counter())
    for module, counts in [*sorted(modules.items()), ("all", total)]:
        print(f"{module}: {figures(counts)}")
    return int(share(total) < GOAL)


def figures(counts: Counter[str]) -> str:
    """Return numbers as a line: a mutant that changes nothing that can be seen does not count."""
    dead = counts[KILLED] + counts[TIMEOUT]
    rest = counts.total() - counts["equivalent"]
    return (
        f"{dead} of {rest} killed ({share(counts):.1%}), {counts['equivalent']} equivalent, "
        f"{counts[UNTESTED]} in code that no test runs"
    )


def share(counts: Counter[str]) -> float:
    """Return which part was killed."""
    rest = counts.total() - counts["equivalent"]
    return (counts[KILLED] + counts[TIMEOUT]) / rest if rest else 1.0


def described(name: str) -> str:
    """Return a mutant as `equivalent.txt` names it."""
    lines = get_diff_for_mutant(name).splitlines()
    old = [line[1:].strip() for line in lines if line.startswith("-") and line[:3] != "---"]
    new = [line[1:].strip() for line in lines if line.startswith("+") and line[:3] != "+++"]
    function = name.partition("__mutmut_")[0].removeprefix("stephttp.")
    return f"{function}: {' '.join(old)} -> {' '.join(new)}"


def explained() -> set[str]:
    """Return the mutants that are explained."""
    lines = EXPLAINED.read_text().splitlines() if EXPLAINED.exists() else []
    return {line for line in lines if line and not line.startswith("#")}
