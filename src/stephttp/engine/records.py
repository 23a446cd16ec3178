"""Between the tables and the values of `models`: loading what a transition needs, storing what
it decided."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from stephttp.engine.models import (
    RESUME,
    TARGETED,
    Call,
    Change,
    Errand,
    Known,
    NewRun,
    Refused,
    Run,
    RunStatus,
    Snapshot,
    Timer,
    TimerKind,
)
from stephttp.engine.sql import QUERIES

_BUSY = TARGETED | {TimerKind.RETRY}
_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in (NewRun, Run)}


def load(connection: sqlite3.Connection, run_id: str, step_ids: Iterable[str] = ()) -> Snapshot:
    """A run, its open timers, and those of the named steps that are known.

    Raises:
        Refused: there is no such run.
    """
    row = connection.execute(QUERIES["run_state"], (run_id,)).fetchone()
    if row is None:
        raise unknown(run_id)
    state = Run(
        run_id=row[0],
        status=RunStatus(row[1]),
        retries=row[2],
        request_version=row[3],
        job_id=row[4],
        attempt=row[5],
        unreached=row[6],
        idle=row[7],
        step_count=row[8],
        last_error=row[9],
        ended_ms=row[10],
    )
    # Only the engine's own work opens timers, and that begins when a run leaves `SYNC`.
    timers = load_timers(connection, run_id) if state.status is RunStatus.ASYNC else {}
    steps = {}
    for step_id in step_ids:
        row = connection.execute(QUERIES["known_step"], (run_id, step_id)).fetchone()
        if row is not None:
            steps[step_id] = Known(attempts=row[0], resolved=bool(row[1]))
    return Snapshot(state, steps, timers)


def load_timers(connection: sqlite3.Connection, run_id: str) -> dict[str, Timer]:
    """The open timers of a run."""
    rows = connection.execute(QUERIES["timers_of_run"], (run_id,))
    return {step_id: Timer(step_id, TimerKind(kind), *others) for step_id, kind, *others in rows}


def load_call(connection: sqlite3.Connection, run_id: str, step_id: str = RESUME) -> Call:
    """What to send to the endpoint of a run, as its own call or for a planned step."""
    call = Call(*connection.execute(QUERIES["run_call"], (run_id,)).fetchone())
    timers = load_timers(connection, run_id)
    if step_id == RESUME:
        # A step that is being called for, or in its back-off, must not be run beside that.
        return replace(call, plan=any(timer.kind in _BUSY for timer in timers.values()))
    timer = timers[step_id]
    return replace(call, job_id=timer.job_id, attempt=timer.attempt, step_id=step_id, plan=True)


def load_errand(connection: sqlite3.Connection, run_id: str, step_id: str) -> Errand:
    """The HTTP request that the engine has to make for a step."""
    return Errand(run_id, step_id, load_timers(connection, run_id)[step_id].payload or b"null")


def insert(connection: sqlite3.Connection, new: NewRun, change: Change) -> bool:
    """Store a new run with its first change; `False` if the run id is taken."""
    values = _values(new) | _values(change.run)
    if connection.execute(QUERIES["insert_run"], values).rowcount == 0:
        return False
    _save_parts(connection, change)
    return True


def save(connection: sqlite3.Connection, change: Change, before: Run, now_ms: int) -> None:
    """Store what a transition decided."""
    run = change.run
    if run != before:
        values = _values(run)
        connection.execute(QUERIES["update_run"], values)
        if change.ended:
            connection.execute(QUERIES["end_run"], values)
    for step_id, memo in change.resolved:
        connection.execute(
            QUERIES["resolve_step"],
            {
                "run_id": run.run_id,
                "step_id": step_id,
                "memo": memo,
                "now_ns": now_ms * 1_000_000,
            },
        )
    if change.ended and before.status is not RunStatus.SYNC:
        connection.execute(QUERIES["delete_timers"], (run.run_id,))
    _save_parts(connection, change)


def _save_parts(connection: sqlite3.Connection, change: Change) -> None:
    run_id = change.run.run_id
    _many(
        connection,
        "upsert_step",
        [
            (
                run_id,
                step.step_id,
                step.seq,
                step.userland_id,
                step.userland_index,
                step.name,
                step.op,
                step.attempts,
                step.started_ns,
                step.duration_ns,
                step.error,
                step.memo,
            )
            for step in change.steps
        ],
    )
    _many(connection, "delete_timer", [(run_id, step_id) for step_id in change.dropped])
    _many(
        connection,
        "upsert_timer",
        [
            (
                run_id,
                timer.step_id,
                timer.kind,
                timer.due_ms,
                timer.job_id,
                timer.attempt,
                timer.unreached,
                timer.payload,
            )
            for timer in change.timers
        ],
    )


def _values(record: NewRun | Run) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _FIELDS[type(record)]}


def _many(connection: sqlite3.Connection, query: str, rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        connection.executemany(QUERIES[query], rows)


def unknown(run_id: str) -> Refused:
    """The error for a run that is not there."""
    return Refused(f"run_id: there is no run {run_id}", 404)
