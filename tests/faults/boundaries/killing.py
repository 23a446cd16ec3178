"""A program that can be killed exactly at a boundary: `python -m …killing MODULE [ARGUMENT ...]`.

It is the module, with its commits and sends watched. The file `ARMED` names one boundary and the
moment, `before` or `after`. The process that gets there first takes the file away and kills itself:
before the `COMMIT`, or before a byte is sent; after the commit, but before anybody learns of it, or
with the answer received, but not yet read. The file `TRACE`, if it is there, gets the names of all
boundaries that are reached.

The names are those of `derive`: of the unit of work, or of the functions that made a request. They
are read off the frames of whatever makes one.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(os.environ["FAULTS_WORLD"])
ARMED, TAKEN, TRACE = HERE / "armed", HERE / "taken", HERE / "trace"
_made: ContextVar[str] = ContextVar("_made", default="")
"""The boundary of the request that was made last in this task or thread."""


def reached(moment: str, boundary: str) -> None:
    """Kill this process, if it is to die here."""
    if moment == "before" and TRACE.exists():
        with TRACE.open("a") as trace:
            trace.write(f"{boundary}\n")
    try:
        if ARMED.read_text() == f"{moment} {boundary}":
            ARMED.rename(TAKEN)
            os.kill(os.getpid(), signal.SIGKILL)
    except FileNotFoundError:
        return


def watch_commits() -> None:
    """Watch what the engine commits."""
    from stephttp.engine.store import database, store

    transaction, prepare = store._Workers._transaction, database.prepare

    def watched(self: Any, connection: sqlite3.Connection, batch: list[Any]) -> Any:
        if not self._begin.endswith("IMMEDIATE"):
            return transaction(self, connection, batch)
        names = {f"commit {_unit(job.unit)}" for job, _ in batch}
        with _before_commit(connection, names):
            outcomes = transaction(self, connection, batch)
        for name in names:
            reached("after", name)
        return outcomes

    def watched_prepare(connection: sqlite3.Connection, *args: Any) -> None:
        name = f"commit {_name(prepare)}"
        with _before_commit(connection, {name}):
            prepare(connection, *args)
        reached("after", name)

    store._Workers._transaction = watched  # type: ignore[method-assign]
    database.prepare = watched_prepare  # type: ignore[assignment]


@contextmanager
def _before_commit(connection: sqlite3.Connection, names: set[str]) -> Iterator[None]:
    def traced(statement: str) -> None:
        if statement == "COMMIT":
            for name in names:
                reached("before", name)

    connection.set_trace_callback(traced)
    try:
        yield
    finally:
        connection.set_trace_callback(None)


def _unit(unit: Any) -> str:
    while hasattr(unit, "func"):  # a partial
        unit = unit.func
    return _name(unit)


def _name(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def watch_sends(makers: list[tuple[str, str]], names: set[str]) -> None:
    """Watch what the SDK sends."""
    from stephttp._client.blocking_driver import SyncDriver
    from stephttp._client.drivers import AsyncDriver

    for module in {module for module, _ in makers}:
        _note(module, "APICall", "send", names)
    AsyncDriver._send = _around(AsyncDriver._send)  # type: ignore[method-assign]
    send, stream, stream_sync = SyncDriver._send, AsyncDriver.stream, SyncDriver.stream

    def watched(self: Any, call: Any) -> Any:
        name = _made.get()
        reached("before", name)
        answer = send(self, call)
        reached("after", name)
        return answer

    @asynccontextmanager
    async def watched_stream(self: Any, call: Any) -> Any:
        name = _made.get()
        reached("before", name)
        async with stream(self, call) as streamed:
            reached("after", name)
            yield streamed

    @contextmanager
    def watched_stream_sync(self: Any, call: Any) -> Any:
        name = _made.get()
        reached("before", name)
        with stream_sync(self, call) as streamed:
            reached("after", name)
            yield streamed

    SyncDriver._send = watched  # type: ignore[method-assign]
    AsyncDriver.stream = watched_stream  # type: ignore[method-assign]
    SyncDriver.stream = watched_stream_sync  # type: ignore[method-assign]


def watch_calls(makers: list[tuple[str, str]], names: set[str]) -> None:
    """Watch what the engine sends."""
    from stephttp.engine.outbound.connection import HTTPConnection

    for module in {module for module, _ in makers}:
        _note(module, "HTTPRequest", "call", names)
    HTTPConnection.send = _around(HTTPConnection.send)  # type: ignore[method-assign]


def _around(send: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    async def watched(*args: Any, **kwargs: Any) -> Any:
        name = _made.get()
        reached("before", name)
        answer = await send(*args, **kwargs)
        reached("after", name)
        return answer

    return watched


def _note(module: str, class_name: str, kind: str, names: set[str]) -> None:
    """Let a module note the boundary of each request that it makes."""
    home = importlib.import_module(module)
    make = getattr(home, class_name)

    def made(*args: Any, **kwargs: Any) -> Any:
        _made.set(f"{kind} {_boundary(sys._getframe(1), names)}")
        return make(*args, **kwargs)

    setattr(home, class_name, made)


def _boundary(frame: FrameType, names: set[str]) -> str:
    maker = _of(frame)
    caller: FrameType | None = frame
    while maker not in names and caller is not None:
        if (name := f"{maker} < {_of(caller)}") in names:
            return name
        caller = caller.f_back
    return maker


def _of(frame: FrameType) -> str:
    return f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"


if __name__ == "__main__":
    known = json.loads((HERE / "boundaries.json").read_text())
    del sys.argv[0]
    if sys.argv[0] == "stephttp":
        watch_commits()
        watch_calls(known["call"]["makers"], set(known["call"]["names"]))
    else:
        watch_sends(known["send"]["makers"], set(known["send"]["names"]))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
