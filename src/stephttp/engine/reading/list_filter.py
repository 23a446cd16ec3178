"""Which runs are wanted, and which part of the list. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_LISTED = 100
"""Items that a page may have."""


class RunState(StrEnum):
    """Where a run stands, as people see it.

    `RUNNING`: its handler is at work, or is about to be called. `WAITING`: for a time, an event, a
    signal, another run, or the repetition of something that failed.
    """

    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are wanted; what is `None` or empty does not matter.

    Attributes:
        endpoints: slugs or function ids, any of which will do.
        states: any of these will do.
        after_ms: first reported at this time or later.
        before_ms: first reported before this time.
        text: stands in the request's path, query or body, in the result, in an error, or in the
            result or the options of a step; whether in capitals or not (of the letters of ASCII).
        run_id: what the run's id begins with.
        rerun_of: the run that was run again.
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
        cursor: `Page.older` or `Page.newer` of another page; `None`: from the newest on, or, with
            `newer`, from the oldest on.
        newer: the page before the cursor, not after it. Lists begin with what is newest.
    """

    limit: int = 20
    cursor: str | None = None
    newer: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, newest first.

    Attributes:
        items: what was found.
        older: cursor of the page after this one; `None`: there is none.
        newer: cursor of the page before this one, which may be empty until there is something
            new; `None`: nothing was ever listed.
        searched_to_ms: if the page is shorter than it might be because the search was ended: the
            time up to which it came. Go on with `older` (or `newer`, in that direction).
    """

    items: tuple[T, ...]
    older: str | None = None
    newer: str | None = None
    searched_to_ms: int | None = None
