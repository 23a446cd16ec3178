"""Which of the things that may happen next does: for tests of races.

Calls, requests to the API, and the answers to both come to a gate, where they wait until they are
chosen. Time is one of the choices. So two calls of a run overlap in every way there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.realserver.turns import PATIENCE, Turns

TICKS = 40
"""Turns of the event loop after which an application has come to its next gate, or soon will."""


class Interleaving:
    """The gates.

    Args:
        choose: returns one of so many numbers, from 0.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose
        self.turns = Turns(choose)
        """Those of threads, where the application is one of WSGI."""
        self.active = False
        self.trace: list[str] = []
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._came = asyncio.Event()

    async def gate(self, what: str) -> None:
        """Wait until this is what happens next."""
        if self.active:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((what, future))
            self._came.set()
            await future

    async def settle(self) -> None:
        """Let everything come to a gate."""
        more = True
        while more:
            for _ in range(TICKS):
                await asyncio.sleep(0)
            more = self.turns.give()
        self._waiting = [one for one in self._waiting if not one[1].done()]

    async def come(self, at_work: set[asyncio.Task[None]]) -> None:
        """Wait, where nothing can happen, until something comes to a gate, or a call ends: Django
        under ASGI has threads of its own."""
        loop = asyncio.get_running_loop()
        self.turns.ready = lambda: loop.call_soon_threadsafe(self._came.set)
        comes = asyncio.ensure_future(self._came.wait())
        done, _ = await asyncio.wait(
            {comes, *at_work}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
        )
        comes.cancel()
        self._came.clear()
        assert done, "the application does not answer"

    @property
    def waiting(self) -> int:
        """How many things may happen next."""
        return len(self._waiting)

    def release(self, number: int) -> None:
        """Let one of them happen."""
        what, future = self._waiting.pop(number)
        self.trace.append(what)
        future.set_result(None)
