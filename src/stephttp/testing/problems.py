"""Problems of a test: what is raised, and the runs that are added to an error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stephttp.testing.recorded import RecordedRun

_MOST_SHOWN = 5
"""Runs that are shown with an error."""

INTERRUPTIONS = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
"""What ends a test without a failure. A failure may be no `Exception`: `pytest.fail` raises one."""


def add_problems(error: BaseException, problems: Sequence[Exception]) -> None:
    """Add problems to an error as notes, but for those that it comes of."""
    shown: list[BaseException | None] = []
    cause: BaseException | None = error
    while cause is not None and cause not in shown:
        shown.append(cause)
        cause = cause.__cause__ or cause.__context__
    for problem in problems:
        if problem not in shown:
            error.add_note(f"\nand {type(problem).__name__}: {problem}")


def raise_problems(problems: Sequence[Exception]) -> None:
    """Raise the first of some problems, with the others as notes.

    Raises:
        Exception: there is one.
    """
    if problems:
        add_problems(problems[0], problems[1:])
        raise problems[0]


def add_runs(error: BaseException, runs: Sequence[RecordedRun]) -> None:
    """Add runs to an error as notes: the latest ones that it does not show itself."""
    for run in runs[-_MOST_SHOWN:]:
        if str(run) not in str(error):
            error.add_note(f"\n{run}")
