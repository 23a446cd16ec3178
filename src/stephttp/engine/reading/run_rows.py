"""A run as one row of a list: its state, and what it waits for."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stephttp.engine.model.gate import MARK
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.timer import RESUME, TimerKind
from stephttp.engine.reading.list_filter import RunState
from stephttp.engine.store.many_rows import json_array

AT_WORK = "('resume', 'planned', 'racing', 'gateway')"
"""Kinds of timers for work that is being done once they are due."""

NOT_IN_LANE = f"(aside IS NULL OR aside < '{MARK}')"
"""A timer does not wait for its turn behind a limit."""

COLUMNS = f"""
SELECT seq, run_id, status, slug, method, path, created_ms, began_ms, first_ns, ended_ms, attempt,
       step_count, last_error, error, rerun_of,
       async_ms IS NOT NULL,
       status = 'async' AND EXISTS (
           SELECT 1 FROM timers WHERE timers.run_id = runs.run_id AND due_ms <= :now_ms
           AND kind IN {AT_WORK} AND {NOT_IN_LANE}) AS at_work,
       CASE WHEN EXISTS (SELECT 1 FROM function_runs WHERE function_runs.run_id = runs.run_id)
            THEN event_name END
FROM runs WHERE seq IN (SELECT value FROM json_each(:seqs))"""


@dataclass(frozen=True, slots=True)
class OpenWait:
    """Something that a run waits for.

    Attributes:
        kind: as `TimerKind`.
        step_id, step: hash and name of the step that waits; `None`: the wait is for the call of the
            endpoint.
        key: name of the event or signal, or id of the invoked run.
        condition: CEL expression that the event must fulfil.
        due_ms: when the wait ends at the latest.
        behind: the limit behind which it waits for its turn, although it is due: the name of a
            gate; `None`: it does not.
    """

    kind: TimerKind
    step_id: str | None
    step: str | None
    key: str | None
    condition: str | None
    due_ms: int
    behind: str | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run, in a list.

    Attributes:
        status: as stored; `state`: as people see it.
        endpoint: slug.
        created_ms: when it was first reported.
        began_ms: when its request came in.
        first_ms: milliseconds that its first phase took; `None` until that ends.
        attempt: failed attempts of the present call.
        error: why it failed, as JSON with `name` and `message`.
        waiting_for: open waits and due calls; empty once it has ended.
        step_count: how many steps are known.
        rerun_of: the run that it repeats.
        went_async: it continues, or continued, in the background.
        started_by: the name of the event that started it, if it is a run of a function.
    """

    run_id: str
    status: RunStatus
    state: RunState
    endpoint: str
    method: str
    path: str
    created_ms: int
    began_ms: int
    first_ms: float | None
    ended_ms: int | None
    attempt: int
    step_count: int
    last_error: str | None
    error: bytes | None
    rerun_of: str | None
    went_async: bool
    started_by: str | None
    waiting_for: tuple[OpenWait, ...] = ()


def run_row(row: Sequence[Any]) -> RunRow:
    """Make the row of a run from `COLUMNS`, without its waits."""
    _, run_id, status, *names, first_ns, ended_ms, attempt, step_count = row[:12]
    last_error, error, rerun_of, went_async, at_work, started_by = row[12:]
    known = RunStatus(status)
    state = state_of(known, at_work=bool(at_work))
    first_ms = None if first_ns is None else first_ns / 1_000_000
    values: list[Any] = [run_id, known, state, *names, first_ms, ended_ms, attempt, step_count]
    values += [last_error, error, rerun_of, bool(went_async), started_by]
    return RunRow(*values)


def state_of(status: RunStatus, *, at_work: bool) -> RunState:
    """Return where a run stands, as people see it."""
    if status.ended:
        return RunState(status.value)
    return RunState.RUNNING if at_work or status is RunStatus.SYNC else RunState.WAITING


def load_waits(connection: sqlite3.Connection, run_ids: Iterable[str]) -> dict[str, list[OpenWait]]:
    """Return the waits of open runs, by run, each list by due time."""
    rows = connection.execute(
        f"""
        SELECT timers.run_id, kind, timers.step_id, coalesce(userland_id, name), key, condition,
               due_ms, CASE WHEN {NOT_IN_LANE} THEN NULL ELSE aside END
        FROM timers LEFT JOIN steps USING (run_id, step_id)
        WHERE timers.run_id IN (SELECT value FROM json_each(?))
              AND kind NOT IN ('lease', 'orphan', 'cancel', 'start', 'finish')
        ORDER BY due_ms""",
        (json_array(run_ids),),
    )
    waits = defaultdict(list)
    for run_id, kind, step_id, *others in rows:
        own = step_id == RESUME
        waits[run_id].append(OpenWait(TimerKind(kind), None if own else step_id, *others))
    return waits


def load_limits(connection: sqlite3.Connection, run_id: str) -> tuple[OpenWait, ...]:
    """Return what may cancel a run of a function: events, in their order, and timeouts."""
    rows = connection.execute(
        """
        SELECT kind, step_id, NULL, key, condition, due_ms FROM timers
        WHERE run_id = ? AND (kind IN ('cancel', 'start') OR (kind = 'finish' AND payload IS NULL))
        ORDER BY step_id""",
        (run_id,),
    )
    return tuple(OpenWait(TimerKind(kind), *others) for kind, *others in rows)


def with_waits(connection: sqlite3.Connection, rows: Sequence[RunRow]) -> tuple[RunRow, ...]:
    """Return rows with what their runs wait for."""
    waits = load_waits(connection, (row.run_id for row in rows if row.status is RunStatus.ASYNC))
    return tuple(_waiting(row, waits[row.run_id]) if row.run_id in waits else row for row in rows)


def _waiting(row: RunRow, waits: list[OpenWait]) -> RunRow:
    return replace(row, waiting_for=tuple(waits))
