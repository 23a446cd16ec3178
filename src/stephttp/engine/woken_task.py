"""A task that works while there is something to do, and rests until it is woken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from stephttp.engine.live.tasks import cancelled
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Clock
from stephttp.engine.store.store import StoreClosedError

log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds of rest after the store failed


class WokenTask:
    """Does work that is stored, so that the next life of the engine finds what is left of it.

    Args:
        name: of the task.
        work: does all that there is to do.
        clock: the time.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._name = name
        self._work = work
        self._clock = clock
        self._wanted = asyncio.Event()
        self._rested = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, with what the last life of the engine has left."""
        self.wake()
        self._task = asyncio.create_task(self._run(), name=f"stephttp-{self._name}")

    async def stop(self) -> None:
        """Stop; the rest is done after the next start."""
        task, self._task = self._task, None
        await cancelled(task)

    def wake(self) -> None:
        """Look for work; call it after the transaction that has left some."""
        self._rested.clear()
        self._wanted.set()

    @property
    def rests(self) -> bool:
        """Say whether nothing is left to be done."""
        return self._rested.is_set()

    async def idle(self) -> None:
        """Return once nothing is left to be done."""
        await self._rested.wait()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._work()
            except StoreClosedError:
                return
            except Exception as error:
                log_event(
                    log, logging.ERROR, f"{self._name}.failed", "trying again later",
                    error=str(error),
                )  # fmt: skip
                await self._clock.wait_for(_PAUSE)
                self._wanted.set()
            if not self._wanted.is_set():
                self._rested.set()
