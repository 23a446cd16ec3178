"""Opens one run, from its first checkpoint."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from stephttp._wire.opcodes import Op
from stephttp.engine.model.change import Change
from stephttp.engine.model.gate import Gate
from stephttp.engine.model.inputs import Hints, Moment, Origin
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import NewRun, Run, Snapshot
from stephttp.engine.model.values import Value
from stephttp.engine.rules.transitions import apply_ops
from stephttp.engine.store import counts, gate_rows, runs
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import save
from stephttp.engine.work.leases import with_lease


class FirstCheckpoint(Value, frozen=True, gc=False):
    """A first checkpoint.

    Attributes:
        lease_ms: the sender asks for a lease of this length.
        hints: what is known of the sender.
        gates: what calls of the run have to pass, if the engine comes to make any.
        priority: seconds by which the run goes before its turn.
        within_limits: the run is only to be opened if its first call may pass the gates, too.
    """

    new: NewRun
    run: Run
    ops: Sequence[Op]
    lease_ms: int | None = None
    hints: Hints = Hints()
    gates: tuple[Gate, ...] = ()
    priority: int = 0
    within_limits: bool = False


def start(connection: sqlite3.Connection, opening: FirstCheckpoint, at: Moment) -> Change | None:
    """Store a new run, and do what follows from it.

    Returns:
        The run's first change; one that changes nothing for the same request again. `None`: the
        run is there already, and the sender asked for a lease, so its ops are to be reported.

    Raises:
        Refused: an op is not acceptable, or the run id is taken.
    """
    new, ops = opening.new, opening.ops
    if opening.lease_ms is not None and _digest(connection, new.run_id) is not None:
        return None
    snapshot = Snapshot(opening.run)
    snapshot = runs.load_surroundings(connection, snapshot, ops, at.now_ms, new.app_id)
    first = apply_ops(snapshot, ops, Origin.CHECKPOINT, at, opening.hints)
    change = with_lease(first, opening.lease_ms, at)
    if runs.insert(connection, new, change):
        if opening.gates or opening.priority:
            limit(connection, opening, change)
        return save.begun(connection, new, change, ops, at)
    if _digest(connection, new.run_id) != new.digest:
        raise Refused(f"run_id: there is already another run {new.run_id}", 409)
    return Change(opening.run)


def limit(connection: sqlite3.Connection, opening: FirstCheckpoint, first: Change) -> None:
    """Store what calls of a run have to pass that was just stored, unless it has ended.

    The engine calls a run that is still in its first phase if the process of that dies.
    """
    if not first.ended:
        _limit(connection, opening)


def rename(connection: sqlite3.Connection, opening: FirstCheckpoint) -> None:
    """Give a run in its first phase the endpoint, retries and limits that it turned out to have.

    A run that was opened for an idempotency key was opened before its handler began. Its SDK knew
    the path then, but neither the route nor the options of the endpoint.
    """
    new, run = opening.new, opening.run
    known = connection.execute(QUERIES["first_phase_name"], (new.run_id,)).fetchone()
    if known is None:
        return
    _limit(connection, opening)
    if known[:2] == (run.fn_id, run.retries):
        return
    fn_id, _, created_ms = known
    values = runs.row(new, run)
    connection.execute(QUERIES["rename_run"], values)
    connection.execute(QUERIES["upsert_endpoint"], values)
    if fn_id != run.fn_id:
        counts.move_begin(connection, fn_id, run.fn_id, created_ms)
        connection.execute(QUERIES["forget_uncounted_endpoint"], {"fn_id": fn_id})


def _limit(connection: sqlite3.Connection, opening: FirstCheckpoint) -> None:
    new, gates, priority = opening.new, opening.gates, opening.priority
    gate_rows.limit(connection, new.run_id, opening.run.fn_id, gates, priority, new.began_ms)


def _digest(connection: sqlite3.Connection, run_id: str) -> bytes | None:
    row = connection.execute(QUERIES["run_digest"], (run_id,)).fetchone()
    return None if row is None else bytes(row[0])
