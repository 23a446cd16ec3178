"""Filters and pages of a list of runs (states, endpoint, time, text), as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_LISTED = 100
"""Items that a page has at most."""


class RunState(StrEnum):
    """Where a run stands, as people see it.

    `RUNNING`: its handler is running, or is about to be called. `WAITING`: for a time, an event, a
    signal, another run, or the retry of something that failed.
    """

    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are wanted; a field that is `None` or empty excludes none.

    Attributes:
        endpoints: slugs or function ids; the run's endpoint is one of them.
        states: the run's state is one of them.
        after_ms: first reported at this time or later.
        before_ms: first reported before this time.
        text: the request's path, query or body, the result, an error, or a step's result or options
            contain it; the case of ASCII characters does not matter.
        run_id: the run's id begins with it.
        rerun_of: the run is a rerun of this one.
    """

    endpoints: tuple[str, ...] = ()
    states: frozenset[RunState] = frozenset()
    after_ms: int | None = None
    before_ms: int | None = None
    text: str | None = None
    run_id: str | None = None
    rerun_of: str | None = None


@dataclass(frozen=True, slots=True)
class Paging:
    """Which part of a list is wanted.

    Attributes:
        limit: how many items, at most `MOST_LISTED`.
        cursor: `Page.older` or `Page.newer` of another page; `None`: from the newest item on, or,
            with `newer`, from the oldest.
        newer: the page before the cursor, not after it. Lists begin with the newest item.
    """

    limit: int = 20
    cursor: str | None = None
    newer: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, newest first.

    Attributes:
        older: cursor of the page after this one; `None`: this is the last.
        newer: cursor of the page before this one, which may be empty until there is something
            new; `None`: nothing was ever listed.
        searched_to_ms: the time that the search reached, if it was stopped before the page was
            full. Continue with `older` (or `newer`, in that direction).
    """

    items: tuple[T, ...]
    older: str | None = None
    newer: str | None = None
    searched_to_ms: int | None = None
