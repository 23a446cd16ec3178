"""The list of events that were sent, its filters, and the runs that sent or received each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import RunStatus
from stephttp.engine.reading.list_filter import Page, Paging
from stephttp.engine.reading.scanning import (
    Bounds,
    Stop,
    Times,
    check,
    cursor_bounds,
    like_patterns,
    search,
    time_bounds,
)
from stephttp.engine.store.many_rows import json_array

_TIMES = Times("events", "received_ms")


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted; a field that is `None` excludes none.

    Attributes:
        after_ms, before_ms: received at this time or later, and before this time.
        text: the event's JSON contains it.
    """

    name: str | None = None
    after_ms: int | None = None
    before_ms: int | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event.

    Attributes:
        event_id: the engine's own id; `id` is the sender's, if it chose one.
        repeated: an earlier event had the same sender's id, so this one ended no wait.
        body: the event as JSON, exactly as runs get it.
        runs: how many runs sent it or waited for it.
    """

    event_id: str
    name: str
    id: str | None
    repeated: bool
    received_ms: int
    ts_ms: int
    body: bytes
    runs: int


@dataclass(frozen=True, slots=True)
class LinkedRun:
    """A run with a step that waited for an event (`received`), or sent it."""

    run_id: str
    status: RunStatus
    endpoint: str
    step_id: str
    step: str | None
    received: bool


@dataclass(frozen=True, slots=True)
class EventDetail:
    """An event, with the runs that sent or received it."""

    row: EventRow
    runs: tuple[LinkedRun, ...]


def list_events(
    connection: sqlite3.Connection,
    wanted: EventFilter,
    page: Paging,
    stop: Stop = lambda: False,
) -> Page[EventRow]:
    """Return events, newest first.

    Raises:
        Refused: limit or cursor is not valid.
    """
    check(page)
    bounds = cursor_bounds(page)
    bounds = bounds.within(time_bounds(connection, _TIMES, wanted.after_ms, wanted.before_ms))
    order = "ASC" if page.newer else "DESC"

    def examine(seqs: Sequence[int]) -> list[tuple[int, EventRow]]:
        query = _ROWS
        values: dict[str, Any] = {"seqs": json_array(seqs)}
        values |= {"after_ms": wanted.after_ms, "before_ms": wanted.before_ms}
        if wanted.text:
            patterns = {f"text{n}": text for n, text in enumerate(like_patterns(wanted.text))}
            likes = (f"CAST(body AS TEXT) LIKE :{name} ESCAPE '\\'" for name in patterns)
            query += f" AND ({' OR '.join(likes)})"
            values |= patterns
        rows = connection.execute(f"{query} ORDER BY seq {order}", values)
        return [(row[0], _row(row)) for row in rows]

    candidates = _candidates(connection, wanted.name, bounds, order)
    return search(candidates, examine, page.limit, stop).page(page, connection, _TIMES)


def event_detail(connection: sqlite3.Connection, event_id: str) -> EventDetail:
    """Return one event.

    Raises:
        Refused: there is no such event.
    """
    found = connection.execute(f"{_SELECT} WHERE event_id = ?", (event_id,)).fetchone()
    if found is None:
        raise Refused(f"event: there is no event {event_id[:64]!r}", 404)
    runs = connection.execute(_RUNS, (event_id,))
    return EventDetail(
        _row(found),
        tuple(
            LinkedRun(run_id, RunStatus(status), slug, step_id, step, bool(received))
            for run_id, status, slug, step_id, step, received in runs
        ),
    )


_SELECT = """
SELECT seq, event_id, name, dedupe, repeated, received_ms, ts, body,
       (SELECT count(DISTINCT run_id) FROM links WHERE links.event_id = events.event_id)
FROM events"""

_ROWS = f"""{_SELECT}
WHERE seq IN (SELECT value FROM json_each(:seqs))
      AND NOT internal AND received_ms >= coalesce(:after_ms, received_ms)
      AND received_ms < coalesce(:before_ms, received_ms + 1)"""

_RUNS = """
SELECT run_id, runs.status, runs.slug, links.step_id, coalesce(userland_id, steps.name), received
FROM links JOIN runs USING (run_id) LEFT JOIN steps USING (run_id, step_id)
WHERE links.event_id = ? ORDER BY runs.seq"""


def _candidates(
    connection: sqlite3.Connection, name: str | None, bounds: Bounds, order: str
) -> Iterator[int]:
    chosen, values = ("", ()) if name is None else ("name = ? AND", (name,))
    rows = connection.execute(
        f"SELECT seq FROM events WHERE {chosen} seq > ? AND seq < ? ORDER BY seq {order}",
        (*values, bounds.above, bounds.below),
    )
    return (seq for (seq,) in rows)


def _row(row: Sequence[Any]) -> EventRow:
    _, event_id, name, dedupe, repeated, *others = row
    return EventRow(event_id, name, dedupe, bool(repeated), *others)
