"""Adds steps to a run, from a further checkpoint; repeated and superseded reports."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from stephttp._wire.opcodes import COMPLETING_OPS, Op, OpCode
from stephttp._wire.stored_state import CallId
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment, Origin
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Snapshot
from stephttp.engine.model.values import Value
from stephttp.engine.rules.answers import is_current
from stephttp.engine.rules.results import complete_result, memo_of, op_data
from stephttp.engine.rules.transitions import apply_ops
from stephttp.engine.store import runs
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import save


class FurtherSteps(Value, frozen=True, gc=False):
    """A further checkpoint; `lease_ms` if it comes from the process that holds the run's lease,
    `call` if from a call of the engine."""

    run_id: str
    ops: Sequence[Op]
    lease_ms: int | None = None
    call: CallId | None = None


def report(
    connection: sqlite3.Connection,
    run_id: str,
    ops: Sequence[Op],
    at: Moment,
    dispatch: tuple[str, int] | None = None,
) -> Change:
    """Apply further ops of a run.

    Args:
        dispatch: the call that they come from, as job id and generation.

    Raises:
        Refused: an op is not acceptable, the run is unknown, or it has ended without knowing
            these ops; or the call was given up, and another one has taken its place.
    """
    snapshot = runs.load(connection, run_id, {op.id for op in ops})
    if not snapshot.run.status.ended and dispatch is not None and snapshot.is_superseded(*dispatch):
        raise Refused(
            "generation_id: the call that this belongs to was given up, and repeated", 409
        )
    return _report(connection, snapshot, ops, at)


def report_from(
    connection: sqlite3.Connection, run_id: str, ops: Sequence[Op], call: CallId, at: Moment
) -> tuple[Change, bool]:
    """Apply steps from a call of the engine.

    Returns:
        The change, and whether the call was superseded, or continues with an output that is not
        the step's: a process that had lost the run has reported another one since the call began.
        The steps of the call count where they are the first output: they were executed, and must
        not be again.

    Raises:
        Refused: see `report`.
    """
    snapshot = runs.load(connection, run_id, {op.id for op in ops})
    current = is_current(snapshot, call.step, call.job, call.attempt)
    current = current and not any(_contradicts(connection, snapshot, op) for op in ops)
    return _report(connection, snapshot, ops, at), not current


def _contradicts(connection: sqlite3.Connection, snapshot: Snapshot, op: Op) -> bool:
    """Say whether a step that has ended is reported with another output."""
    known = snapshot.steps.get(op.id)
    if known is None or not known.resolved or op.op is not OpCode.STEP_RUN:
        return False
    row = connection.execute(QUERIES["step_memo"], (snapshot.run.run_id, op.id)).fetchone()
    return bytes(row[0]) != memo_of(op)


def _report(
    connection: sqlite3.Connection, snapshot: Snapshot, ops: Sequence[Op], at: Moment
) -> Change:
    if snapshot.run.status.ended:
        for index, op in enumerate(ops):
            if not is_repeat(connection, snapshot, [op]):
                status = snapshot.run.status.value
                raise Refused(f"steps[{index}]: the run has ended already ({status})", 409)
        return Change(snapshot.run)
    snapshot = runs.load_surroundings(connection, snapshot, ops, at.now_ms)
    change = apply_ops(snapshot, ops, Origin.CHECKPOINT, at)
    return save.save(connection, change, snapshot.run, ops, at)


def is_repeat(connection: sqlite3.Connection, snapshot: Snapshot, ops: Sequence[Op]) -> bool:
    """Say whether an ended run knows all of these ops already."""
    return all(_is_known(connection, snapshot, op) for op in ops)


def _is_known(connection: sqlite3.Connection, snapshot: Snapshot, op: Op) -> bool:
    if op.op not in COMPLETING_OPS:
        return op.id in snapshot.steps
    result = complete_result(op_data(op), unfold=True)
    row = connection.execute(QUERIES["run_output"], (snapshot.run.run_id,)).fetchone()
    return bool(row[1] == result.output)
