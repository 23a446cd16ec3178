"""Keeps schedules in line with what apps register."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from stephttp.engine.model.function import Function
from stephttp.engine.model.inputs import Moment
from stephttp.engine.rules.functions import scheduling
from stephttp.engine.store import schedule_rows


def arrange(connection: sqlite3.Connection, functions: Iterable[Function], at: Moment) -> None:
    """Bring schedules into line with the triggers of functions.

    One whose trigger is as it was stays as it is, due or not.

    Args:
        functions: all that are present.
    """
    wanted = {
        (function.endpoint.fn_id, place): trigger
        for function in functions
        if function.endpoint.refused is None
        for place, trigger in enumerate(function.triggers)
        if trigger.cron is not None
    }
    for one in schedule_rows.load(connection):
        trigger = wanted.get((one.fn_id, one.place))
        if trigger is None:
            schedule_rows.delete(connection, one)
        elif (trigger.cron, trigger.jitter_ms) == (one.cron, one.jitter_ms):
            del wanted[one.fn_id, one.place]
    for (fn_id, place), trigger in wanted.items():
        schedule_rows.save(connection, scheduling.first(fn_id, place, trigger, at))
