"""Schedules of functions, between their table and values."""

from __future__ import annotations

import sqlite3

from msgspec.structs import asdict

from stephttp.engine.model.function_schedule import FunctionSchedule
from stephttp.engine.store.sql import QUERIES

TriggerKey = tuple[str, int]
"""Id of a function, and the place of a trigger among those of the function."""


def load(connection: sqlite3.Connection) -> list[FunctionSchedule]:
    """Load all schedules."""
    return _read(connection.execute(QUERIES["schedules"]))


def load_due(connection: sqlite3.Connection, now_ms: int, limit: int) -> list[FunctionSchedule]:
    """Load up to `limit` schedules that are due, the longest overdue first."""
    return _read(connection.execute(QUERIES["due_schedules"], (now_ms, limit)))


def load_set_after(connection: sqlite3.Connection, late_ms: int) -> list[FunctionSchedule]:
    """Load the schedules that were worked out after a time."""
    return _read(connection.execute(QUERIES["schedules_set_after"], (late_ms,)))


def load_due_times(connection: sqlite3.Connection) -> dict[TriggerKey, int]:
    """Return when triggers start their functions next, but for those that are paused."""
    rows = connection.execute(QUERIES["next_starts"])
    return {(fn_id, place): due_ms for fn_id, place, due_ms in rows}


def save(connection: sqlite3.Connection, schedule: FunctionSchedule) -> None:
    """Store a schedule, in place of the one for the same trigger."""
    connection.execute(QUERIES["save_schedule"], asdict(schedule))


def delete(connection: sqlite3.Connection, schedule: FunctionSchedule) -> None:
    """Delete a schedule."""
    connection.execute(QUERIES["delete_schedule"], (schedule.fn_id, schedule.place))


def next_due_ms(connection: sqlite3.Connection) -> int | None:
    """Return when the next one is due; `None` if there is no schedule."""
    due_ms: int | None
    (due_ms,) = connection.execute(QUERIES["next_schedule"]).fetchone()
    return due_ms


def _read(rows: sqlite3.Cursor) -> list[FunctionSchedule]:
    return [FunctionSchedule(*row) for row in rows]
