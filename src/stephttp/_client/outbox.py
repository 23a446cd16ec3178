"""Delivers runs in the background, bounded in number and bytes, many in one request if possible.

Nothing on a request's path waits for it. While the server is away, what was accepted is kept and
tried again; when the box is full, new runs are refused, and that is logged with their number.

The work is a flow, so that it is done by tasks of an event loop or by threads alike. A server that
takes batches gets them from one worker, one after the other: what piles up while one is under way
is the next. A server that does not is sent single items by a few workers. What one item has to say
(a run that still runs may add to it) is sent in its order, because an item is in one place only:
in the queue, or held by a worker.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures

from stephttp._client.background import Job
from stephttp._client.event_loop import settled
from stephttp._client.flow import Flow, Pause
from stephttp._client.outbox_batch import BATCH_ITEMS, Parcel, pack, refused_for_good
from stephttp.errors import APIError, APIStatusError

logger = logging.getLogger("stephttp")

MAX_ITEMS = 10_000
MAX_BYTES = 64 * 1024 * 1024
WORKERS = 4
"""Workers for a server that accepts no batches."""
LINGER = 0.02
"""Seconds that a batch waits for company; benchmarks/bench_batches.py shows what it brings."""
AWAY_PAUSE = 5.0
"""Seconds between attempts while the server is away, on top of a call's own retries."""


class Item:
    """Something to be delivered: here a run that has ended, encoded.

    The outbox calls its methods in any thread, and none of them while it holds its own lock.
    """

    __slots__ = ("_parcel", "accounted", "awaited", "changed", "held")

    def __init__(self, parcel: Parcel | None = None) -> None:
        self._parcel = parcel
        self.held = False
        """True if the outbox has it, in its queue or under way."""
        self.accounted = 0
        self.awaited = False
        """True if a caller waits for its delivery."""
        self.changed = False
        """True if it was put again since it was last asked what is to be sent."""

    def size(self) -> int:
        """Return how many bytes it keeps, roughly."""
        return 0 if self._parcel is None else len(self._parcel.body)

    def take(self) -> Parcel | None:
        """Return what is to be sent, the same until `delivered` is called; `None`: nothing."""
        return self._parcel

    def answered(self, body: bytes) -> None:
        """Note the answer to an item that was sent alone."""

    def delivered(self, error: APIError | None) -> bool:
        """Note that it was accepted, or refused for good; return whether there is more."""
        if error is not None:
            logger.error("stephttp: the server refused a finished run: %s", error)
        return False


Delivery = Callable[[Sequence[tuple[Item, Parcel]]], Flow[Sequence[APIError | None]]]
Start = Callable[[Flow[None], str], Job[None]]


