"""Delivers finished runs in the background, bounded in number and bytes.

Nothing on a request's path waits for it. While the server is away, what was accepted is kept and
tried again; when the box is full, new runs are refused, and that is logged with their number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from stephttp.errors import APIError, APIStatusError

logger = logging.getLogger("stephttp")

MAX_ITEMS = 10_000
MAX_BYTES = 64 * 1024 * 1024
WORKERS = 8
AWAY_PAUSE = 5.0
"""Seconds between attempts while the server is away, on top of a call's own retries."""


class Outbox:
    """A bounded queue and the tasks that empty it.

    Args:
        deliver: sends one item; raises `APIError` when it could not.
        pause: how to wait for so many seconds.
    """

    def __init__(
        self,
        deliver: Callable[[bytes], Awaitable[None]],
        *,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._deliver = deliver
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._pause = pause
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._refused = 0
        self._away = False

    @property
    def depth(self) -> int:
        """Items accepted and not delivered yet."""
        return self._open

    def put(self, item: bytes) -> bool:
        """Accept `item` for delivery. Must be called on an event loop.

        Returns:
            Whether there was room for it.
        """
        if self._open >= self._max_items or self._bytes + len(item) > self._max_bytes:
            self._refused += 1
            if self._refused.bit_count() == 1:  # 1, 2, 4, 8, …: a flood of losses is few lines
                logger.warning(
                    "stephttp: the outbox is full (%d runs, %d bytes); %d finished runs were not "
                    "recorded so far", self._open, self._bytes, self._refused,
                )  # fmt: skip
            return False
        self._open += 1
        self._bytes += len(item)
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
        # Tasks of a loop that was closed before they ended never will.
        self._tasks = {
            task for task in self._tasks if not (task.done() or task.get_loop().is_closed())
        }
        if len(self._tasks) < WORKERS:
            self._tasks.add(loop.create_task(self._work(), name="stephttp-outbox"))

    async def _work(self) -> None:
        while self._queue:
            item = self._queue.popleft()
            try:
                await self._deliver(item)
            except APIError as error:
                if not _refused_for_good(error):
                    self._queue.appendleft(item)
                    level = logging.INFO if self._away else logging.WARNING
                    self._away = True
                    logger.log(level, "stephttp: %d finished runs wait: %s", self._open, error)
                    await self._pause(AWAY_PAUSE)
                    continue
                logger.error("stephttp: the server refused a finished run: %s", error)
            except Exception:
                logger.exception("stephttp: a finished run could not be delivered and is dropped")
            except BaseException:
                self._queue.appendleft(item)
                raise
            else:
                self._away = False
            self._open -= 1
            self._bytes -= len(item)
        if not self._open:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)


def _refused_for_good(error: APIError) -> bool:
    """Whether sending the same again can only be refused again."""
    return isinstance(error, APIStatusError) and error.status in (400, 404, 409, 413, 422)
