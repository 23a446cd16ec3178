"""Gates, the runs that have to pass them, and the turns of runs, between tables and values."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec.structs import asdict

from stephttp.engine.model.function import Function
from stephttp.engine.model.function_start import Start
from stephttp.engine.model.gate import Gate
from stephttp.engine.rules.functions import planning, throttling
from stephttp.engine.rules.functions.limit_names import limit_of
from stephttp.engine.store.sql import QUERIES

_MOST_FORGOTTEN = 5
"""Throttles that say nothing any more, which go when a run starts through one."""
_NS = 1_000_000


def add(connection: sqlite3.Connection, run_id: str, start: Start, now_ms: int) -> None:
    """Store what calls of a new run have to pass, and its turn.

    Args:
        start: what has started it.
        now_ms: when it begins.
    """
    limit(connection, run_id, start.function.fn_id, start.gates, start.priority, now_ms)


def limit(
    connection: sqlite3.Connection,
    run_id: str,
    fn_id: str,
    gates: Sequence[Gate],
    priority: int,
    began_ms: int,
) -> None:
    """Store what calls of a run have to pass, and its turn, unless they are stored.

    Args:
        fn_id: of the function or endpoint that sets the limits.
        priority: seconds by which the run goes before its turn.
        began_ms: when the run began.
    """
    if not (gates or priority):
        return
    turn = connection.execute(QUERIES["add_turn"], (run_id, began_ms - priority * 1000))
    if turn.rowcount == 0:
        return  # It may have passed the one for its start.
    for gate in gates:
        connection.execute(QUERIES["save_gate"], asdict(gate) | {"fn_id": fn_id})
        connection.execute(QUERIES["add_run_gate"], (run_id, gate.name))


def load_gates(connection: sqlite3.Connection, run_id: str) -> Sequence[Gate]:
    """Load the gates that the next call of a run has to pass, the narrowest first."""
    return [Gate(*row) for row in connection.execute(QUERIES["gates_of_run"], (run_id,))]


def free_ns(connection: sqlite3.Connection, throttle: str) -> int:
    """Return when a throttle has forgotten all starts; 0 if it knows of none."""
    row = connection.execute(QUERIES["free_ns_of_gate"], (throttle,)).fetchone()
    return 0 if row is None else int(row[0])


def first_calls(connection: sqlite3.Connection, gate: str) -> int:
    """Count the first calls that have a place at a gate."""
    return int(connection.execute(QUERIES["first_calls_at_gate"], (gate,)).fetchone()[0])


def begin_first_call(connection: sqlite3.Connection, run_id: str) -> None:
    """Let the first call of a run take a place at each gate, until its first phase is over."""
    connection.execute(QUERIES["begin_first_call"], (run_id,))


def start_through(connection: sqlite3.Connection, run_id: str, throttle: Gate, now_ms: int) -> None:
    """Note that a run starts now through a throttle, which its later calls do not have to pass."""
    free_ns = throttling.free_after_start_ns(throttle, now_ms)
    set_free(connection, throttle.name, free_ns)
    connection.execute(QUERIES["leave_gate"], (run_id, throttle.name))
    values = {"now_ns": now_ms * _NS, "limit": _MOST_FORGOTTEN}
    connection.execute(QUERIES["forget_old_gates"], values)


def set_free(connection: sqlite3.Connection, throttle: str, free_ns: int) -> None:
    """Store when a throttle has forgotten all starts."""
    connection.execute(QUERIES["set_free"], (free_ns, throttle))


def end(connection: sqlite3.Connection, run_id: str, now_ms: int) -> None:
    """Forget what a run had to pass, because it has ended."""
    connection.execute(QUERIES["end_turn"], (run_id,))
    for (name,) in connection.execute(QUERIES["leave_gates"], (run_id,)).fetchall():
        connection.execute(QUERIES["forget_gate"], {"name": name, "now_ns": now_ms * _NS})


def change(connection: sqlite3.Connection, function: Function) -> None:
    """Let the gates of a function follow its limits. One that it does not have any more is open to
    its runs; those of other functions that share it still have to pass it."""
    fn_id = function.endpoint.fn_id
    limits = planning.limits(fn_id, function.options)
    for limit in limits.values():
        connection.execute(QUERIES["change_gates"], asdict(limit) | {"fn_id": fn_id})
    for (name,) in connection.execute(QUERIES["gates_of_function"], (fn_id,)).fetchall():
        if limit_of(name) not in limits:
            values = {"name": name, "fn_id": fn_id}
            for query in ("leave_lane", "open_gate", "remove_gate"):
                connection.execute(QUERIES[query], values)
