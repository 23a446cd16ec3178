"""The outbox: delivers in the background, bounded, also where loops stand still (serverless).

Nothing on a request's path waits for it. While the server is away, what was accepted is kept and
tried again; when the box is full, new runs are refused, and that is logged with their number.
`outbox_worker` sends what is here.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress

from stephttp._client.background import Job
from stephttp._client.event_loop import either, settled
from stephttp._client.flow import Flow
from stephttp._client.outbox_batch import Parcel
from stephttp._client.outbox_worker import Worker
from stephttp.errors import APIError

logger = logging.getLogger("stephttp")

MAX_ITEMS = 10_000
MAX_BYTES = 64 * 1024 * 1024
WORKERS = 4
"""Workers for a server that accepts no batches."""


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
        if self.tried is not None:
            with suppress(InvalidStateError):  # another worker was first
                self.tried.set_result(delivered)


Delivery = Callable[[Sequence[tuple[Item, Parcel]]], Flow[Sequence[APIError | None]]]
Start = Callable[[Flow[None], str], Job[None]]
Follower = tuple[Callable[[], object], Callable[[], bool]]


class Outbox:
    """A bounded queue and the workers that empty it. Thread-safe.

    Args:
        deliver: a flow that sends some items and returns what became of each (`None`: accepted);
            raises `APIError` when none could be sent.
        start: carries out a flow in the background.
        batches: whether the server takes more than one at a time; `None` while that is not known.

    Attributes:
        lock: guards all others.
        queue: what no worker has taken.
        workers: those that are at work, or about to be.
        alone: how many items are to be sent alone, to find out which of them is refused.
        is_away: the server gave no answer when it was asked last.
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
        self.deliver = deliver
        self._start = start
        self.batches = batches
        self._max_items = max_items
        self._max_bytes = max_bytes
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start again in a forked process: the items are its parent's."""
        self.lock = threading.Lock()
        self.queue: deque[Item] = deque()
        self.kept_bytes = 0
        """What accepted items keep, roughly."""
        self._open = 0
        self._followers: list[Follower] = []
        """What is to be put later, and whether that is still under way; see `after`."""
        self.alone = 0
        self.workers: set[Worker] = set()
        self._drained: Future[None] | None = None
        self._refused = 0
        self.is_away = False

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
        refused = count = held = 0
        worker: Worker | None = None
        self.lock.acquire()  # a `with` takes twice the instructions
        try:
            if item.held:
                self.kept_bytes += size - item.accounted
                item.accounted, item.changed = size, True
                if not item.awaited:
                    return True
            elif self._open >= self._max_items or self.kept_bytes + size > self._max_bytes:
                self._refused += 1
                refused, count, held = self._refused, self._open, self.kept_bytes
            else:
                self._open += 1
                self.kept_bytes += size
                item.held, item.accounted = True, size
                self.queue.append(item)
            if not refused:
                worker = self._new_worker(item.awaited)
        finally:
            self.lock.release()
        if worker is not None:
            self._start_worker(worker)
        elif refused.bit_count() == 1:  # 1, 2, 4, 8, …: a flood of losses is few lines
            logger.warning(
                "stephttp: the outbox is full (%d runs, %d bytes); %d finished runs were not "
                "recorded so far", count, held, refused,
                extra={"outbox_depth": count, "outbox_bytes": held, "outbox_dropped": refused},
            )  # fmt: skip
        return not refused

    def after(
        self, done: Future[None], put: Callable[[], object], alive: Callable[[], bool]
    ) -> None:
        """Make a call that puts something here, as soon as a future is done. Until then that counts
        as accepted.

        Args:
            alive: whether the future is being settled. Its event loop may stand still between
                requests, and then no one waits for it.
        """
        follower = (put, alive)
        with self.lock:
            self._open += 1
            self._followers.append(follower)
        done.add_done_callback(lambda _: self._follow(follower))

    def _follow(self, follower: Follower) -> None:
        """Make the call of a follower, once."""
        with self.lock:
            if follower not in self._followers:
                return
            self._followers.remove(follower)
        try:
            follower[0]()
        finally:
            with self.lock:
                self._open -= 1
                emptied = self._taken_when_empty()
            if emptied is not None:
                emptied.set_result(None)

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
        wait(futures, timeout, FIRST_COMPLETED)
        return emptied.done()

    def _emptied(self) -> Future[None]:
        """Return a future that is done when nothing is left."""
        for follower in [one for one in self._followers if not one[1]()]:
            self._follow(follower)
        with self.lock:
            emptied = self._drained or Future()
            if not self._open:
                emptied.set_result(None)
                return emptied
            self._drained, worker = emptied, self._new_worker(True)
        if worker is not None:
            self._start_worker(worker)
        return emptied

    def _new_worker(self, urgent: bool) -> Worker | None:
        """Return a worker to be started; `None`: enough are at work. Called with the lock.

        Args:
            urgent: someone waits, so one that pauses is not at work.
        """
        pausing = 0
        if self.workers:
            self._take_over()
            pausing = sum(worker.pauses for worker in self.workers) if urgent else 0
            # Until the server is known, one worker calls it; others start from what it learns.
            if len(self.workers) - pausing >= (WORKERS if self.batches() is False else 1):
                return None
        if not self.queue:
            return None
        worker = Worker(self, pausing > 0)
        self.workers.add(worker)
        return worker

    def _start_worker(self, worker: Worker) -> None:
        """Start a worker, without the lock: a task may begin at once (`eager_task_factory`)."""
        try:
            worker.job = self._start(worker.work(), "stephttp-outbox")
        except RuntimeError as error:  # no thread can start, as at the exit of the interpreter
            with self.lock:
                self.workers.discard(worker)
                others = bool(self.workers)
            if not others:
                logger.warning("stephttp: %d finished runs wait: %s", self._open, error)

    def _take_over(self) -> None:
        """Take back what is under way on event loops that have ended, or that stand still between
        requests, as those of function hosts do. Such a worker ends if its loop runs again."""
        for worker in list(self.workers):
            if worker.job is not None and not worker.job.alive():
                self.workers.discard(worker)
                worker.give_back()

    def remove(self, items: Sequence[tuple[Item, bool]]) -> None:
        """Remove items, but for those that have more to send."""
        gone: list[Item] = []
        with self.lock:
            for item, more in items:
                if more or item.changed:
                    self.queue.append(item)
                    continue
                self._open -= 1
                self.kept_bytes -= item.accounted
                item.held, item.accounted = False, 0
                if item.tried is not None:
                    gone.append(item)
            emptied = self._taken_when_empty()
        for item in gone:
            item.was_tried(True)
        if emptied is not None:
            emptied.set_result(None)

    def _taken_when_empty(self) -> Future[None] | None:
        """Take the future that is to be done now, if any is. Called with the lock."""
        if self._open:
            return None
        emptied, self._drained = self._drained, None
        return emptied
