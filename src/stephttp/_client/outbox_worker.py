"""Sends what is in the outbox, in batches if the server takes them, and tries again while the
server is away.

The work is a flow, so that it is done by tasks of an event loop or by threads alike. A server that
takes batches gets them from one worker, one after the other: what piles up while one is under way
is the next. A server that does not is sent single items by a few workers. What one item has to say
(a run that still runs may add to it) is sent in its order, because an item is in one place only:
in the queue, or held by a worker.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from stephttp._client.background import Job
from stephttp._client.flow import Flow, Pause
from stephttp._client.outbox_batch import BATCH_ITEMS, Parcel, pack, refused_for_good
from stephttp.errors import APIError, APIStatusError

if TYPE_CHECKING:
    from stephttp._client.outbox import Item, Outbox

logger = logging.getLogger("stephttp")

LINGER = 0.02
"""Seconds that a batch waits for company; benchmarks/bench_batches.py shows what it brings."""
AWAY_PAUSE = 5.0
"""Seconds between attempts while the server is away, on top of a call's own retries."""


class Worker(Struct, eq=False):
    """One that empties an outbox. The outbox's lock guards the state that several share."""

    outbox: Outbox
    once: bool
    """Whether it ends where the server is away, if another worker will try again."""
    job: Job[None] | None = None
    """`None` while it is about to be started."""
    under_way: list[tuple[Item, Parcel]] | None = None
    """What it is sending."""
    pauses: bool = False
    """Whether it lets some time pass, because the server is away."""

    def work(self) -> Flow[None]:
        """Send what is in the queue."""
        outbox = self.outbox
        while self._has_work():
            few = len(outbox.queue) < BATCH_ITEMS
            if outbox.batches() and not outbox.alone and few and not self._is_awaited():
                yield Pause(LINGER)
            batch = self._next()
            if not batch:
                continue
            try:
                results = yield from outbox.deliver(batch)
            except APIError as error:
                results = self._failed(batch, error)
            except Exception as error:
                logger.exception("stephttp: finished runs could not be delivered and are dropped")
                results = [APIStatusError(f"not sent: {error}", 400)] * len(batch)
            except BaseException:
                with outbox.lock:
                    if self in outbox.workers:  # else the items are no longer this outbox's
                        self.give_back()
                raise
            with outbox.lock:
                taken_over, self.under_way = self not in outbox.workers, None
            if taken_over:
                return
            if not self._settle(batch, results):
                if self.once and self._leave_to_others():
                    return
                yield from self._pause()

    def give_back(self) -> None:
        """Put what is under way back into the queue. Called with the outbox's lock."""
        batch, self.under_way, self.pauses = self.under_way or (), None, False
        self.outbox.queue.extendleft(item for item, _ in reversed(batch))

    def _leave_to_others(self) -> bool:
        """End where there are others. Return whether this one has ended."""
        with self.outbox.lock:
            others = len(self.outbox.workers) > 1
            if others:
                self.outbox.workers.discard(self)
            return others

    def _pause(self) -> Flow[None]:
        """Let some time pass, because the server is away."""
        with self.outbox.lock:
            self.pauses = True
        try:
            yield Pause(AWAY_PAUSE)
        finally:
            with self.outbox.lock:
                self.pauses = False

    def _is_awaited(self) -> bool:
        """Return whether a caller waits until an item of the queue is delivered."""
        with self.outbox.lock:
            return any(item.awaited for item in self.outbox.queue)

    def _has_work(self) -> bool:
        """Return whether there is work. If not, this worker has ended; the next item starts one."""
        outbox = self.outbox
        with outbox.lock:
            if not outbox.queue:
                outbox.workers.discard(self)
            return bool(outbox.queue) and self in outbox.workers

    def _next(self) -> list[tuple[Item, Parcel]]:
        """Take what the next request carries from the queue."""
        outbox = self.outbox
        limit = BATCH_ITEMS if outbox.batches() and not outbox.alone else 1
        outbox.alone = max(0, outbox.alone - 1)
        with outbox.lock:
            if self not in outbox.workers:  # taken over
                return []
            items = [outbox.queue.popleft() for _ in range(min(limit, len(outbox.queue)))]
            for item in items:
                item.changed = False
        batch, silent, left = pack(items)
        with outbox.lock:
            outbox.queue.extendleft(reversed(left))
            if batch:
                self.under_way = batch
        outbox.remove([(item, False) for item in silent])
        return batch

    def _failed(
        self, batch: Sequence[tuple[Item, Parcel]], error: APIError
    ) -> Sequence[APIError | None]:
        """Return what became of each item of a batch that was not delivered."""
        if refused_for_good(error) and len(batch) > 1:
            self.outbox.alone = len(batch)  # to find out which of them it is
            error = APIError("to be sent alone")
        return [error] * len(batch)

    def _settle(
        self, batch: Sequence[tuple[Item, Parcel]], results: Sequence[APIError | None]
    ) -> bool:
        """Settle the items of a batch. Return whether to send the next at once."""
        outbox = self.outbox
        again: list[Item] = []
        done: list[tuple[Item, bool]] = []
        for (item, _), error in zip(batch, results, strict=True):
            if error is not None and not refused_for_good(error):
                again.append(item)
            else:
                done.append((item, item.delivered(error)))
        outbox.remove(done)
        with outbox.lock:
            outbox.queue.extendleft(reversed(again))
            away = len(again) == len(batch) and not outbox.alone
            tried = list(outbox.queue) if away else again
        for item in tried:
            item.was_tried(False)
        if not away:
            outbox.is_away = False
            return True
        level = logging.INFO if outbox.is_away else logging.WARNING
        outbox.is_away = True
        logger.log(
            level, "stephttp: %d finished runs wait: %s", outbox.depth, results[0],
            extra={"outbox_depth": outbox.depth, "outbox_bytes": outbox.kept_bytes},
        )  # fmt: skip
        return False
