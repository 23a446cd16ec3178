"""What `dev` and `start` share: a server in this process, and how it is asked to end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from stephttp.cli.write_coalescing import CoalescingProtocol


def run(main: Coroutine[Any, Any, int], *, beside_app: bool = False) -> int:
    """Run a command to its end, on uvloop where that is installed.

    Args:
        beside_app: it starts the user's app in a process group of its own, which uvloop cannot.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return asyncio.run(main) if beside_app else uvloop.run(main)


class Stop:
    """What the user wants: the first Ctrl-C or SIGTERM ends things in order, a second at once."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[None] = loop.create_future()
        self.hurry: asyncio.Future[None] = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.press)

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


class Server(uvicorn.Server):
    """uvicorn, but signals are not its business: the app must end before the engine does.

    Args:
        app: what to serve.
        listener: where.
        grace: seconds that open requests get at the end.
        proxies: addresses whose `X-Forwarded-For` is believed.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        grace: int,
        proxies: Sequence[str] = ("127.0.0.1",),
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                # The engine's start and end are ours, so that we can say what is wrong with it.
                lifespan="off",
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=grace,
                forwarded_allow_ips=list(proxies),
                server_header=False,
                http=CoalescingProtocol,
                ws="websockets-sansio",
                # Clients say no more than which topics they want.
                ws_max_size=64 * 1024,
            )
        )
        self._listener = listener
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set_result(None)

    async def run_until_exit(self) -> None:
        """Serve until `should_exit` is set."""
        await self.serve(sockets=[self._listener])


async def first_of(*futures: asyncio.Future[None] | asyncio.Future[int]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
