"""Many checkpoints in one unit of work, and what a lease adds to one (docs/design.md 3.8).

An item is the opening of a run, or a report of more steps. New runs are stored with one statement
a table; items of runs that are known take their turn after them, in their order.

A lease makes an opening an update: when the run is there already, its ops are reported. And it
says that the sender is the process that answers the first request. When the run has left that
phase without it, another has taken over: then what it reports still counts where it is the first
output, and it is told (`Taken.lost`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.model.inputs import Moment, Origin
from stephttp.engine.model.run import (
    LEASE,
    Change,
    NewRun,
    Refused,
    Run,
    RunStatus,
    Snapshot,
    Timer,
    TimerKind,
    Value,
)
from stephttp.engine.rules.transitions import apply_ops
from stephttp.engine.store import runs
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import run_work, save


class Report(Value, frozen=True, gc=False):
    """Further ops of a run; `lease_ms` if they come from its first process."""

    run_id: str
    ops: Sequence[Op]
    lease_ms: int | None = None


class Opening(Value, frozen=True, gc=False):
    """A first checkpoint."""

    new: NewRun
    run: Run
    ops: Sequence[Op]
    lease_ms: int | None = None

    @property
    def run_id(self) -> str:
        """The run that it opens."""
        return self.new.run_id


Item = Opening | Report

_SIMPLE = frozenset(
    {
        OpCode.STEP,
        OpCode.STEP_RUN,
        OpCode.STEP_FAILED,
        OpCode.STEP_ERROR,
        OpCode.SLEEP,
        OpCode.RUN_COMPLETE,
        OpCode.SYNC_RUN_COMPLETE,
        OpCode.DISCOVERY_REQUEST,
        OpCode.NONE,
    }
)


class Taken(Value, frozen=True, gc=False):
    """An item was stored. `lost`: the run is no longer in the hands of its first process."""

    change: Change
    lost: bool = False


def take(
    connection: sqlite3.Connection, items: Sequence[Item], at: Moment
) -> list[Taken | Refused]:
    """Store what can be stored, and say of each item what became of it."""
    run_ids = [item.run_id for item in items if isinstance(item, Opening)]
    known = set()
    if run_ids:
        rows = connection.execute(QUERIES["digests"], (msgspec.json.encode(run_ids).decode(),))
        known = {run_id for run_id, _ in rows}
    outcomes: dict[int, Taken | Refused] = {}
    fresh: list[tuple[NewRun, Change]] = []
    for index, item in enumerate(items):
        if isinstance(item, Opening) and item.run_id not in known and _is_simple(item.ops):
            try:
                change = _leased(apply_ops(Snapshot(item.run), item.ops, Origin.CHECKPOINT, at),
                                 item.lease_ms, at)  # fmt: skip
            except Refused as error:
                outcomes[index] = error
                continue
            known.add(item.run_id)
            fresh.append((item.new, change))
            outcomes[index] = Taken(change)
    runs.insert_many(connection, fresh)
    for index, item in enumerate(items):
        taken = outcomes.get(index)
        if isinstance(item, Opening) and isinstance(taken, Taken):
            change = save.begun(connection, item.new, taken.change, item.ops, at)
            outcomes[index] = Taken(change)
    for index, item in enumerate(items):
        if index not in outcomes:
            outcomes[index] = _known(connection, item, at)
    return [outcomes[index] for index in range(len(items))]


def take_one(connection: sqlite3.Connection, item: Item, at: Moment) -> Taken:
    """Store one item.

    Raises:
        Refused: it is not acceptable.
    """
    (outcome,) = take(connection, [item], at)
    if isinstance(outcome, Refused):
        raise outcome
    return outcome


def renew(connection: sqlite3.Connection, run_ids: Sequence[str], due_ms: int) -> list[str]:
    """Move leases ahead; return the runs that have none (any more)."""
    values = {"run_ids": msgspec.json.encode(run_ids).decode(), "due_ms": due_ms}
    renewed = {run_id for (run_id,) in connection.execute(QUERIES["renew_leases"], values)}
    return [run_id for run_id in run_ids if run_id not in renewed]


def _known(connection: sqlite3.Connection, item: Item, at: Moment) -> Taken | Refused:
    # What refuses an item does so before anything of it is written.
    try:
        if isinstance(item, Opening) and item.lease_ms is not None:
            change = _leased_start(connection, item, item.lease_ms, at)
            if change is not None:
                return Taken(change)
        if item.lease_ms is not None:
            return _leased_report(connection, item, item.lease_ms, at)
        if isinstance(item, Opening):
            return Taken(run_work.start(connection, item.new, item.run, item.ops, at))
        return Taken(run_work.report(connection, item.run_id, item.ops, at))
    except Refused as error:
        return error


def _is_simple(ops: Sequence[Op]) -> bool:
    """Whether ops concern their own run only, so that runs can be stored side by side."""
    return all(op.op in _SIMPLE for op in ops)


def _leased_start(
    connection: sqlite3.Connection, item: Opening, lease_ms: int, at: Moment
) -> Change | None:
    """Make a run; `None` if it is there already."""
    if connection.execute(QUERIES["run_digest"], (item.run_id,)).fetchone() is not None:
        return None
    snapshot = runs.load_surroundings(
        connection, Snapshot(item.run), item.ops, at.now_ms, item.new.app_id
    )
    change = _leased(apply_ops(snapshot, item.ops, Origin.CHECKPOINT, at), lease_ms, at)
    runs.insert(connection, item.new, change)
    return save.begun(connection, item.new, change, item.ops, at)


def _leased_report(connection: sqlite3.Connection, item: Item, lease_ms: int, at: Moment) -> Taken:
    snapshot = runs.load(connection, item.run_id, {op.id for op in item.ops})
    before = snapshot.run
    if before.status.ended:
        return Taken(Change(before), lost=not run_work.is_repeat(connection, snapshot, item.ops))
    lost = before.status is not RunStatus.SYNC
    # The run is driven already: being asked to drive it is no news.
    ops = [op for op in item.ops if not (lost and op.op is OpCode.DISCOVERY_REQUEST)]
    snapshot = runs.load_surroundings(connection, snapshot, ops, at.now_ms)
    change = _leased(apply_ops(snapshot, ops, Origin.CHECKPOINT, at), lease_ms, at)
    return Taken(save.save(connection, change, before, ops, at), lost)


def _leased(change: Change, lease_ms: int | None, at: Moment) -> Change:
    if lease_ms is None or change.run.status is not RunStatus.SYNC:
        return change
    lease = Timer(LEASE, TimerKind.LEASE, at.now_ms + lease_ms)
    return replace(change, timers=(*change.timers, lease))
