"""`stephttp dev`: the engine in this process, the app in a child, both ended together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from stephttp.cli.child import Child, call_in
from stephttp.cli.ports import DEFAULT_PORT, PortError, listen
from stephttp.cli.terminal import complain, say, when_deaf
from stephttp.engine.app import Engine, create_app
from stephttp.engine.settings import Settings
from stephttp.errors import ConfigurationError

# How long the app may take to end after SIGTERM: what its open requests get.
_APP_GRACE = 5.0

# How long the engine's own open requests get. Those that wait for a run's end are let go at once.
_REQUEST_GRACE = 2

_COMMAND_NOT_EXECUTABLE = 126
_COMMAND_NOT_FOUND = 127


@dataclass(frozen=True)
class DevOptions:
    """What the command line says."""

    host: str
    port: int | None
    db: str | None
    command: Sequence[str]
    event_lookback: float = 0.0


class _Stop:
    """What the user wants: the first Ctrl-C ends things in order, the second one at once."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[None] = loop.create_future()
        self.hurry: asyncio.Future[None] = loop.create_future()

    def end(self) -> None:
        """End in order, if that was not asked for already."""
        if not self.asked.done():
            self.asked.set_result(None)

    def press(self) -> None:
        """A signal has come."""
        if not self.asked.done():
            self.asked.set_result(None)
        elif not self.hurry.done():
            self.hurry.set_result(None)


class _Server(uvicorn.Server):
    """uvicorn, but signals are not its business: the app must end before the engine does."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # The engine's start and end are ours, so that we can say what is wrong with it.
                lifespan="off",
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=_REQUEST_GRACE,
            )
        )
        self._listener = listener
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set_result(None)

    async def run_until_told(self) -> None:
        """Serve until `should_exit` is set."""
        await self.serve(sockets=[self._listener])


async def run_dev(options: DevOptions) -> int:
    """Run until Ctrl-C, SIGTERM or the end of the app; the exit code.

    0 after a signal, the app's own code when it ended by itself (128 + N if signal N ended it),
    1 when the engine cannot run, 126 and 127 when the command cannot be started.
    """
    stop = _Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.press)
    # Whoever started us is gone, perhaps without a chance to say so.
    when_deaf(sys.stdout, lambda: call_in(loop, stop.end))
    try:
        listener, url = listen(options.host, options.port)
    except PortError as error:
        complain(str(error))
        return 1
    with listener:
        port: int = listener.getsockname()[1]
        settings = Settings(
            db_path=options.db or ":memory:",
            host=options.host,
            port=port,
            event_lookback=options.event_lookback,
        )
        app = create_app(settings)
        engine: Engine = app.state.engine
        try:
            await engine.start()
        except ConfigurationError as error:
            complain(str(error))
            return 1
        server = _Server(app, listener)
        serving = asyncio.create_task(server.run_until_told())
        try:
            await _first(server.ready, serving, stop.asked)
            if server.ready.done():
                _announce(options, url)
                return await _run_beside(options.command, url, serving, stop)
            return _why_it_ended(stop)
        finally:
            server.should_exit = True
            engine.drain()
            await asyncio.wait({serving})
            await engine.stop()


async def _run_beside(
    command: Sequence[str], url: str, serving: asyncio.Future[None], stop: _Stop
) -> int:
    """The time from the engine's start to the moment when it should end."""
    if not command:
        await _first(serving, stop.asked)
        return _why_it_ended(stop)
    try:
        child = await Child.start(
            command,
            env=_environment(url),
            name="app",
            grace=_APP_GRACE,
        )
    except FileNotFoundError:
        complain(f"cannot start the app: no command {command[0]!r}")
        return _COMMAND_NOT_FOUND
    except OSError as error:
        complain(f"cannot start the app: {command[0]}: {error.strerror}")
        return _COMMAND_NOT_EXECUTABLE
    ended = asyncio.create_task(child.wait())
    try:
        await _first(ended, serving, stop.asked)
        if not ended.done():
            return _why_it_ended(stop)
    finally:
        await child.stop(stop.hurry)
    code = await ended
    complain(f"the app ended with exit code {code}; stopping the engine")
    return code


def _environment(url: str) -> dict[str, str]:
    """Ours, pointed at the engine. A base URL would win over `INNGEST_DEV`, and is not ours."""
    inherited = {name: value for name, value in os.environ.items() if name != "INNGEST_BASE_URL"}
    return {**inherited, "INNGEST_DEV": url, "PYTHONUNBUFFERED": "1"}


def _why_it_ended(stop: _Stop) -> int:
    if stop.asked.done():
        say("stopping")
        return 0
    complain("the engine has failed; its log says why")
    return 1


def _announce(options: DevOptions, url: str) -> None:
    if options.port is None and not url.endswith(f":{DEFAULT_PORT}"):
        say(f"port {DEFAULT_PORT} is taken, using the next free one")
    kept = "in memory; --db PATH keeps them" if options.db is None else f"in {options.db}"
    say(f"engine ready on {url} (runs are kept {kept})")


async def _first(*futures: asyncio.Future[None] | asyncio.Future[int]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
