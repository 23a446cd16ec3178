"""Timers of runs of functions as a whole that fall due, and the first calls of these runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.timer import TimerKind
from stephttp.engine.rules.functions.run_timers import LONGEST_MS
from stephttp.engine.store.many_rows import json_array
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import save

_PAUSE_MS = 50
"""Milliseconds after which an event is looked for again that may still cancel a run."""
_REASONS = {
    TimerKind.START: "it was not called within the time of timeouts.start",
    TimerKind.FINISH: "it did not end within the time of timeouts.finish",
}


def end_late(
    connection: sqlite3.Connection, due: Iterable[tuple[str, str, str]], at: Moment
) -> list[Change]:
    """Cancel runs whose time is over, and forget the events that can no longer cancel a run.

    Args:
        due: the timers that fell due: run id, step id and kind.
    """
    changes = []
    for run_id, step_id, kind in due:
        key = {"run_id": run_id, "step_id": step_id, "now_ms": at.now_ms}
        if kind == TimerKind.CANCEL:
            # An event that came in time may not be matched with it yet.
            postponed = key | {"pause_ms": _PAUSE_MS}
            if not connection.execute(QUERIES["postpone_cancel"], postponed).rowcount:
                connection.execute(QUERIES["delete_timer"], (run_id, step_id))
        elif not connection.execute(
            QUERIES["postpone_finish"], key | {"longest_ms": LONGEST_MS}
        ).rowcount:
            changes.append(save.cancel(connection, run_id, at, _REASONS[TimerKind(kind)]))
    return changes


def note_calls(connection: sqlite3.Connection, run_ids: Sequence[str], at: Moment) -> None:
    """Note that runs are called, if that is for the first time."""
    ids = json_array(run_ids)
    connection.execute(QUERIES["first_calls"], (ids,))
    connection.execute(QUERIES["begin_finish"], {"run_ids": ids, "now_ms": at.now_ms})
