"""Delivers runs in the background, bounded in number and bytes, many in one request if possible.

Nothing on a request's path waits for it. While the server is away, what was accepted is kept and
tried again; when the box is full, new runs are refused, and that is logged with their number.

A server that takes batches gets them from one task, one after the other: what piles up while one
is under way is the next. A server that does not is sent single items by a few tasks. What one item
has to say (a run that still goes on may have news) is sent in its order, because an item is in one
place only: in the queue, or in the hands of a task.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from stephttp.errors import APIError, APIStatusError

logger = logging.getLogger("stephttp")

MAX_ITEMS = 10_000
MAX_BYTES = 64 * 1024 * 1024
WORKERS = 4
"""Tasks for a server that takes no batches."""
BATCH_ITEMS = 500
BATCH_BYTES = 4 * 1024 * 1024
"""A server reads no more of a request (PROTOCOL 10)."""
LINGER = 0.005
"""Seconds that a batch waits for company; benchmarks/bench_batches.py shows what it brings."""
AWAY_PAUSE = 5.0
"""Seconds between attempts while the server is away, on top of a call's own retries."""


class Parcel(NamedTuple):
    """An encoded checkpoint, and where it goes when it goes alone."""

    path: str
    body: bytes


class Item:
    """Something to be delivered: here a run that has ended, encoded."""

    __slots__ = ("_parcel", "accounted", "held")

    def __init__(self, parcel: Parcel | None = None) -> None:
        self._parcel = parcel
        self.held = False
        """Whether the outbox has it, in its queue or under way."""
        self.accounted = 0

    def size(self) -> int:
        """Bytes that it keeps, roughly."""
        return 0 if self._parcel is None else len(self._parcel.body)

    def take(self) -> Parcel | None:
        """What is to be sent, the same until `delivered` is called; `None`: nothing."""
        return self._parcel

    def answered(self, body: bytes) -> None:
        """It was sent alone; this is the answer."""

    def delivered(self, error: APIError | None) -> bool:
        """It was taken, or refused for good. Returns whether there is more to send."""
        if error is not None:
            logger.error("stephttp: the server refused a finished run: %s", error)
        return False


Delivery = Callable[[Sequence[tuple[Item, Parcel]]], Awaitable[Sequence[APIError | None]]]


class Outbox:
    """A bounded queue and the tasks that empty it.

    Args:
        deliver: sends some items and returns what became of each (`None`: taken); raises
            `APIError` when none could be sent.
        batches: whether the server takes more than one at a time; `None` while that is not known.
        pause: how to wait for so many seconds.
    """

    def __init__(
        self,
        deliver: Delivery,
        *,
        batches: Callable[[], bool | None] = lambda: False,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._deliver = deliver
        self._batches = batches
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._pause = pause
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._open = 0
        self._alone = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that delivers, once there was something to deliver."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._refused = 0
        self._away = False

    @property
    def depth(self) -> int:
        """Items accepted and not delivered yet."""
        return self._open

    def put(self, item: Item) -> bool:
        """Accept `item`, or the news of one that is here already. Must be called on an event loop.

        Returns:
            Whether there was room for it.
        """
        size = item.size()
        if item.held:
            self._bytes += size - item.accounted
            item.accounted = size
            return True
        if self._open >= self._max_items or self._bytes + size > self._max_bytes:
            self._refused += 1
            if self._refused.bit_count() == 1:  # 1, 2, 4, 8, …: a flood of losses is few lines
                logger.warning(
                    "stephttp: the outbox is full (%d runs, %d bytes); %d finished runs were not "
                    "recorded so far", self._open, self._bytes, self._refused,
                )  # fmt: skip
            return False
        self._open += 1
        self._bytes += size
        item.held, item.accounted = True, size
        self._queue.append(item)
        self._start_worker()
        return True

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was accepted is delivered.

        Args:
            timeout: seconds; `None` waits for as long as it takes.

        Returns:
            True when everything is delivered, False at the timeout.
        """
        if self._queue:
            self._start_worker()
        if not self._open:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    def _start_worker(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self.loop:
            self.loop = loop
            # Tasks of a loop that was closed before they ended never will.
            self._tasks = {task for task in self._tasks if not task.get_loop().is_closed()}
        # As long as nothing is known of the server one asks, and the others learn from it.
        if len(self._tasks) < (WORKERS if self._batches() is False else 1):
            self._tasks.add(loop.create_task(self._work(), name="stephttp-outbox"))

    async def _work(self) -> None:
        try:
            await self._empty()
        finally:
            # At once: a task that looks alive would keep the next item from starting another.
            self._tasks.discard(asyncio.current_task())

    async def _empty(self) -> None:
        while self._queue:
            if self._batches() and not self._alone and len(self._queue) < BATCH_ITEMS:
                await self._pause(LINGER)
            batch = self._next()
            if not batch:
                continue
            try:
                results = await self._deliver(batch)
            except APIError as error:
                results = self._failed(batch, error)
            except Exception as error:
                logger.exception("stephttp: finished runs could not be delivered and are dropped")
                results = [APIStatusError(f"not sent: {error}", 400)] * len(batch)
            except BaseException:
                self._queue.extendleft(item for item, _ in reversed(batch))
                raise
            if not self._settle(batch, results):
                await self._pause(AWAY_PAUSE)
        if not self._open:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _next(self) -> list[tuple[Item, Parcel]]:
        """What the next request carries."""
        limit = BATCH_ITEMS if self._batches() and not self._alone else 1
        self._alone = max(0, self._alone - 1)
        batch: list[tuple[Item, Parcel]] = []
        size = 2  # the brackets; each item adds a comma
        while self._queue and len(batch) < limit:
            item = self._queue.popleft()
            parcel = item.take()
            if parcel is None:
                self._drop(item)
                continue
            size += len(parcel.body) + 1
            if batch and size > BATCH_BYTES:
                self._queue.appendleft(item)
                break
            batch.append((item, parcel))
        return batch

    def _failed(
        self, batch: Sequence[tuple[Item, Parcel]], error: APIError
    ) -> Sequence[APIError | None]:
        """None of a batch was delivered: what that means for each item."""
        if _refused_for_good(error) and len(batch) > 1:
            self._alone = len(batch)  # to find out which of them it is
            error = APIError("to be sent alone")
        return [error] * len(batch)

    def _settle(
        self, batch: Sequence[tuple[Item, Parcel]], results: Sequence[APIError | None]
    ) -> bool:
        """Go by what became of a batch. Returns whether to go on at once."""
        again: list[Item] = []
        for (item, _), error in zip(batch, results, strict=True):
            if error is not None and not _refused_for_good(error):
                again.append(item)
            elif item.delivered(error):
                self._queue.append(item)
            else:
                self._drop(item)
        self._queue.extendleft(reversed(again))
        if len(again) < len(batch) or self._alone:
            self._away = False
            return True
        level = logging.INFO if self._away else logging.WARNING
        self._away = True
        logger.log(level, "stephttp: %d finished runs wait: %s", self._open, results[0])
        return False

    def _drop(self, item: Item) -> None:
        self._open -= 1
        self._bytes -= item.accounted
        item.held, item.accounted = False, 0


def _refused_for_good(error: APIError) -> bool:
    """Whether sending the same again can only be refused again."""
    return isinstance(error, APIStatusError) and error.status in (400, 404, 405, 409, 410, 413, 422)
