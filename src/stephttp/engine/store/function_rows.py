"""Apps, functions and the runs of functions, between tables and values."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from stephttp._wire.opcodes import OpCode
from stephttp.engine.model.call import EndpointCall, FunctionState
from stephttp.engine.model.function import App, Function, Registration, Trigger
from stephttp.engine.model.function_options import FunctionOptions
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.timer import RESUME, Timer
from stephttp.engine.rules.functions.run_events import names_of
from stephttp.engine.store import gate_rows
from stephttp.engine.store.many_rows import json_array
from stephttp.engine.store.sql import QUERIES

_ENDPOINT = len(Endpoint.__struct_fields__)
_TRIGGERS = msgspec.json.Decoder(tuple[Trigger, ...])
_OPTIONS = msgspec.json.Decoder(FunctionOptions)
LARGEST_STATE = 4 * 1024 * 1024 - 64 * 1024
"""Bytes of events and memos that are sent with a call; the request may have 4 MiB."""


def is_known(connection: sqlite3.Connection, registration: Registration) -> bool:
    """Say whether an app has registered exactly this before."""
    row = connection.execute(QUERIES["known_app"], (registration.app.app_id,)).fetchone()
    return row is not None and bytes(row[0]) == registration.digest


def save(connection: sqlite3.Connection, registration: Registration, now_ms: int) -> None:
    """Store an app with its functions, in place of what it had.

    Runs of a function that has moved continue at its new place. An app that was at the same
    address under another name is gone.
    """
    app = registration.app
    values = asdict(app) | {"digest": registration.digest, "synced_ms": now_ms}
    connection.execute(QUERIES["forget_other_apps"], values)
    connection.execute(QUERIES["withdraw_functions"])
    connection.execute(QUERIES["withdraw_functions_of"], (app.app_id,))
    connection.execute(QUERIES["save_app"], values)
    for function in registration.functions:
        row = asdict(function.endpoint) | {
            "name": function.name,
            "triggers": msgspec.json.encode(function.triggers),
            "options": msgspec.json.encode(function.options),
            "config": function.config,
            "now_ms": now_ms,
        }
        connection.execute(QUERIES["save_function"], row)
        connection.execute(QUERIES["save_function_endpoint"], row)
        connection.execute(QUERIES["move_function_runs"], row)
        gate_rows.change(connection, function)
        _save_listeners(connection, function)


def _save_listeners(connection: sqlite3.Connection, function: Function) -> None:
    """Note which ends of runs may start a function."""
    fn_id = function.endpoint.fn_id
    connection.execute(QUERIES["forget_listeners"], (fn_id,))
    if function.endpoint.refused is None:
        names = {name for trigger in function.triggers for name in names_of(trigger)}
        rows = [(name, fn_id) for name in sorted(names)]
        connection.executemany(QUERIES["add_listener"], rows)


def remove(connection: sqlite3.Connection, url: str) -> bool:
    """Forget the app at an address, so that its functions are not started any more.

    Returns:
        Whether there was one.
    """
    found = connection.execute(QUERIES["remove_app"], (url,)).rowcount
    connection.execute(QUERIES["withdraw_functions"])
    return found > 0


def set_paused(connection: sqlite3.Connection, fn_id: str, *, paused: bool) -> None:
    """Store whether a function is paused."""
    connection.execute(QUERIES["pause_function"], (paused, fn_id))


def load_function(connection: sqlite3.Connection, name: str) -> Function | None:
    """Load a function that is present, by its id or slug."""
    row = connection.execute(QUERIES["function"], {"id": name}).fetchone()
    return None if row is None else _function(row)


def load_any_function(connection: sqlite3.Connection, name: str) -> tuple[Function, bool] | None:
    """Load a function by its id or slug, and whether it is present."""
    row = connection.execute(QUERIES["any_function"], {"id": name}).fetchone()
    return None if row is None else (_function(row[:-1]), bool(row[-1]))


def load_functions(connection: sqlite3.Connection) -> list[Function]:
    """Load all functions that are present, by slug."""
    return [_function(row) for row in connection.execute(QUERIES["functions"])]


def _function(row: tuple[Any, ...]) -> Function:
    name, triggers, config, options, paused = row[_ENDPOINT:]
    return Function(
        Endpoint(*row[:_ENDPOINT]),
        name,
        _TRIGGERS.decode(triggers),
        config,
        _OPTIONS.decode(options),
        bool(paused),
    )


def load_apps(connection: sqlite3.Connection) -> list[App]:
    """Load all apps, by name."""
    return [App(*row) for row in connection.execute(QUERIES["apps"])]


def load_events(connection: sqlite3.Connection, run_id: str) -> bytes | None:
    """Load the events that started the run of a function, as a JSON array; `None` if it is not
    one."""
    row = connection.execute(QUERIES["events_of_run"], (run_id,)).fetchone()
    return None if row is None else bytes(row[0])


def completed(
    connection: sqlite3.Connection,
    call: EndpointCall,
    state: FunctionState,
    timers: Mapping[str, Timer],
) -> EndpointCall:
    """Return a call of a function with the state of its run.

    Args:
        timers: the open timers of the run.
    """
    memos: list[bytes] = []
    done: list[str] = []
    failures, size = 0, len(state.events)
    ids = json_array([call.run_id])
    for _, step_id, memo, edited, op, attempts, *_ in connection.execute(QUERIES["states"], (ids,)):
        if memo is not None:
            done.append(step_id)
        elif op == OpCode.STEP_ERROR and step_id not in timers and call.step_id == RESUME:
            failures = max(failures, attempts)
        value = b'{"input":' + edited + b"}" if memo is None and edited is not None else memo
        if value is not None:
            size += len(value) + len(step_id) + 4
            if size <= LARGEST_STATE:
                memos.append(msgspec.json.encode(step_id) + b":" + value)
    state = replace(
        state,
        memos=b"{" + b",".join(memos) + b"}" if size <= LARGEST_STATE else None,
        done=tuple(done),
        failures=failures,
    )
    return replace(call, function=state)
