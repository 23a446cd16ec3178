"""The engine's HTTP server in the process of `dev` or `start`, and how signals (SIGTERM,
Ctrl-C) stop it.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from stephttp.cli.bounded_requests import BoundedProtocol, detect_dead_peers


def run(main: Coroutine[Any, Any, int], *, beside_app: bool = False) -> int:
    """Run a command to its end, on uvloop where that is installed.

    Args:
        beside_app: the command starts the user's app in its own process group, which uvloop
            cannot do.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return asyncio.run(main) if beside_app else uvloop.run(main)


class Stop:
    """Requests to stop: the first Ctrl-C or SIGTERM stops in order, the second at once."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[None] = loop.create_future()
        self.hurry: asyncio.Future[None] = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.press)

    def end(self) -> None:
        """Ask to stop in order."""
        if not self.asked.done():
            self.asked.set_result(None)

    def press(self) -> None:
        """Ask to stop in order; the second time, at once."""
        if not self.asked.done():
            self.asked.set_result(None)
        elif not self.hurry.done():
            self.hurry.set_result(None)


class Server(uvicorn.Server):
    """uvicorn, without its handling of signals: the app must end before the engine does.

    Args:
        app: what to serve.
        listener: where.
        grace: seconds that open requests get when the server stops.
        leaving: called when the server stops, once it accepts no further connections: a client that
            is asked to come back must not meet it again.
        proxies: addresses whose `X-Forwarded-For` is believed.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        grace: int,
        leaving: Callable[[], None],
        proxies: Sequence[str] = ("127.0.0.1",),
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # We start and stop the engine ourselves, to say what is wrong if that fails.
                lifespan="off",
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=grace,
                forwarded_allow_ips=list(proxies),
                server_header=False,
                http=BoundedProtocol,
                ws="websockets-sansio",
                # Clients only say which topics they want.
                ws_max_size=64 * 1024,
            )
        )
        self._listener = listener
        self._leaving = leaving
        detect_dead_peers(listener)
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _collect_rarely()
        self.ready.set_result(None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._leaving()
        await super().shutdown(sockets)

    async def run_until_exit(self) -> None:
        """Serve until `should_exit` is set."""
        await self.serve(sockets=[self._listener])


def _collect_rarely() -> None:
    """Let the garbage collector leave out what stays for good, and look less often at the rest.

    The engine makes hardly any cycles: what it frees, it frees by counting references. With what is
    loaded at the start, and at the usual pace, the collector takes a tenth of the processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def first_of(*futures: asyncio.Future[None] | asyncio.Future[int]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
