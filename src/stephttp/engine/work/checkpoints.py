"""Takes many checkpoints in one transaction: first ones and further ones.

New runs are stored side by side, with one statement a table; the other items follow, in their
order. One that is refused takes no other with it, since an item is refused before anything of it
is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment, Origin
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Snapshot
from stephttp.engine.model.values import Value
from stephttp.engine.rules.transitions import apply_ops
from stephttp.engine.store import runs
from stephttp.engine.store.many_rows import json_array
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import leases, save
from stephttp.engine.work.report import FurtherSteps, report
from stephttp.engine.work.start import FirstCheckpoint, limit, rename, start

Item = FirstCheckpoint | FurtherSteps

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
"""Ops that concern no run but their own."""


class Taken(Value, frozen=True, gc=False):
    """A checkpoint was stored. `lost`: the engine has taken the run over from its sender."""

    change: Change
    lost: bool = False


def take(
    connection: sqlite3.Connection, items: Sequence[Item], at: Moment
) -> list[Taken | Refused]:
    """Store what can be stored, and say of each item what became of it."""
    outcomes: dict[int, Taken | Refused] = {}
    fresh: dict[int, tuple[FirstCheckpoint, Change]] = {}
    known = _known_runs(connection, items)
    for index, item in enumerate(items):
        if (
            isinstance(item, FirstCheckpoint)
            and item.new.run_id not in known
            and _is_simple(item.ops)
        ):
            try:
                fresh[index] = (item, _first_change(item, at))
            except Refused as error:
                outcomes[index] = error
            else:
                known.add(item.new.run_id)
    runs.insert_many(connection, [(opening.new, change) for opening, change in fresh.values()])
    for index, (opening, change) in fresh.items():
        if opening.gates or opening.priority:
            limit(connection, opening, change)
        outcomes[index] = Taken(save.begun(connection, opening.new, change, opening.ops, at))
    for index, item in enumerate(items):
        if index not in outcomes:
            try:
                outcomes[index] = _take_one(connection, item, at)
            except Refused as error:
                outcomes[index] = error
    return [outcomes[index] for index in range(len(items))]


def _known_runs(connection: sqlite3.Connection, items: Sequence[Item]) -> set[str]:
    run_ids = [item.new.run_id for item in items if isinstance(item, FirstCheckpoint)]
    if not run_ids:
        return set()
    rows = connection.execute(QUERIES["digests"], (json_array(run_ids),))
    return {run_id for run_id, _ in rows}


def _is_simple(ops: Sequence[Op]) -> bool:
    return all(op.op in _SIMPLE for op in ops)


def _first_change(opening: FirstCheckpoint, at: Moment) -> Change:
    change = apply_ops(Snapshot(opening.run), opening.ops, Origin.CHECKPOINT, at, opening.hints)
    return change if opening.lease_ms is None else leases.with_lease(change, opening.lease_ms, at)


def _take_one(connection: sqlite3.Connection, item: Item, at: Moment) -> Taken:
    if isinstance(item, FirstCheckpoint):
        change = start(connection, item, at)
        if change is not None:
            return Taken(change)
        rename(connection, item)
    run_id = item.new.run_id if isinstance(item, FirstCheckpoint) else item.run_id
    if item.lease_ms is not None:
        return Taken(*leases.report_leased(connection, run_id, item.ops, item.lease_ms, at))
    return Taken(report(connection, run_id, item.ops, at))
