"""Which of the things that may happen next does: for tests of races.

Calls, requests to the API, and the answers to both come to a gate, where they wait until they are
chosen. Time is one of the choices. So two calls of a run overlap in every way there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICKS = 40
"""Turns of the event loop after which an application has come to its next gate, or soon will."""


class Interleaving:
    """The gates.

    Args:
        choose: returns one of so many numbers, from 0.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose
        self.active = False
        self.trace: list[str] = []
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    async def gate(self, what: str) -> None:
        """Wait until this is what happens next."""
        if self.active:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((what, future))
            await future

    async def settle(self) -> None:
        """Let everything come to a gate."""
        for _ in range(TICKS):
            await asyncio.sleep(0)
        self._waiting = [one for one in self._waiting if not one[1].done()]

    @property
    def waiting(self) -> int:
        """How many things may happen next."""
        return len(self._waiting)

    def release(self, number: int) -> None:
        """Let one of them happen."""
        what, future = self._waiting.pop(number)
        self.trace.append(what)
        future.set_result(None)
