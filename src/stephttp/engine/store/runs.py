"""Runs between tables and values: loads what a transition needs, and stores what it decided."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from msgspec.structs import asdict, replace

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.model.change import Change
from stephttp.engine.model.function import Function
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Known, NewRun, Run, RunStatus, Snapshot, Step
from stephttp.engine.model.timer import Timer, TimerKind
from stephttp.engine.rules.reruns import Source
from stephttp.engine.store import counts, function_rows, gate_rows, many_rows
from stephttp.engine.store.sql import QUERIES

_STATUSES = {status.value: status for status in RunStatus}
_KINDS = {kind.value: kind for kind in TimerKind}
_PLACES = 4
"""How many steps the query `known_steps` looks for."""


def load(connection: sqlite3.Connection, run_id: str, step_ids: Iterable[str] = ()) -> Snapshot:
    """Load a run, its open timers, and those of the named steps that are known.

    Raises:
        Refused: there is no such run.
    """
    snapshot = load_many(connection, [run_id]).get(run_id)
    if snapshot is None:
        raise unknown(run_id)
    steps = _load_steps(connection, run_id, list(step_ids))
    return replace(snapshot, steps=steps) if steps else snapshot


def load_many(connection: sqlite3.Connection, run_ids: Collection[str]) -> dict[str, Snapshot]:
    """Load runs with their open timers, but without steps. Unknown ids are left out."""
    if not run_ids:
        return {}
    rows = connection.execute(QUERIES["run_states"], (many_rows.json_array(run_ids),))
    states = [_run(*row) for row in rows]
    # Only the engine's own work opens timers, and that starts when a run leaves `SYNC`.
    timers = _timers_of(connection, [one.run_id for one in states if one.status is RunStatus.ASYNC])
    return {one.run_id: Snapshot(one, {}, timers.get(one.run_id, {})) for one in states}


def _run(run_id: str, status: str, *others: Any) -> Run:
    *first, invoked_by, fn_id, began_ms, is_of_function, has_turn = others
    return replace(
        Run(run_id, _STATUSES[status], *first),
        invoked_by=invoked_by,
        fn_id=fn_id,
        began_ms=began_ms,
        is_of_function=bool(is_of_function),
        has_turn=bool(has_turn),
    )


def load_timers(connection: sqlite3.Connection, run_id: str) -> dict[str, Timer]:
    """Load the open timers of a run."""
    return _timers_of(connection, [run_id]).get(run_id, {})


def _timers_of(
    connection: sqlite3.Connection, run_ids: Collection[str]
) -> dict[str, dict[str, Timer]]:
    timers: dict[str, dict[str, Timer]] = {}
    if run_ids:
        rows = connection.execute(QUERIES["timers_of_runs"], (many_rows.json_array(run_ids),))
        for run_id, step_id, kind, *others in rows:
            timers.setdefault(run_id, {})[step_id] = Timer(step_id, _KINDS[kind], *others)
    return timers


def _load_steps(
    connection: sqlite3.Connection, run_id: str, step_ids: Sequence[str]
) -> dict[str, Known]:
    steps = {}
    for begin in range(0, len(step_ids), _PLACES):
        # Not by a JSON array, because SQLite cuts its texts off at a NUL, and callers choose ids.
        some = (list(step_ids[begin : begin + _PLACES]) * _PLACES)[:_PLACES]
        for step_id, attempts, resolved in connection.execute(
            QUERIES["known_steps"], (run_id, *some)
        ):
            steps[step_id] = Known(attempts, bool(resolved))
    return steps


def load_source(connection: sqlite3.Connection, run_id: str) -> Source:
    """Load a run that is to be repeated.

    Raises:
        Refused: there is no such run.
    """
    row = connection.execute(QUERIES["source_run"], (run_id,)).fetchone()
    if row is None:
        raise unknown(run_id)
    fn_id, retries, request_version, *new = row
    steps = connection.execute(QUERIES["source_steps"], (run_id,))
    return Source(NewRun(*new), fn_id, retries, request_version, [Step(*step) for step in steps])


def load_surroundings(
    connection: sqlite3.Connection,
    snapshot: Snapshot,
    ops: Sequence[Op],
    now_ms: int,
    app_id: str | None = None,
) -> Snapshot:
    """Add what `ops` need beyond their run: steps that wait for their signals, and endpoints.

    Args:
        app_id: the run's app, whose functions go before others of the same name; `None`: as
            stored.
    """
    signals: dict[str, tuple[str, str]] = {}
    endpoints: dict[str, Endpoint] = {}
    functions: dict[str, Function] = {}
    for op in ops:
        opts = op.opts or {}
        if op.op is OpCode.WAIT_FOR_SIGNAL:
            name = opts.get("signal") or op.name
            # It may be anything. If it is not a text, the op is refused later.
            if isinstance(name, str):
                key = (TimerKind.SIGNAL, name, now_ms)
                row = connection.execute(QUERIES["waits_for"], key).fetchone()
                if row is not None:
                    signals[name] = (row[0], row[1])
        elif op.op is OpCode.INVOKE_FUNCTION:
            name = opts.get("function_id")
            if isinstance(name, str):
                values = {"id": name, "run_id": snapshot.run.run_id, "app_id": app_id}
                row = connection.execute(QUERIES["endpoint"], values).fetchone()
                if row is not None:
                    endpoints[name] = endpoint = Endpoint(*row)
                    function = function_rows.load_function(connection, endpoint.fn_id)
                    if function is not None and endpoint.query is not None:
                        functions[name] = function
    if not (signals or endpoints):
        return snapshot
    return replace(snapshot, signals=signals, endpoints=endpoints, functions=functions)


def insert(connection: sqlite3.Connection, new: NewRun, change: Change) -> bool:
    """Store a new run with its first change; `False` if the run id is taken."""
    values = row(new, change.run)
    if connection.execute(QUERIES["insert_run"], values).rowcount == 0:
        return False
    _see(connection, values)
    if new.events is not None:
        connection.execute(QUERIES["add_function_run"], (new.run_id, new.events))
    _save_parts(connection, [change])
    _note_begin(connection, values, change.run)
    return True


def insert_many(connection: sqlite3.Connection, runs: Sequence[tuple[NewRun, Change]]) -> None:
    """Store new runs, whose ids are known to be free, with a statement a table."""
    if runs:
        values = [row(new, change.run) for new, change in runs]
        many_rows.insert(connection, QUERIES["insert_run"], [_in_order(value) for value in values])
        # The last that was seen of each function is what counts.
        latest = {value["fn_id"]: value for value in values}
        for value in latest.values():
            _see(connection, value)
        events = [(new.run_id, new.events) for new, _ in runs if new.events is not None]
        _many(connection, "add_function_run", events)
        _save_parts(connection, [change for _, change in runs])
        for value, (_, change) in zip(values, runs, strict=True):
            _note_begin(connection, value, change.run)


def save(connection: sqlite3.Connection, change: Change, before: Run, now_ms: int) -> None:
    """Store what a transition decided."""
    run = change.run
    if run != before:
        values = _values(run)
        connection.execute(QUERIES["end_run" if change.ended else "update_run"], values)
        if before.status is RunStatus.SYNC and run.status is not RunStatus.SYNC:
            connection.execute(QUERIES["end_first_phase"], values | {"now_ms": now_ms})
        counts.note_change(connection, before.status, run, now_ms)
    for step_id, memo in change.resolved:
        connection.execute(
            QUERIES["resolve_step"],
            {
                "run_id": run.run_id,
                "step_id": step_id,
                "memo": memo,
                "now_ns": now_ms * 1_000_000,
            },
        )
    for step_id in change.seen:
        after_ns = (now_ms + 1) * 1_000_000  # later than anything in this millisecond
        values = {"run_id": run.run_id, "step_id": step_id, "after_ns": after_ns}
        connection.execute(QUERIES["see_step"], values)
    if change.ended and before.status is not RunStatus.SYNC:
        connection.execute(QUERIES["delete_timers"], (run.run_id,))
    elif before.status is RunStatus.SYNC and run.status is not RunStatus.SYNC:
        connection.execute(QUERIES["delete_lease"], (run.run_id,))
        if before.has_turn:
            connection.execute(QUERIES["end_first_call"], (run.run_id,))
    if change.ended and before.has_turn:
        gate_rows.end(connection, run.run_id, now_ms)
    _save_parts(connection, [change])


def _see(connection: sqlite3.Connection, row: dict[str, Any]) -> None:
    """Note what a new run says of its endpoint. Where a function is called, only its app says."""
    query = "upsert_endpoint" if row["events"] is None else "see_function"
    connection.execute(QUERIES[query], row)


_in_order = itemgetter(*many_rows.parameters(QUERIES["insert_run"]))
_PARTS = {
    query: (attrgetter(part), attrgetter(*many_rows.parameters(QUERIES[query])[1:]))
    for query, part in (
        ("upsert_step", "steps"),
        ("upsert_timer", "timers"),
        ("add_history", "history"),
        ("add_warning", "warnings"),
    )
}
"""Of a change, the steps, timers, entries or warnings that a query stores; and of each, the values
in the order of its parameters, after the run id."""


def _save_parts(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    _insert(connection, "upsert_step", changes)
    dropped = [(change.run.run_id, step_id) for change in changes for step_id in change.dropped]
    _many(connection, "delete_timer", dropped)
    _insert(connection, "upsert_timer", changes)
    _insert(connection, "add_history", changes)
    _insert(connection, "add_warning", changes)
    _many(connection, "displace_wait", [pair for change in changes for pair in change.displaced])


def _insert(connection: sqlite3.Connection, query: str, changes: Sequence[Change]) -> None:
    part, values = _PARTS[query]
    rows = [(change.run.run_id, *values(one)) for change in changes for one in part(change)]
    many_rows.insert(connection, QUERIES[query], rows)


def row(new: NewRun, run: Run) -> dict[str, Any]:
    """Return the columns of a new run."""
    first_ns = run.took_ns
    if run.status is RunStatus.SYNC:
        first_ns = None
    elif first_ns is None:
        first_ns = (new.created_ms - new.began_ms) * 1_000_000
    async_ms = new.created_ms if run.status is RunStatus.ASYNC else None
    # Where both have a field, that of `new` counts.
    return _values(run) | _values(new) | {"first_ns": first_ns, "async_ms": async_ms}


def _note_begin(connection: sqlite3.Connection, row: dict[str, Any], run: Run) -> None:
    by_caller = row["rerun_of"] is None and run.invoked_by is None and row["events"] is None
    first_ns = row["first_ns"] if by_caller else None
    counts.note_begin(connection, row["fn_id"], row["began_ms"], first_ns, run, row["created_ms"])


def _values(record: NewRun | Run) -> dict[str, Any]:
    return asdict(record)


def _many(
    connection: sqlite3.Connection, query: str, values: Sequence[tuple[str, str | bytes]]
) -> None:
    if values:
        connection.executemany(QUERIES[query], values)


def unknown(run_id: str) -> Refused:
    """Make the error for a run that does not exist."""
    return Refused(f"run_id: there is no run {run_id}", 404)
