"""The runs that an event began, each with what it ended with: of functions, and of an endpoint
whose request the event stands for."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import msgspec

from stephttp._wire.json import UNREADABLE
from stephttp.engine.model.run import RunStatus
from stephttp.engine.rules.results import render

MOST_BEGUN = 1000
"""How many runs of an event are shown."""


@dataclass(frozen=True, slots=True)
class BegunRun:
    """A run that an event began.

    Attributes:
        slug: of the endpoint or the function; `function` is the function's name, if it is one.
        output: JSON: what it ended with; `None` until then, and if it was cancelled.
    """

    run_id: str
    created_ms: int
    fn_id: str
    event_id: str
    status: RunStatus
    ended_ms: int | None
    slug: str
    function: str | None
    output: bytes | None


def begun_runs(connection: sqlite3.Connection, event_id: str) -> tuple[BegunRun, ...]:
    """Return the runs that an event began, oldest first, at most `MOST_BEGUN`."""
    found = []
    for row in connection.execute(_RUNS, {"event_id": event_id, "most": MOST_BEGUN}):
        run_id, created_ms, fn_id, begun_by, name, *others = row
        ended_ms, slug, function, error, head, output, is_function = others
        status = RunStatus(name)
        body = output or b"null"
        if not is_function and status is RunStatus.COMPLETED:
            body = render(status, output, head, error).body
        shown = ending(status, body, error)
        found.append(
            BegunRun(
                run_id, created_ms, fn_id, begun_by, status, ended_ms, slug, function, shown
            )  # fmt: skip
        )
    return tuple(found)


def ending(status: RunStatus, body: bytes, error: bytes | None) -> bytes | None:
    """Return what a run ended with, as JSON; `None` if it has not, and if it was cancelled.

    Args:
        body: what a function returned, or the body of an endpoint's answer, which may be any bytes.
        error: the whole error of a failed run.
    """
    if status is RunStatus.FAILED:
        return error or b"{}"
    if status is not RunStatus.COMPLETED:
        return None
    try:
        body.decode()
        msgspec.json.decode(body)
    except UNREADABLE:
        return msgspec.json.encode(body.decode("utf-8", "replace"))
    return body


_RUNS = """
SELECT run_id, created_ms, runs.fn_id, event_id, status, ended_ms, runs.slug, functions.name,
       error, head, output, events IS NOT NULL
FROM runs LEFT JOIN functions USING (fn_id) LEFT JOIN function_runs USING (run_id)
WHERE run_id IN (
    SELECT run_id FROM runs WHERE event_id = :event_id
    UNION SELECT run_id FROM links WHERE event_id = :event_id AND step_id = '' AND received)
ORDER BY runs.seq LIMIT :most"""
