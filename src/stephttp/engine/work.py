"""Units of work for the store: load, decide, save, in one transaction each."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from stephttp._core.ops import COMPLETING_OPS, Op
from stephttp.engine import consequences, records
from stephttp.engine.answers import OpsAnswer, PlainAnswer
from stephttp.engine.happenings import Failure, FailureKind, Moment, Origin
from stephttp.engine.models import (
    RESUME,
    SEPARATE,
    Call,
    Change,
    Entry,
    Errand,
    NewRun,
    Past,
    Refused,
    Run,
    RunStatus,
    Snapshot,
    TimerKind,
)
from stephttp.engine.planned import is_stale, is_superseded
from stephttp.engine.results import complete_result, error_json, op_data
from stephttp.engine.sql import QUERIES
from stephttp.engine.transitions import (
    apply_ops,
    arrived,
    call_failed,
    failed,
    fell_due,
    finished,
)

Key = tuple[str, str]
"""Run id and step id of a timer; the names of what is being worked on."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be called and fetched now, and when to look again (`None`: nothing is open)."""

    calls: list[Call]
    errands: list[Errand]
    next_due_ms: int | None


def start(
    connection: sqlite3.Connection, new: NewRun, run: Run, ops: Sequence[Op], at: Moment
) -> Change:
    """A first checkpoint: make the run. The same request again changes nothing.

    Raises:
        Refused: an op is not acceptable, or the run id is taken.
    """
    snapshot = records.load_surroundings(connection, Snapshot(run), ops, at.now_ms, new.app_id)
    change = apply_ops(snapshot, ops, Origin.CHECKPOINT, at)
    if records.insert(connection, new, change):
        return consequences.begun(connection, new, change, ops, at)
    (digest,) = connection.execute(QUERIES["run_digest"], (new.run_id,)).fetchone()
    if digest != new.digest:
        raise Refused(f"run_id: there is already another run {new.run_id}", 409)
    return Change(run)


def report(
    connection: sqlite3.Connection,
    run_id: str,
    ops: Sequence[Op],
    at: Moment,
    dispatch: tuple[str, int] | None = None,
) -> Change:
    """A further checkpoint: more ops of a run, perhaps of a call (job id and generation).

    Raises:
        Refused: an op is not acceptable, the run is unknown, or it has ended without knowing
            these ops.
    """
    snapshot = records.load(connection, run_id, {op.id for op in ops})
    if snapshot.run.status.ended:
        for index, op in enumerate(ops):
            if not is_repeat(connection, snapshot, [op]):
                status = snapshot.run.status.value
                raise Refused(f"steps[{index}]: the run has ended already ({status})", 409)
        return Change(snapshot.run)
    if dispatch is not None and is_superseded(snapshot, *dispatch):
        raise Refused(
            "generation_id: the call that this belongs to was given up, and repeated", 409
        )
    snapshot = records.load_surroundings(connection, snapshot, ops, at.now_ms)
    change = apply_ops(snapshot, ops, Origin.CHECKPOINT, at)
    return consequences.save(connection, change, snapshot.run, ops, at)


