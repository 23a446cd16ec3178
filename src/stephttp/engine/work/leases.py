"""Leases, engine side: renews them, and decides what still counts from a process that has lost its
run.

A lease says that the sender is the process that answers the run's first request. When the run has
left that phase without it, the engine has taken over: then what the process reports still counts
where it is the first output of a step, and the process learns that it has lost the run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec.structs import replace

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment, Origin
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.settings import LONGEST_LEASE
from stephttp.engine.model.timer import LEASE, Timer, TimerKind
from stephttp.engine.rules.transitions import apply_ops
from stephttp.engine.store import runs
from stephttp.engine.store.many_rows import json_array
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import save
from stephttp.engine.work.report import is_repeat


def with_lease(change: Change, lease_ms: int | None, at: Moment) -> Change:
    """Give a run that is still in its first phase a lease, or renew the one that it has."""
    if lease_ms is None or change.run.status is not RunStatus.SYNC:
        return change
    lease = Timer(LEASE, TimerKind.LEASE, at.now_ms + lease_ms)
    return replace(change, timers=(*change.timers, lease))


def report_leased(
    connection: sqlite3.Connection, run_id: str, ops: Sequence[Op], lease_ms: int, at: Moment
) -> tuple[Change, bool]:
    """Apply ops from the process that holds (or held) the lease of a run.

    Returns:
        The change, and whether the process has lost the run.

    Raises:
        Refused: an op is not acceptable, or the run is unknown.
    """
    snapshot = runs.load(connection, run_id, {op.id for op in ops})
    before = snapshot.run
    if before.status.ended:
        return Change(before), not is_repeat(connection, snapshot, ops)
    lost = before.status is not RunStatus.SYNC
    # The engine drives the run already, so being asked to drive it changes nothing.
    ops = [op for op in ops if not (lost and op.op is OpCode.DISCOVERY_REQUEST)]
    snapshot = runs.load_surroundings(connection, snapshot, ops, at.now_ms)
    change = with_lease(apply_ops(snapshot, ops, Origin.CHECKPOINT, at), lease_ms, at)
    return save.save(connection, change, before, ops, at), lost


def extend_all(connection: sqlite3.Connection, now_ms: int) -> None:
    """Give the holders of leases time to renew them, since none could while the engine was away.

    Each time in a row that nothing is heard of a holder it is half as much as before. So an engine
    that restarts again and again does take over the runs of processes that are dead.
    """
    values = {"now_ms": now_ms, "longest_ms": LONGEST_LEASE}
    connection.execute(QUERIES["extend_all_leases"], values)


def renew(connection: sqlite3.Connection, run_ids: Sequence[str], due_ms: int) -> list[str]:
    """Move leases ahead, and return the runs that have none (any more)."""
    values = {"run_ids": json_array(run_ids), "due_ms": due_ms}
    renewed = {run_id for (run_id,) in connection.execute(QUERIES["renew_leases"], values)}
    return [run_id for run_id in run_ids if run_id not in renewed]
