"""Starts functions whose held events are due (`debounce`, `batchEvents`), in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from stephttp.engine.live.tasks import cancelled
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Alarm, Clock
from stephttp.engine.model.inputs import Moment
from stephttp.engine.store.store import Store, StoreClosedError
from stephttp.engine.work import due_starts, holding
from stephttp.engine.work.save import Started

log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds of rest after the store failed


class Starter:
    """A task that waits until held events are due, and starts what they start.

    Args:
        store: the database.
        clock: the time.
        moment: returns the present, as transitions see it.
        follow: called with what each transaction has started, once it is committed.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        moment: Callable[[], Moment],
        follow: Callable[[Started], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._moment = moment
        self._follow = follow
        self._alarm = Alarm(clock)
        self._looking = False
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, with what fell due while no engine ran."""
        self._alarm.set(self._clock.now_ms())
        self._task = asyncio.create_task(self._run(), name="stephttp-starter")

    async def stop(self) -> None:
        """Stop; what is held stays so until the next start."""
        task, self._task = self._task, None
        await cancelled(task)

    def expect(self, due_ms: int) -> None:
        """Note when held events are due; call it after the transaction that has stored them."""
        self._alarm.set(due_ms)

    @property
    def rests(self) -> bool:
        """Say whether nothing is due."""
        return not (self._looking or self._alarm.due_now)

    async def idle(self) -> None:
        """Return once nothing is due."""
        while not self.rests:
            self._moved.clear()
            await self._moved.wait()

    async def _run(self) -> None:
        while True:
            await self._alarm.wait()
            self._looking = True
            try:
                await self._look()
            except StoreClosedError:
                return
            except Exception as error:
                log_event(
                    log, logging.ERROR, "start.failed", "trying again later", error=str(error)
                )
                await self._clock.wait_for(_PAUSE)
                self._alarm.set(self._clock.now_ms())
            finally:
                self._looking = False
                self._moved.set()

    async def _look(self) -> None:
        # Before the table is read: an alarm that is set from then on may belong to events that
        # the reading did not see.
        self._alarm.clear()
        now_ms = self._clock.now_ms()
        found, next_ms = await self._store.browse(partial(holding.due, now_ms=now_ms))
        if found:
            planned = await asyncio.to_thread(due_starts.plan, found, now_ms)
            unit = partial(due_starts.begin, planned=planned, at=self._moment())
            started = await self._store.write(unit, self._follow)
            for why, _ in started.refused:
                log_event(
                    log, logging.WARNING, "start.refused", "held events start nothing",
                    reason=why.reason,
                )  # fmt: skip
            next_ms = self._clock.now_ms()  # there may be more
        if next_ms is not None:
            self._alarm.set(next_ms)
