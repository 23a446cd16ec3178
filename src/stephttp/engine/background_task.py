"""A task that works on what is stored: it rests until it is woken, or until something is due."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from stephttp.engine.live.tasks import cancelled
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import SET_BACK_MS, Clock
from stephttp.engine.store.store import StoreClosedError

log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds of rest after the store failed (a full disk, say)


class BackgroundTask(ABC):
    """Does work that is stored, so that the next life of the engine finds what is left of it.

    A subclass says what the work is, in `_look`. What it knows of the time is in step with the
    tables by two rules: `wake` or `expect` is called after a transaction has left something to be
    done, and what was known is forgotten before the tables are read.

    Args:
        name: of the task, and of its events in the log.
        clock: the time.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._wanted = False
        self._due_ms: int | None = None
        self._looking = False
        self._looked_ms = 0
        self._moved = asyncio.Event()
        """The time to look at the tables again may have changed."""
        self._rested = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _look(self) -> int | None:
        """Do all that is to be done now.

        Returns:
            When there will be more, as far as is known; `None`: not before it is woken.
        """

    def start(self) -> None:
        """Start, with what the last life of the engine has left, and what fell due since."""
        self.wake()
        self._task = asyncio.create_task(self._run(), name=f"stephttp-{self._name}")

    async def stop(self) -> None:
        """Stop; the rest is done after the next start."""
        task, self._task = self._task, None
        await cancelled(task)

    def wake(self) -> None:
        """Look for work; call it after the transaction that has left some."""
        self._wanted = True
        self._moved.set()

    def expect(self, due_ms: int) -> None:
        """Note when work is due; call it after the transaction that has left it."""
        if self._due_ms is None or due_ms < self._due_ms:
            self._due_ms = due_ms
            self._moved.set()

    @property
    def rests(self) -> bool:
        """Say whether nothing is to be done now."""
        return not (self._looking or self.must_look)

    async def idle(self) -> None:
        """Return once nothing is to be done."""
        while not self.rests:
            self._rested.clear()
            await self._rested.wait()

    @property
    def must_look(self) -> bool:
        """Say whether there may be work that it has not begun."""
        now_ms = self._clock.now_ms()
        is_due = self._due_ms is not None and self._due_ms <= now_ms
        # A clock that was set back by much had been wrong, and so is what was worked out with it.
        return self._wanted or is_due or now_ms < self._looked_ms - SET_BACK_MS

    async def _run(self) -> None:
        while True:
            self._looking = True
            self._wanted, self._due_ms = False, None
            self._looked_ms = self._clock.now_ms()
            try:
                due_ms = await self._look()
                if due_ms is not None:
                    self.expect(due_ms)
            except StoreClosedError:
                return
            except Exception as error:
                log_event(
                    log, logging.ERROR, f"{self._name}.failed", "trying again later",
                    error=str(error),
                )  # fmt: skip
                await self._clock.wait_for(_PAUSE)
                self.wake()
            self._looking = False
            self._rested.set()
            while not self.must_look:
                self._moved.clear()
                await self._clock.wait_until(self._due_ms, self._moved)