def claim(
    connection: sqlite3.Connection, at: Moment, busy: Collection[Key], slots: int, errands: int
) -> Claim:
    """Take up to `slots` due calls and `errands` due HTTP requests, none of them `busy`.

    What waited longest comes first.
    """
    chosen: dict[Key, None] = {}
    fetching: list[Key] = []
    next_due_ms = None
    rows = connection.execute(QUERIES["timers_by_due"])
    for run_id, step_id, kind, due_ms in rows:
        key = (run_id, step_id if kind in SEPARATE else RESUME)
        if key in busy or key in chosen:
            continue  # Whoever ends the call makes us look again.
        if due_ms <= at.now_ms and kind == TimerKind.GATEWAY:
            if len(fetching) < errands:
                fetching.append(key)
            continue  # Whoever ends an errand makes us look again.
        if due_ms > at.now_ms or len(chosen) == slots:
            next_due_ms = due_ms
            break
        chosen[key] = None
    rows.close()
    calls = []
    for run_id, step_id in chosen:
        if step_id != RESUME:
            calls.append(records.load_call(connection, run_id, step_id))
            continue
        snapshot = records.load(connection, run_id)
        if snapshot.run.status is RunStatus.SYNC:  # what is due of such a run is its lease
            snapshot = replace(snapshot, timers=records.load_timers(connection, run_id))
        change = fell_due(snapshot, at)
        records.save(connection, change, snapshot.run, at.now_ms)
        if change.call:
            calls.append(records.load_call(connection, run_id))
        else:
            # Its call is put off; the row that says until when was not looked at above.
            timers = records.load_timers(connection, run_id).values()
            later = [timer.due_ms for timer in timers if timer.kind not in SEPARATE]
            next_due_ms = min(later if next_due_ms is None else [next_due_ms, *later])
    fetches = [records.load_errand(connection, *key) for key in fetching]
    return Claim(calls, fetches, next_due_ms)


def deliver(
    connection: sqlite3.Connection, run_id: str, step_id: str, memo: bytes, at: Moment
) -> Change:
    """The HTTP request of a gateway step was made."""
    snapshot = records.load(connection, run_id)
    change = arrived(snapshot, {step_id: memo}, at)
    records.save(connection, change, snapshot.run, at.now_ms)
    return change


def settle(
    connection: sqlite3.Connection,
    call: Call,
    outcome: OpsAnswer | PlainAnswer | Failure,
    begun_ms: int,
    at: Moment,
) -> Change:
    """A call of the run's endpoint is over: apply what came of it, unless the run moved on.

    Args:
        begun_ms: when the call began.
    """
    ops = outcome.ops if isinstance(outcome, OpsAnswer) else []
    snapshot = records.load(connection, call.run_id, {op.id for op in ops})
    if is_stale(snapshot, call):
        return Change(snapshot.run)
    snapshot = records.load_surroundings(connection, snapshot, ops, at.now_ms)
    change = _decide(snapshot, outcome, at, call.step_id)
    entry = _past(call, outcome, begun_ms, at.now_ms)
    change = replace(change, history=(entry, *change.history))
    return consequences.save(connection, change, snapshot.run, ops, at)


def _past(
    call: Call, outcome: OpsAnswer | PlainAnswer | Failure, begun_ms: int, now_ms: int
) -> Entry:
    """What people are told of a call."""
    kind, error = Past.CALL, None
    if isinstance(outcome, Failure):
        error = error_json(outcome.name, outcome.message)
        if outcome.kind is FailureKind.TRANSIENT:
            kind = Past.UNREACHED
    return Entry(kind, call.step_id, call.job_id, call.attempt, begun_ms, now_ms, error)


def _decide(
    snapshot: Snapshot, outcome: OpsAnswer | PlainAnswer | Failure, at: Moment, target: str
) -> Change:
    if isinstance(outcome, Failure):
        return call_failed(snapshot, outcome, at, target)
    if isinstance(outcome, PlainAnswer):
        return finished(snapshot, outcome.body, outcome.head, at)
    try:
        return apply_ops(snapshot, outcome.ops, Origin.ANSWER, at, outcome.hints, target)
    except Refused as error:
        return failed(snapshot, Failure(FailureKind.FINAL, "AnswerError", str(error)), at)


def is_repeat(connection: sqlite3.Connection, snapshot: Snapshot, ops: Sequence[Op]) -> bool:
    """Whether ops for an ended run say nothing that is not known."""
    return all(_is_known(connection, snapshot, op) for op in ops)


def _is_known(connection: sqlite3.Connection, snapshot: Snapshot, op: Op) -> bool:
    if op.op not in COMPLETING_OPS:
        return op.id in snapshot.steps
    result = complete_result(op_data(op), unfold=True)
    row = connection.execute(QUERIES["run_output"], (snapshot.run.run_id,)).fetchone()
    return bool(row[1] == result.output)
