"""Items that come one by one, handed on many at a time.

While a batch is being stored the next one collects, so that a lone item waits for nothing and many
share statements, not only the commit, which the store shares out anyway.

Measured in turns with one `Store.write` for each item, on the load of benchmarks/bench_ingest.py:
without the funnel a run costs the engine about 1.1 times as much processor time with 16 requests at
a time, and 1.3 times with 64. With one request at a time there is no difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - item and outcome
O = TypeVar("O")  # noqa: E741

_MOST = 256
"""Items of one batch."""


class Funnel(Generic[I, O]):
    """Collects items for a function that stores many.

    Args:
        store: stores items, all or none, and returns what became of each.
    """

    def __init__(self, store: Callable[[Sequence[I]], Awaitable[Sequence[O]]]) -> None:
        self._store = store
        self._waiting: list[tuple[I, asyncio.Future[O]]] = []
        self._emptying: asyncio.Task[None] | None = None

    async def put(self, item: I) -> O:
        """Have one item stored.

        Raises:
            Exception: what storing it alone raises.
        """
        future: asyncio.Future[O] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._emptying is None:
            self._emptying = asyncio.create_task(self._empty())
        return await future

    async def _empty(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                try:
                    await self._try(batch)
                except Exception as error:
                    if len(batch) == 1:
                        _refuse(batch[0][1], error)
                    else:  # one of them may have spoilt it for all
                        for one in batch:
                            await self._alone(one)
        finally:
            self._emptying = None

    async def _try(self, batch: Sequence[tuple[I, asyncio.Future[O]]]) -> None:
        outcomes = await self._store([item for item, _ in batch])
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():  # its caller was cancelled meanwhile
                future.set_result(outcome)

    async def _alone(self, one: tuple[I, asyncio.Future[O]]) -> None:
        try:
            await self._try([one])
        except Exception as error:
            _refuse(one[1], error)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
