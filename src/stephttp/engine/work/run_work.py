"""Units of work for the store: load, decide, save, in one transaction each."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice

from msgspec.structs import replace

from stephttp._wire.opcodes import COMPLETING_OPS, Op
from stephttp.engine.model.inputs import Failure, FailureKind, Moment, Origin
from stephttp.engine.model.run import (
    RESUME,
    SEPARATE,
    TARGETED,
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
from stephttp.engine.rules.answers import OpsAnswer, PlainAnswer
from stephttp.engine.rules.planned_ops import is_stale, is_superseded
from stephttp.engine.rules.results import complete_result, error_json, op_data
from stephttp.engine.rules.transitions import (
    apply_ops,
    call_failed,
    failed,
    fell_due,
    finished,
    overdue,
)
from stephttp.engine.store import runs
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import resume_state, save

Key = tuple[str, str]
"""Run id and step id of a timer; the names of what is being worked on."""

_CALLS = TARGETED | {TimerKind.RESUME}
_MOST_OVERDUE = 100
"""How many runs one unit of work ends."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be called and fetched now, which runs were ended, and when to look again (`None`:
    nothing is open).

    Attributes:
        late: the kinds of the timers that led to it, and how many milliseconds after their time.
    """

    calls: list[Call]
    errands: list[Errand]
    ended: list[Change]
    next_due_ms: int | None
    late: list[tuple[str, int]] = field(default_factory=list)


def start(
    connection: sqlite3.Connection, new: NewRun, run: Run, ops: Sequence[Op], at: Moment
) -> Change:
    """A first checkpoint: make the run. The same request again changes nothing.

    Raises:
        Refused: an op is not acceptable, or the run id is taken.
    """
    snapshot = runs.load_surroundings(connection, Snapshot(run), ops, at.now_ms, new.app_id)
    change = apply_ops(snapshot, ops, Origin.CHECKPOINT, at)
    if runs.insert(connection, new, change):
        return save.begun(connection, new, change, ops, at)
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
    snapshot = runs.load(connection, run_id, {op.id for op in ops})
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
    snapshot = runs.load_surroundings(connection, snapshot, ops, at.now_ms)
    change = apply_ops(snapshot, ops, Origin.CHECKPOINT, at)
    return save.save(connection, change, snapshot.run, ops, at)


def key_of(run_id: str, step_id: str, kind: str) -> Key:
    """What is worked on when a timer falls due: a run, or one step of it."""
    return run_id, step_id if kind in SEPARATE else RESUME


def claim(
    connection: sqlite3.Connection,
    at: Moment,
    busy: Collection[Key],
    slots: int,
    errands: int,
    since_ms: int,
) -> Claim:
    """Take up to `slots` due calls and `errands` due HTTP requests, none of them `busy`, and end
    runs whose deadline has passed.

    What waited longest comes first. Who ends a call or a request looks again.

    Args:
        since_ms: when this engine began to call; a call that was due before may be under way still.
    """
    ended = _end_overdue(connection, at)
    chosen: dict[Key, bool] = {}
    late: list[tuple[str, int]] = []
    rows = connection.execute(QUERIES["due_calls"], (at.now_ms,))
    while len(chosen) < slots and (row := rows.fetchone()) is not None:
        run_id, step_id, kind, due_ms = row
        key = key_of(run_id, step_id, kind)
        if key not in busy and key not in chosen:
            chosen[key] = kind in _CALLS and due_ms < since_ms
            late.append((kind, at.now_ms - due_ms))
    rows.close()
    calls = []
    for key, again in chosen.items():
        call = _take(connection, *key, at)
        if call is not None:
            calls.append(replace(call, reads_state=False) if again else call)
    calls = resume_state.along_with(connection, calls)
    rows = connection.execute(QUERIES["due_errands"], (at.now_ms,))
    free = list(islice((row for row in rows if row[:2] not in busy), errands))
    rows.close()
    fetches = [runs.load_errand(connection, run_id, step_id) for run_id, step_id, _ in free]
    late += [(TimerKind.GATEWAY.value, at.now_ms - due_ms) for _, _, due_ms in free]
    return Claim(calls, fetches, ended, _next_due_ms(connection, at), late)


def _take(connection: sqlite3.Connection, run_id: str, step_id: str, at: Moment) -> Call | None:
    """The call that is due; `None` if what fell due leads to none yet."""
    timers = None
    if step_id == RESUME:
        snapshot = runs.load(connection, run_id)
        if snapshot.run.status is RunStatus.SYNC:  # what is due of such a run is its lease
            snapshot = replace(snapshot, timers=runs.load_timers(connection, run_id))
        change = fell_due(snapshot, at)
        runs.save(connection, change, snapshot.run, at.now_ms)
        if not change.call:
            return None
        timers = {key: one for key, one in snapshot.timers.items() if key not in change.dropped}
        timers |= {timer.step_id: timer for timer in change.timers}
    return runs.load_call(connection, run_id, step_id, timers)


def _end_overdue(connection: sqlite3.Connection, at: Moment) -> list[Change]:
    if at.settings.run_deadline is None:
        return []
    before_ms = at.now_ms - round(at.settings.run_deadline * 1000)
    values = {"before_ms": before_ms, "limit": _MOST_OVERDUE}
    changes = []
    for (run_id,) in connection.execute(QUERIES["overdue_runs"], values).fetchall():
        snapshot = runs.load(connection, run_id)
        change = overdue(snapshot, at)
        changes.append(save.save(connection, change, snapshot.run, (), at))
    return changes


def _next_due_ms(connection: sqlite3.Connection, at: Moment) -> int | None:
    times: list[int | None] = list(connection.execute(QUERIES["next_due"], (at.now_ms,)).fetchone())
    deadline = at.settings.run_deadline
    if deadline is not None:
        (oldest_ms,) = connection.execute(QUERIES["oldest_open_run"]).fetchone()
        times.append(None if oldest_ms is None else oldest_ms + round(deadline * 1000))
    return min((due_ms for due_ms in times if due_ms is not None), default=None)


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
    snapshot = runs.load(connection, call.run_id, {op.id for op in ops})
    if is_stale(snapshot, call):
        return Change(snapshot.run)
    if isinstance(outcome, Failure) and outcome.steps:
        return _settle_failed(connection, call, outcome, begun_ms, at)
    snapshot = runs.load_surroundings(connection, snapshot, ops, at.now_ms)
    change = _decide(snapshot, outcome, at, call.step_id)
    entry = _past(call, outcome, begun_ms, at.now_ms)
    change = replace(change, history=(entry, *change.history))
    return save.save(connection, change, snapshot.run, ops, at)


def _settle_failed(
    connection: sqlite3.Connection, call: Call, failure: Failure, begun_ms: int, at: Moment
) -> Change:
    """A call has failed after it did some steps: keep them, as if they had been reported before."""
    try:
        kept = report(connection, call.run_id, failure.steps, at)
    except Refused as error:
        failure = Failure(FailureKind.FINAL, "AnswerError", str(error))
        return settle(connection, call, failure, begun_ms, at)
    change = settle(connection, call, replace(failure, steps=()), begun_ms, at)
    return replace(change, others=(kept, *change.others))


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
