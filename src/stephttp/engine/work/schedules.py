"""Schedules of functions: kept in line with what apps register, and the starts that are due."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from stephttp.engine.model.clock import SET_BACK_MS
from stephttp.engine.model.function import Function
from stephttp.engine.model.function_schedule import FunctionSchedule
from stephttp.engine.model.function_start import Start
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.started import Started
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.functions import planning, scheduling
from stephttp.engine.store import function_rows, schedule_rows
from stephttp.engine.work import save

_MOST = 100
"""Starts of one unit of work."""
_AGAIN_MS = 3_600_000
"""How long a schedule rests whose expression cannot be read."""


@dataclass(frozen=True, slots=True)
class DueSchedules:
    """What was due.

    Attributes:
        started: what has become of the starts.
        next_due_ms: when to look again; `None` if nothing is scheduled.
        unreadable: the schedules whose next time cannot be found, and why.
    """

    started: Started
    next_due_ms: int | None
    unreadable: list[tuple[FunctionSchedule, str]] = field(default_factory=list)


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


def begin_due(connection: sqlite3.Connection, at: Moment) -> DueSchedules:
    """Start the functions whose time has come, and note their next times.

    A time that is noted here is over, whatever happens to the engine next: it starts a function
    exactly once. A paused function is not started, but its times pass.
    """
    unreadable: list[tuple[FunctionSchedule, str]] = []
    for one in schedule_rows.load_set_after(connection, at.now_ms + SET_BACK_MS):
        _move(connection, one, scheduling.corrected, at, unreadable)
    starts = [
        start
        for one in schedule_rows.load_due(connection, at.now_ms, _MOST)
        if _move(connection, one, scheduling.following, at, unreadable)
        and (start := _start(connection, one, at)) is not None
    ]
    started = save.start(connection, starts, at)
    return DueSchedules(started, schedule_rows.next_due_ms(connection), unreadable)


def _start(connection: sqlite3.Connection, schedule: FunctionSchedule, at: Moment) -> Start | None:
    function = function_rows.load_function(connection, schedule.fn_id)
    if function is None:
        return None
    event = scheduling.event(schedule, at)
    return planning.plan(function, event, expressions.read_event(event.body), at.now_ms)


def _move(
    connection: sqlite3.Connection,
    schedule: FunctionSchedule,
    move: Callable[[FunctionSchedule, Moment], FunctionSchedule],
    at: Moment,
    unreadable: list[tuple[FunctionSchedule, str]],
) -> bool:
    """Store the next time of a schedule, and return whether there is one.

    One whose time zone this computer does not know any more rests for a while, so that others do
    not suffer from it. Once it is known again, that is a time that was missed.
    """
    try:
        schedule_rows.save(connection, move(schedule, at))
    except ValueError as error:
        unreadable.append((schedule, str(error)))
        resting = replace(schedule, due_ms=at.now_ms + _AGAIN_MS, set_ms=at.now_ms)
        schedule_rows.save(connection, resting)
        return False
    return True
