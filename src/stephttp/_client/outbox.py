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
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_futures

from stephttp._client.background import Job
from stephttp._client.event_loop import either, settled
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

    __slots__ = ("_parcel", "accounted", "awaited", "changed", "held", "tried")

    def __init__(self, parcel: Parcel | None = None) -> None:
        self._parcel = parcel
        self.held = False
        """True if the outbox has it, in its queue or under way."""
        self.accounted = 0
        self.awaited = False
        """True if a caller waits for its delivery."""
        self.changed = False
        """True if it was put again since it was last asked what is to be sent."""
        self.tried: Future[bool] | None = None
        """Whether it was delivered, once that was tried."""

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

    def was_tried(self, delivered: bool) -> None:
        """Let those continue that wait until its delivery was tried."""
        if self.tried is not None and not self.tried.done():
            self.tried.set_result(delivered)


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
        self._under_way: dict[object, list[tuple[Item, Parcel]]] = {}
        """What each worker is sending."""
        self._pausing: set[object] = set()
        """Workers that let some time pass, because the server is away."""
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
                if not item.awaited:
                    return True
                refused = count = held = 0
            elif self._open >= self._max_items or self._bytes + size > self._max_bytes:
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
            self._start_worker(item.awaited)
        elif refused.bit_count() == 1:  # 1, 2, 4, 8, …: a flood of losses is few lines
            logger.warning(
                "stephttp: the outbox is full (%d runs, %d bytes); %d finished runs were not "
                "recorded so far", count, held, refused,
                extra={"outbox_depth": count, "outbox_bytes": held, "outbox_dropped": refused},
            )  # fmt: skip
        return not refused

    async def wait(self, timeout: float | None = None, vain: Future[None] | None = None) -> bool:
        """Wait until all that was accepted is delivered.

        Args:
            timeout: seconds; `None` waits for as long as it takes.
            vain: done when there is nothing more to wait for.

        Returns:
            True when everything is delivered, False otherwise.
        """
        emptied = self._emptied()
        await settled(emptied if vain is None else either(emptied, vain), timeout)
        return emptied.done()

    def wait_sync(self, timeout: float | None = None, vain: Future[None] | None = None) -> bool:
        """Do the same while this thread waits."""
        emptied = self._emptied()
        futures = (emptied,) if vain is None else (emptied, vain)
        wait_for_futures(futures, timeout, FIRST_COMPLETED)
        return emptied.done()

    def _emptied(self) -> Future[None]:
        """Return a future that is done when nothing is left."""
        if self._open:
            self._start_worker(True)
        with self._lock:
            emptied = self._drained or Future()
            if self._open:
                self._drained = emptied
            else:
                emptied.set_result(None)
            return emptied

    def _start_worker(self, urgent: bool) -> None:
        """Start a worker, unless enough are at work.

        Args:
            urgent: someone waits, so one that pauses is not at work.
        """
        # Until the server is known, one worker calls it, and the others start from what it learns.
        limit = WORKERS if self._batches() is False else 1
        with self._lock:
            self._take_over()
            once = urgent and bool(self._pausing)
            at_work = self._workers.keys() - self._pausing if once else self._workers
            if not self._queue or len(at_work) >= limit:
                return
            name = object()
            self._workers[name] = None
        try:
            # Without the lock: a task may start at once (`asyncio.eager_task_factory`).
            job = self._start(self._work(name, once), "stephttp-outbox")
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

    def _take_over(self) -> None:
        """Take back what is under way on event loops that have ended, or that stand still between
        requests, as those of function hosts do. Such a worker ends if its loop runs again."""
        for name, job in list(self._workers.items()):
            if job is not None and not job.alive():
                del self._workers[name]
                self._pausing.discard(name)
                batch = self._under_way.pop(name, ())
                self._queue.extendleft(item for item, _ in reversed(batch))

    def _work(self, name: object, once: bool) -> Flow[None]:
        """Send what is in the queue.

        Args:
            name: of this worker.
            once: end where the server is away, if another worker will try again.
        """
        while self._has_work(name):
            few = len(self._queue) < BATCH_ITEMS
            if self._batches() and not self._alone and few and not self._is_awaited():
                yield Pause(LINGER)
            batch = self._next(name)
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
                    if self._under_way.pop(name, None) is not None:
                        self._queue.extendleft(item for item, _ in reversed(batch))
                raise
            with self._lock:
                if self._under_way.pop(name, None) is None:  # another worker has taken them over
                    return
            if not self._settle(batch, results):
                if once and self._leave_to_others(name):
                    return
                yield from self._pause(name)

    def _leave_to_others(self, name: object) -> bool:
        """End a worker where there are others. Return whether it has ended."""
        with self._lock:
            others = len(self._workers) > 1
            if others:
                self._workers.pop(name, None)
            return others

    def _pause(self, name: object) -> Flow[None]:
        """Let some time pass, because the server is away."""
        with self._lock:
            self._pausing.add(name)
        try:
            yield Pause(AWAY_PAUSE)
        finally:
            with self._lock:
                self._pausing.discard(name)

    def _is_awaited(self) -> bool:
        """Return whether a caller waits until an item of the queue is delivered."""
        with self._lock:
            return any(item.awaited for item in self._queue)

    def _has_work(self, name: object) -> bool:
        """Return whether there is work. If not, this worker has ended; the next item starts one."""
        with self._lock:
            if not self._queue:
                self._workers.pop(name, None)
            return bool(self._queue) and name in self._workers

    def _next(self, name: object) -> list[tuple[Item, Parcel]]:
        """Take what the next request carries from the queue."""
        limit = BATCH_ITEMS if self._batches() and not self._alone else 1
        self._alone = max(0, self._alone - 1)
        with self._lock:
            if name not in self._workers:  # taken over
                return []
            items = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
            for item in items:
                item.changed = False
        batch, silent, left = pack(items)
        with self._lock:
            self._queue.extendleft(reversed(left))
            if batch:
                self._under_way[name] = batch
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
            away = len(again) == len(batch) and not self._alone
            tried = list(self._queue) if away else again
        for item in tried:
            item.was_tried(False)
        if not away:
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
        gone: list[Item] = []
        with self._lock:
            for item, more in items:
                if more or item.changed:
                    self._queue.append(item)
                    continue
                self._open -= 1
                self._bytes -= item.accounted
                item.held, item.accounted = False, 0
                if item.tried is not None:
                    gone.append(item)
            if not self._open:
                emptied, self._drained = self._drained, None
        for item in gone:
            item.was_tried(True)
        if emptied is not None:
            emptied.set_result(None)
