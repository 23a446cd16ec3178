"""Opens a run whose endpoint refuses requests over its limits, if its first call may pass them.

The opening, its place at each limit and its turn at the throttle are one transaction. A refused
request leaves nothing behind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from msgspec.structs import replace

from stephttp.engine.model.gate import Gate
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.full_gates import seconds_until_room
from stephttp.engine.rules.functions import throttling
from stephttp.engine.store import gate_rows
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work.checkpoints import Taken, take
from stephttp.engine.work.start import FirstCheckpoint


def open_within_limits(
    connection: sqlite3.Connection,
    opening: FirstCheckpoint,
    under_way: Mapping[str, int],
    at: Moment,
) -> Taken | int:
    """Open a run, unless one of its limits has no room.

    Args:
        under_way: the calls of the engine at each gate of the run.

    Returns:
        What became of it; if it is refused, the seconds after which it may be repeated.

    Raises:
        Refused: the opening is not acceptable.
    """
    run_id = opening.new.run_id
    if connection.execute(QUERIES["run_digest"], (run_id,)).fetchone() is not None:
        # The answer to this opening was lost: it has its places, and has taken its turn.
        return _taken(connection, replace(opening, gates=(), priority=0), at)
    gates = [_as_stored(connection, gate, at.now_ms) for gate in opening.gates]
    calls = [gate.name for gate in gates if gate.period_ms is None]
    at_work = {
        name: under_way.get(name, 0) + gate_rows.first_calls(connection, name) for name in calls
    }
    seconds = seconds_until_room(gates, at_work, at.now_ms)
    if seconds:
        return seconds
    taken = _taken(connection, opening, at)
    if taken.change.ended:
        return taken
    for gate in gates:
        if gate.period_ms is not None:
            gate_rows.start_through(connection, run_id, gate, at.now_ms)
    gate_rows.begin_first_call(connection, run_id)
    return taken


def _as_stored(connection: sqlite3.Connection, gate: Gate, now_ms: int) -> Gate:
    """Return a gate with what is stored of starts through it."""
    if gate.period_ms is None:
        return gate
    gate = replace(gate, free_ns=gate_rows.free_ns(connection, gate.name))
    bounded_ns = throttling.bounded_ns(gate, now_ms)
    if bounded_ns != gate.free_ns:
        # Stored, or the bound would move on with the time, and the throttle would never open.
        gate_rows.set_free(connection, gate.name, bounded_ns)
    return replace(gate, free_ns=bounded_ns)


def _taken(connection: sqlite3.Connection, opening: FirstCheckpoint, at: Moment) -> Taken:
    (taken,) = take(connection, [opening], at)
    if isinstance(taken, Refused):
        raise taken
    return taken
