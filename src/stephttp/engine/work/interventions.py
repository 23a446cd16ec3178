"""Actions of people on runs, as transactions: rerun, cancel, resume ("end what it waits for").

`reruns` and `cut_waits` decide; each function here is one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from http import HTTPStatus

from msgspec.structs import replace

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules import cut_waits, reruns
from stephttp.engine.rules.functions import planning, starting
from stephttp.engine.rules.functions.run_timers import run_timers
from stephttp.engine.rules.reruns import AS_IT_WAS, Edit
from stephttp.engine.store import function_rows, gate_rows, runs
from stephttp.engine.work import save

Act = Callable[[sqlite3.Connection, str, Moment], Change | None]
"""Does something to one run; returns `None` if there is nothing to do."""


def rerun(
    connection: sqlite3.Connection, run_id: str, at: Moment, edit: Edit = AS_IT_WAS
) -> Change:
    """Start a run with the request of another.

    Raises:
        Refused: there is no such run, or the edit does not fit it.
    """
    new, change = reruns.repeat(runs.load_source(connection, run_id), edit, at)
    start = None
    if new.events is not None:
        function = function_rows.load_function(connection, change.run.fn_id)
        if function is not None:  # It may have moved since, or got other options.
            new = reruns.moved(new, function.endpoint)
            start = planning.plan(function, *starting.first_event(new), at.now_ms)
            limits = run_timers(function.options, start.event.body, at)
            change = replace(change, timers=(*change.timers, *limits))
    runs.insert(connection, new, change)
    if start is not None:
        gate_rows.add(connection, new.run_id, start, at.now_ms)
    return save.begun(connection, new, change, (), at)


def resume(connection: sqlite3.Connection, run_id: str, step_id: str | None, at: Moment) -> Change:
    """Make due what a run waits for.

    Raises:
        Refused: there is no such run, or it does not wait for that.
    """
    snapshot = runs.load(connection, run_id)
    change = cut_waits.hurried(snapshot, step_id, at)
    return save.save(connection, change, snapshot.run, (), at)


def cancel_open(connection: sqlite3.Connection, run_id: str, at: Moment) -> Change | None:
    """End a run as cancelled, unless it has ended."""
    change = save.cancel(connection, run_id, at)
    return change if change.ended else None


def act_on(
    connection: sqlite3.Connection, run_ids: Sequence[str], act: Act, at: Moment
) -> list[Change]:
    """Do the same to several runs, and skip those that ended or were deleted meanwhile."""
    changes = []
    for run_id in run_ids:
        try:
            change = act(connection, run_id, at)
        except Refused as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            continue
        if change is not None:
            changes.append(change)
    return changes


def next_seq(connection: sqlite3.Connection) -> int:
    """Return the number that the next new run will have, at least."""
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM runs").fetchone()
    return int(seq)
