"""How a search goes through a long list of runs or events in bounded time, and stops where it is.

Candidates come from indexes, in the order of the list; what no index covers is checked candidate
by candidate, in chunks. A search that takes too long stops where it is, and says where that was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import msgspec

from stephttp.engine.model.refused import Refused
from stephttp.engine.reading.list_filter import MOST_LISTED, Page, Paging

T = TypeVar("T")

MOST_EXAMINED = 100_000
"""Candidates that one search examines at most."""

_LARGEST_CHUNK = 256
_SLACK_MS = 300_000
"""A clock may have been set back this far without a filter for times missing a row."""
_LARGEST_SEQ = 2**63 - 1

Stop = Callable[[], bool]
"""Says whether a search has taken long enough."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A part of a list: the numbers between two others, both excluded."""

    above: int = -1
    below: int = _LARGEST_SEQ

    def within(self, other: Bounds) -> Bounds:
        """Return the part that both have in common."""
        return Bounds(max(self.above, other.above), min(self.below, other.below))


class Times(NamedTuple):
    """A table whose rows are numbered in the order of a time."""

    table: str
    column: str


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The outcome of a search.

    Attributes:
        rows: with their numbers, in the order of the search.
        more: there are further candidates.
        stopped_at: the last candidate examined, if the search was stopped early.
    """

    rows: list[tuple[int, T]]
    more: bool
    stopped_at: int | None = None

    def page(self, paging: Paging, connection: sqlite3.Connection, times: Times) -> Page[T]:
        """Return the page that `paging` asks for."""
        rows = self.rows[::-1] if paging.newer else self.rows
        items = tuple(row for _, row in rows)
        first, last = (rows[0][0], rows[-1][0]) if rows else (None, None)
        cursor = None if paging.cursor is None else int(paging.cursor)
        if paging.newer:
            newer = first if self.stopped_at is None else self.stopped_at
            if not rows and cursor is not None:
                # Nothing is newer yet; the item at the cursor is the next older one.
                newer = cursor if newer is None else newer
                last = cursor + 1
            older = last
        else:
            oldest = last if self.stopped_at is None else self.stopped_at
            older = oldest if self.more else None
            newer = first
            if not rows and cursor is not None:
                newer = cursor - 1
        searched_to_ms = None
        if self.stopped_at is not None:
            look = f"SELECT {times.column} FROM {times.table} WHERE seq = ?"
            (searched_to_ms,) = connection.execute(look, (self.stopped_at,)).fetchone()
        return Page(items, _text(older), _text(newer), searched_to_ms)


def check(page: Paging) -> None:
    """Check which part of a list is wanted.

    Raises:
        Refused: limit or cursor is not valid.
    """
    if not 1 <= page.limit <= MOST_LISTED:
        raise Refused(f"limit: {page.limit} is not a number from 1 to {MOST_LISTED}")
    cursor_bounds(page)


def cursor_bounds(page: Paging) -> Bounds:
    """Return the part of a list that lies beyond the cursor.

    Raises:
        Refused: this is not a cursor.
    """
    if page.cursor is None:
        return Bounds()
    text = page.cursor
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refused(f"cursor: {text[:64]!r} is not a cursor of this list")
    return Bounds(above=int(text)) if page.newer else Bounds(below=int(text))


def search(
    candidates: Iterator[int],
    examine: Callable[[Sequence[int]], Sequence[tuple[int, T]]],
    limit: int,
    stop: Stop,
) -> Found[T]:
    """Find up to `limit` rows.

    Args:
        candidates: numbers in the order of the search.
        examine: returns the wanted ones of a chunk, in the order of the search.
    """
    rows: list[tuple[int, T]] = []
    examined, size = 0, limit
    while True:
        # A larger first chunk would examine candidates that the page has no room for.
        chunk = list(islice(candidates, min(size, _LARGEST_CHUNK)))
        if not chunk:
            return Found(rows, more=False)
        rows += examine(chunk)
        if len(rows) >= limit:
            more = len(rows) > limit or next(candidates, None) is not None
            return Found(rows[:limit], more)
        examined += len(chunk)
        if examined >= MOST_EXAMINED or stop():
            return Found(rows, more=True, stopped_at=chunk[-1])
        size *= 2


def like_patterns(text: str) -> list[str]:
    """Return patterns for `LIKE`: the text as it may appear in a body, and in JSON, where some
    characters are escaped."""
    escaped = msgspec.json.encode(text)[1:-1].decode()
    marks = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})
    return [f"%{one.translate(marks)}%" for one in dict.fromkeys([text, escaped])]


def time_bounds(
    connection: sqlite3.Connection, times: Times, after_ms: int | None, before_ms: int | None
) -> Bounds:
    """Return bounds around the rows of a period; they may include others."""
    bounds = Bounds()
    if after_ms is not None:
        bounds = Bounds(above=_first(connection, times, after_ms - _SLACK_MS) - 1)
    if before_ms is not None:
        end = _first(connection, times, before_ms + _SLACK_MS)
        bounds = bounds.within(Bounds(below=end))
    return bounds


def _first(connection: sqlite3.Connection, times: Times, time_ms: int) -> int:
    """Return the first number with a time at or after the given one, as if rows were in order."""
    table, column = times
    # One query for both would look at all rows.
    ends = f"SELECT (SELECT min(seq) FROM {table}), (SELECT max(seq) + 1 FROM {table})"
    low, high = connection.execute(ends).fetchone()
    if low is None:
        return 0
    look = f"SELECT seq, {column} FROM {table} WHERE seq >= ? ORDER BY seq LIMIT 1"
    while low < high:
        middle = (low + high) // 2
        seq, found_ms = connection.execute(look, (middle,)).fetchone()
        if found_ms < time_ms:
            low = seq + 1
        else:
            high = middle
    return int(low)


def _text(seq: int | None) -> str | None:
    return None if seq is None else str(seq)
