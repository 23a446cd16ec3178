"""Drives runs: claims what is due, calls the endpoints, applies their answers.

At most one call of a run is under way at a time, and at most `Settings.concurrency` of all. What
falls due for a run whose endpoint is being called waits in the table until the call is over.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from functools import partial
from random import Random

from stephttp.engine import work
from stephttp.engine.answers import Answer, OpsAnswer, PlainAnswer, read_answer
from stephttp.engine.caller import Caller
from stephttp.engine.clock import Clock
from stephttp.engine.happenings import Failure, FailureKind, Moment
from stephttp.engine.models import Call, Change, RunStatus
from stephttp.engine.output import FIRST_PHASE, Waiters
from stephttp.engine.settings import Settings
from stephttp.engine.store import Store, StoreClosedError
from stephttp.engine.timers import Timers

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds of rest after the store failed (a full disk, say)."""


class Executor:
    """The part of the engine that acts of its own accord."""

    def __init__(
        self,
        store: Store,
        caller: Caller,
        waiters: Waiters,
        clock: Clock,
        rng: Random,
        settings: Settings,
    ) -> None:
        self._store = store
        self._caller = caller
        self._waiters = waiters
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._timers = Timers(clock)
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._slot = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._looking = False
        self._moved = asyncio.Event()

    def moment(self) -> Moment:
        """The present, as transitions see it."""
        return Moment(self._clock.now_ms(), self._rng, self._settings)

    def start(self) -> None:
        """Begin; whatever is past due is simply due."""
        self._timers.poke(self._clock.now_ms())
        self._loop = asyncio.create_task(self._run(), name="stephttp-executor")

    async def stop(self) -> None:
        """Stop, and give up the calls that are under way; they are repeated at the next start."""
        tasks = [*self._calls.values()]
        if self._loop is not None:
            tasks.append(self._loop)
            self._loop = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, change: Change) -> None:
        """A change was stored: wake whom it concerns."""
        if change.ended:
            self._waiters.wake(change.run.run_id)
        if change.run.status is not RunStatus.SYNC:
            self._waiters.wake(FIRST_PHASE + change.run.run_id)
        for timer in change.timers:
            self._timers.poke(timer.due_ms)
        for other in change.others:
            self.follow(other)

    async def idle(self) -> None:
        """Return once nothing is due and no endpoint is being called."""
        while self._looking or self._calls or self._timers.due_now:
            self._moved.clear()
            await self._moved.wait()

    async def _run(self) -> None:
        while True:
            await self._timers.wait()
            while len(self._calls) >= self._settings.concurrency:
                self._slot.clear()
                await self._slot.wait()
            self._looking = True
            try:
                await self._claim()
            except StoreClosedError:
                return
            except Exception:
                log.exception("could not look for due work; trying again")
                await self._timers.pause(_PAUSE)
                self._timers.poke(self._clock.now_ms())
            finally:
                self._looking = False
                self._moved.set()

    async def _claim(self) -> None:
        self._timers.forget()
        slots = self._settings.concurrency - len(self._calls)
        unit = partial(work.claim, at=self.moment(), busy=frozenset(self._calls), slots=slots)
        claim = await self._store.write(unit)
        for call in claim.calls:
            task = asyncio.create_task(self._call(call), name=f"stephttp-call-{call.run_id}")
            self._calls[call.run_id] = task
        if claim.next_due_ms is not None:
            self._timers.poke(claim.next_due_ms)

    async def _settle(self, call: Call, outcome: OpsAnswer | PlainAnswer | Failure) -> None:
        unit = partial(work.settle, run_id=call.run_id, outcome=outcome, at=self.moment())
        await self._store.write(unit, self.follow)

    async def _call(self, call: Call) -> None:
        try:
            answer = await self._caller.call(call)
            now_ms = self._clock.now_ms()
            outcome = read_answer(answer, now_ms) if isinstance(answer, Answer) else answer
            try:
                await self._settle(call, outcome)
            except (sqlite3.DataError, ValueError, OverflowError) as error:
                log.exception("the answer for run %s cannot be stored", call.run_id)
                message = f"the answer cannot be stored: {error}"
                await self._settle(call, Failure(FailureKind.FINAL, "AnswerError", message))
        except StoreClosedError:
            pass
        except Exception:
            # The `resume` row is still there, so nothing is lost; but not in a tight loop.
            log.exception("could not apply the answer for run %s; calling again", call.run_id)
            await self._timers.pause(_PAUSE)
        finally:
            del self._calls[call.run_id]
            self._slot.set()
            self._timers.poke(self._clock.now_ms())
            self._moved.set()