class Outbox:
    """A bounded queue and the workers that empty it. Thread-safe.

    Args:
        deliver: a flow that sends some items and returns what became of each (`None`: accepted);
            raises `APIError` when none could be sent.
        start: carries out a flow in the background.
        batches: whether the server takes more than one at a time; `None` while that is not known.
    """

    def __init__(
        self,
        deliver: Delivery,
        start: Start,
        *,
        batches: Callable[[], bool | None] = lambda: False,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._deliver = deliver
        self._start = start
        self._batches = batches
        self._max_items = max_items
        self._max_bytes = max_bytes
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start again in a forked process: the items are its parent's."""
        self._lock = threading.Lock()
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._open = 0
        self._alone = 0
        self._workers: dict[object, Job[None] | None] = {}
        """`None`: about to be started."""
        self._drained: Future[None] | None = None
        self._refused = 0
        self._away = False

    @property
    def depth(self) -> int:
        """Items accepted and not delivered yet."""
        return self._open

    def put(self, item: Item) -> bool:
        """Accept `item`, or note that one that is here already has changed.

        Returns:
            Whether there was room for it.
        """
        size = item.size()
        self._lock.acquire()  # a `with` takes twice the instructions
        try:
            if item.held:
                self._bytes += size - item.accounted
                item.accounted, item.changed = size, True
                return True
            if self._open >= self._max_items or self._bytes + size > self._max_bytes:
                self._refused += 1
                refused, count, held = self._refused, self._open, self._bytes
            else:
                self._open += 1
                self._bytes += size
                item.held, item.accounted = True, size
                self._queue.append(item)
                refused = count = held = 0
        finally:
            self._lock.release()
        if not refused:
            self._start_worker()
        elif refused.bit_count() == 1:  # 1, 2, 4, 8, …: a flood of losses is few lines
            logger.warning(
                "stephttp: the outbox is full (%d runs, %d bytes); %d finished runs were not "
                "recorded so far", count, held, refused,
                extra={"outbox_depth": count, "outbox_bytes": held, "outbox_dropped": refused},
            )  # fmt: skip
        return not refused

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was accepted is delivered.

        Args:
            timeout: seconds; `None` waits for as long as it takes.

        Returns:
            True when everything is delivered, False at the timeout.
        """
        return await settled(self._emptied(), timeout)

    def wait_sync(self, timeout: float | None = None) -> bool:
        """Do the same while this thread waits."""
        return bool(wait_for_futures((self._emptied(),), timeout).done)

    def _emptied(self) -> Future[None]:
        """Return a future that is done when nothing is left."""
        if self._queue:
            self._start_worker()
        with self._lock:
            emptied = self._drained or Future()
            if self._open:
                self._drained = emptied
            else:
                emptied.set_result(None)
            return emptied

    def _start_worker(self) -> None:
        # Until the server is known, one worker calls it, and the others start from what it learns.
        limit = WORKERS if self._batches() is False else 1
        with self._lock:
            for name, job in list(self._workers.items()):
                if job is not None and not job.alive():  # of a loop that has ended
                    del self._workers[name]
            if len(self._workers) >= limit:
                return
            name = object()
            self._workers[name] = None
        try:
            # Without the lock: a task may start at once (`asyncio.eager_task_factory`).
            job = self._start(self._work(name), "stephttp-outbox")
        except RuntimeError as error:  # no thread can start, as at the exit of the interpreter
            with self._lock:
                del self._workers[name]
                others = bool(self._workers)
            if not others:
                logger.warning("stephttp: %d finished runs wait: %s", self._open, error)
            return
        with self._lock:
            if name in self._workers:  # not at its end already
                self._workers[name] = job

    def _work(self, name: object) -> Flow[None]:
        while self._has_work(name):
            few = len(self._queue) < BATCH_ITEMS
            if self._batches() and not self._alone and few and not self._is_awaited():
                yield Pause(LINGER)
            batch = self._next()
            if not batch:
                continue
            try:
                results = yield from self._deliver(batch)
            except APIError as error:
                results = self._failed(batch, error)
            except Exception as error:
                logger.exception("stephttp: finished runs could not be delivered and are dropped")
                results = [APIStatusError(f"not sent: {error}", 400)] * len(batch)
            except BaseException:
                with self._lock:
                    self._queue.extendleft(item for item, _ in reversed(batch))
                raise
            if not self._settle(batch, results):
                yield Pause(AWAY_PAUSE)

    def _is_awaited(self) -> bool:
        """Return whether a caller waits until an item of the queue is delivered."""
        with self._lock:
            return any(item.awaited for item in self._queue)

    def _has_work(self, name: object) -> bool:
        """Return whether there is work. If not, this worker has ended; the next item starts one."""
        with self._lock:
            if not self._queue:
                self._workers.pop(name, None)
            return bool(self._queue)

    def _next(self) -> list[tuple[Item, Parcel]]:
        """Take what the next request carries from the queue."""
        limit = BATCH_ITEMS if self._batches() and not self._alone else 1
        self._alone = max(0, self._alone - 1)
        with self._lock:
            items = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
            for item in items:
                item.changed = False
        batch, silent, left = pack(items)
        if left:
            with self._lock:
                self._queue.extendleft(reversed(left))
        self._remove([(item, False) for item in silent])
        return batch

    def _failed(
        self, batch: Sequence[tuple[Item, Parcel]], error: APIError
    ) -> Sequence[APIError | None]:
        """Return what became of each item of a batch that was not delivered."""
        if refused_for_good(error) and len(batch) > 1:
            self._alone = len(batch)  # to find out which of them it is
            error = APIError("to be sent alone")
        return [error] * len(batch)

    def _settle(
        self, batch: Sequence[tuple[Item, Parcel]], results: Sequence[APIError | None]
    ) -> bool:
        """Settle the items of a batch. Return whether to send the next at once."""
        again: list[Item] = []
        done: list[tuple[Item, bool]] = []
        for (item, _), error in zip(batch, results, strict=True):
            if error is not None and not refused_for_good(error):
                again.append(item)
            else:
                done.append((item, item.delivered(error)))
        self._remove(done)
        with self._lock:
            self._queue.extendleft(reversed(again))
        if len(again) < len(batch) or self._alone:
            self._away = False
            return True
        level = logging.INFO if self._away else logging.WARNING
        self._away = True
        logger.log(
            level, "stephttp: %d finished runs wait: %s", self._open, results[0],
            extra={"outbox_depth": self._open, "outbox_bytes": self._bytes},
        )  # fmt: skip
        return False

    def _remove(self, items: Sequence[tuple[Item, bool]]) -> None:
        """Remove items, but for those that have more to send."""
        emptied = None
        with self._lock:
            for item, more in items:
                if more or item.changed:
                    self._queue.append(item)
                    continue
                self._open -= 1
                self._bytes -= item.accounted
                item.held, item.accounted = False, 0
            if not self._open:
                emptied, self._drained = self._drained, None
        if emptied is not None:
            emptied.set_result(None)
