"""How many instructions does the hot path take? Compared with a stored budget.

    python -m benchmarks.instructions             count, and compare
    python -m benchmarks.instructions --update    store what was counted as the new budget

Times on a shared machine say little; the number of instructions of the same work, counted by
valgrind's callgrind, is the same within a percent, however busy the machine is. It depends on the
version of Python and how it was built, and on msgspec; so the budget names what it is for.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET = Path(__file__).with_name("instructions.json")
MARGIN = 0.10
"""By this part may a count exceed its budget: builds of the same Python differ by about half."""
TIMES = 200
STEPS = 10
WORKS = ("core", "empty-core", "plain", "steps")
"""In the order of `benchmarks.counted`."""


def _environment() -> dict[str, str]:
    """That of this process, without what has children measure their coverage."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def count() -> dict[str, int]:
    """Instructions of a step in the core, of a request without steps, and of one with two."""
    each = {name: total // TIMES for name, total in _totals().items()}
    return {
        "a step in the core": (each["core"] - each["empty-core"]) // STEPS,
        "a request without steps": each["plain"],
        "a request with two steps": each["steps"],
    }


def _totals() -> dict[str, int]:
    """What each work takes when it is done `TIMES` times, all in one process: under valgrind
    the start of Python takes longer than all of them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        # What was counted is written, and starts at 0 again, at each call of this function of C.
        options = ["--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={out}"]
        done = subprocess.run(
            ["valgrind", *options, sys.executable, "-m", "benchmarks.counted", str(TIMES)],
            cwd=ROOT,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        # The first dump is the way to the first mark; what follows the last has no number.
        dumps = [Path(f"{out}.{number}") for number in range(2, len(WORKS) + 2)]
        if done.returncode or not all(dump.exists() for dump in dumps):
            raise RuntimeError(f"counting failed:\n{done.stdout}{done.stderr}")
        found = [re.search(r"^totals: (\d+)$", dump.read_text(), re.MULTILINE) for dump in dumps]
    return {name: int(one[1]) for name, one in zip(WORKS, found, strict=True) if one}


def excess(counted: dict[str, int], budget: dict[str, int]) -> list[str]:
    """Describe the works that take more instructions than they may."""
    return [
        f"{name}: {counted[name]:,} instructions, the budget is {allowed:,} "
        f"(+{counted[name] / allowed - 1:.0%}, {MARGIN:.0%} are allowed)"
        for name, allowed in budget.items()
        if counted[name] > allowed * (1 + MARGIN)
    ]


def python() -> str:
    """Return the Python that a budget is for."""
    return f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"


def load() -> dict[str, int] | None:
    """The budget for this Python, if there is one."""
    stored: dict[str, dict[str, int]] = json.loads(BUDGET.read_text())
    return stored.get(python())


def main() -> None:
    counted = count()
    print(json.dumps(counted, indent=2))
    if "--update" in sys.argv:
        stored = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
        BUDGET.write_text(json.dumps({**stored, python(): counted}, indent=2) + "\n")
        return
    budget = load()
    if budget is None:
        sys.exit(f"there is no budget for {python()}; --update stores one")
    if problems := excess(counted, budget):
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
