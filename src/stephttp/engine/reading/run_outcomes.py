"""The outcomes of runs: of one, or of all that an event started."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stephttp._wire.json import UNREADABLE
from stephttp.engine.model.run import RunStatus
from stephttp.engine.rules.results import render
from stephttp.engine.store.runs import unknown

MOST_BEGUN = 1000
"""How many runs of an event are read at once."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A run, and what it ended with.

    Attributes:
        slug: of the endpoint or the function; `function` is the function's name, if it is one.
        created_ms: when it was first reported; `began_ms`: when its request came in.
        event_ids: of the events that began it; several, if they were gathered.
        output: JSON: what a function returned, the body of an endpoint's answer, or the whole error
            of a run that failed. `None` if it has not ended, and if it was cancelled.
    """

    run_id: str
    status: RunStatus
    app_id: str
    fn_id: str
    slug: str
    function: str | None
    created_ms: int
    began_ms: int
    ended_ms: int | None
    event_ids: tuple[str, ...]
    event_name: str
    output: bytes | None


def outcome_of(connection: sqlite3.Connection, run_id: str) -> RunOutcome:
    """Return one run.

    Raises:
        Refused: there is no such run.
    """
    row = connection.execute(f"{_SELECT} WHERE run_id = ?", (run_id,)).fetchone()
    if row is None:
        raise unknown(run_id)
    return _outcome(row)


def outcomes_of(
    connection: sqlite3.Connection, event_id: str, after: str = "", most: int = MOST_BEGUN
) -> tuple[RunOutcome, ...]:
    """Return runs that an event began, oldest first.

    Args:
        after: the run behind which to begin.
        most: how many at most.
    """
    values = {"event_id": event_id, "after": after, "most": most}
    return tuple(_outcome(row) for row in connection.execute(_BEGUN, values))


def ending(status: RunStatus, body: bytes, error: bytes | None) -> bytes | None:
    """Return what a run ended with; see `RunOutcome.output`.

    Args:
        body: what a function returned, as JSON, or the body of an endpoint's answer: any bytes.
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


_SELECT = """
SELECT run_id, status, runs.app_id, fn_id, runs.slug, functions.name, created_ms, began_ms,
       ended_ms, event_id, event_name,
       (SELECT json_group_array(event_id) FROM links
        WHERE links.run_id = runs.run_id AND step_id = '' AND received),
       error, head, output, events IS NOT NULL
FROM runs LEFT JOIN functions USING (fn_id) LEFT JOIN function_runs USING (run_id)"""

# A run that several events began is linked to each of them.
_BEGUN = f"""{_SELECT}
WHERE run_id IN (
    SELECT run_id FROM runs WHERE event_id = :event_id
    UNION SELECT run_id FROM links WHERE event_id = :event_id AND step_id = '' AND received)
      AND runs.seq > coalesce((SELECT seq FROM runs WHERE run_id = :after), 0)
ORDER BY runs.seq LIMIT :most"""


def _outcome(row: Sequence[Any]) -> RunOutcome:
    run_id, name, *others, event_id, event_name, linked, error, head, output, is_function = row
    status = RunStatus(name)
    body = output or b"null"
    if not is_function and status is RunStatus.COMPLETED:
        body = render(status, output, head, error).body
    event_ids = tuple(sorted(msgspec.json.decode(linked))) or (event_id,)
    ended = ending(status, body, error)
    values: list[Any] = [run_id, status, *others, event_ids, event_name, ended]
    return RunOutcome(*values)
