"""Keeps for a while what comes for runs that are not known yet.

An SDK reports a run that never waits only when it is over, perhaps after what its code has sent.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, KeysView
from typing import Generic, TypeVar

T = TypeVar("T")


class EarlyParts(Generic[T]):
    """Keeps parts of runs until these begin. It lives in the engine's event loop.

    Args:
        store: stores the parts of a run that has begun.
        size_of: returns the size of a part, in bytes.
        most: bytes of all parts; the oldest go first.
        kept_ms: how long a part is kept.
    """

    def __init__(
        self,
        store: Callable[[str, list[T]], Awaitable[object]],
        size_of: Callable[[T], int],
        most: int,
        kept_ms: int,
    ) -> None:
        self._store = store
        self._size_of = size_of
        self._most = most
        self._kept_ms = kept_ms
        self._parts: OrderedDict[str, tuple[int, list[T]]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self.size = 0
        """Bytes of all parts."""

    @property
    def run_ids(self) -> KeysView[str]:
        """A live view of the runs whose parts are kept."""
        return self._parts.keys()

    def put(self, run_id: str, part: T, now_ms: int) -> int:
        """Keep a part of a run, and return how many others had to go."""
        self._parts.setdefault(run_id, (now_ms, []))[1].append(part)
        self.size += self._size_of(part)
        dropped = 0
        while self._parts and (self.size > self._most or self._oldest_ms < now_ms - self._kept_ms):
            dropped += len(self._take(next(iter(self._parts))))
        return dropped

    def run_began(self, run_id: str) -> None:
        """Store what came before a run that is among `run_ids`."""
        task = asyncio.create_task(self._hand_on(run_id, self._take(run_id)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Return once all that is being stored is stored."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def _oldest_ms(self) -> int:
        return next(iter(self._parts.values()))[0]

    def _take(self, run_id: str) -> list[T]:
        _, parts = self._parts.pop(run_id)
        self.size -= sum(map(self._size_of, parts))
        return parts

    async def _hand_on(self, run_id: str, parts: list[T]) -> None:
        await self._store(run_id, parts)
