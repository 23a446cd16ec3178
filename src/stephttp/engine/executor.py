"""Drives runs: claims what is due, calls the endpoints, applies their answers.

At most one call of a run is under way at a time, and beside it one for each of its planned steps;
at most `Settings.concurrency` of all. What falls due for a run whose endpoint is being called waits
in the table until the call is over. HTTP requests that steps ask for are made beside all that, at
most `Settings.gateway_concurrency` at a time.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from functools import partial
from random import Random

from stephttp.engine.live.alarm import Timers
from stephttp.engine.live.changes import Feed
from stephttp.engine.live.channels import Channels, failed_event
from stephttp.engine.live.waiters import FIRST_PHASE, Waiters
from stephttp.engine.logs import log_event
from stephttp.engine.metrics import Metrics
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import Failure, FailureKind, Moment
from stephttp.engine.model.run import Call, Change, Errand, RunStatus
from stephttp.engine.model.settings import Settings
from stephttp.engine.outbound.gateway import Gateway
from stephttp.engine.outbound.reentry_call import Caller
from stephttp.engine.rules.answers import Answer, OpsAnswer, PlainAnswer, read_answer
from stephttp.engine.store.store import Store, StoreClosedError
from stephttp.engine.work import run_work, save

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds of rest after the store failed (a full disk, say)."""


class Executor:
    """The part of the engine that acts of its own accord."""

    def __init__(
        self,
        store: Store,
        caller: Caller,
        gateway: Gateway,
        waiters: Waiters,
        channels: Channels,
        feed: Feed,
        clock: Clock,
        rng: Random,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._caller = caller
        self._gateway = gateway
        self._waiters = waiters
        self._channels = channels
        self._feed = feed
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._metrics = metrics
        self._timers = Timers(clock)
        self._calls: dict[run_work.Key, asyncio.Task[None]] = {}
        self._errands: dict[run_work.Key, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None
        self._looking = False
        self._draining = False
        self._since_ms = 0
        self._moved = asyncio.Event()
        self.begun: Callable[[str], None] = lambda run_id: None
        """Called with the id of each new run."""

    def moment(self) -> Moment:
        """The present, as transitions see it."""
        return Moment(self._clock.now_ms(), self._rng, self._settings)

    def start(self) -> None:
        """Begin; whatever is past due is simply due."""
        self._since_ms = self._clock.now_ms()
        self._timers.poke(self._since_ms)
        self._loop = asyncio.create_task(self._run(), name="stephttp-executor")

    async def stop(self) -> None:
        """Stop, and give up the calls that are under way; they are repeated at the next start."""
        tasks = [*self._calls.values(), *self._errands.values()]
        if self._loop is not None:
            tasks.append(self._loop)
            self._loop = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drain(self) -> None:
        """Call no further endpoints; the calls that are under way go on."""
        if not self._draining:
            self._draining = True
            log_event(log, logging.INFO, "engine.drain", "no new calls", calls=len(self._calls))

    async def quiet(self) -> None:
        """Return once no endpoint is being called; for after `drain`."""
        while self._looking or self._calls:
            self._moved.clear()
            await self._moved.wait()

    def follow(self, change: Change) -> None:
        """A change was stored: count it, and wake whom it concerns."""
        self._metrics.changed(change)
        self._feed.publish((change.run.run_id,))
        if change.began is not None:
            self.begun(change.run.run_id)
            if (deadline := self._settings.run_deadline) is not None:
                self._timers.poke(change.began.created_ms + round(deadline * 1000))
        if change.ended:
            run = change.run
            self._waiters.wake(run.run_id)
            if run.status is RunStatus.FAILED:
                self._channels.tee(run.run_id, failed_event(run.error or b"null"))
            log_event(
                log, logging.INFO, "run.end", "run ended", run_id=run.run_id, status=run.status
            )
        if change.run.status is not RunStatus.SYNC:
            self._waiters.wake(FIRST_PHASE + change.run.run_id)
        for timer in change.timers:
            self._timers.poke(timer.due_ms)
        for other in change.others:
            self.follow(other)

    @property
    def busy(self) -> frozenset[run_work.Key]:
        """What is being worked on."""
        return frozenset((*self._calls, *self._errands))

    @property
    def under_way(self) -> dict[str, int]:
        """How many calls of endpoints, and HTTP requests for steps, are being made."""
        return {"reentry": len(self._calls), "gateway": len(self._errands)}

    async def idle(self) -> None:
        """Return once nothing is due and no endpoint is being called."""
        while self._looking or self._calls or self._errands or self._timers.due_now:
            self._moved.clear()
            await self._moved.wait()

    async def _run(self) -> None:
        while True:
            await self._timers.wait()
            if self._draining:
                return
            self._looking = True
            try:
                await self._claim()
            except StoreClosedError:
                return
            except Exception as error:
                self._storage_failed(error, "cannot look for due work; trying again")
                await self._timers.pause(_PAUSE)
                self._timers.poke(self._clock.now_ms())
            finally:
                self._looking = False
                self._moved.set()

    async def _claim(self) -> None:
        self._timers.forget()
        slots = self._settings.concurrency - len(self._calls)
        unit = partial(
            run_work.claim,
            at=self.moment(),
            busy=self.busy,
            slots=slots,
            errands=self._settings.gateway_concurrency - len(self._errands),
            since_ms=self._since_ms,
        )
        claim = await self._store.write(unit, self._follow_claim)
        for call in claim.calls:
            task = asyncio.create_task(self._call(call), name=f"stephttp-call-{call.run_id}")
            self._calls[call.run_id, call.step_id] = task
        self._feed.publish([call.run_id for call in claim.calls])
        for errand in claim.errands:
            name = f"stephttp-gateway-{errand.run_id}"
            task = asyncio.create_task(self._fetch(errand), name=name)
            self._errands[errand.run_id, errand.step_id] = task
        if claim.next_due_ms is not None:
            self._timers.poke(claim.next_due_ms)

    def _follow_claim(self, claim: run_work.Claim) -> None:
        self._metrics.claimed(claim)
        for change in claim.ended:
            self.follow(change)

    async def _call(self, call: Call) -> None:
        try:
            begun_ms = self._clock.now_ms()
            answer = await self._caller.call(call)
            now_ms = self._clock.now_ms()
            outcome = read_answer(answer, now_ms) if isinstance(answer, Answer) else answer
            failure = outcome if isinstance(outcome, Failure) else None
            self._metrics.called(call.fn_id, failure, now_ms - begun_ms)
            _log_call(call, answer, failure, now_ms - begun_ms)
            try:
                await self._settle(call, outcome, begun_ms)
            except StoreClosedError:
                raise
            except Exception as error:
                # Calling again would bring the same answer, and run what it did once more.
                log.exception("the answer for run %s cannot be stored", call.run_id)
                message = f"the answer cannot be stored: {error}"
                failure = Failure(FailureKind.FINAL, "AnswerError", message)
                await self._settle(call, failure, begun_ms)
        except StoreClosedError:
            pass
        except Exception:
            # The `resume` row is still there, so nothing is lost; but not in a tight loop.
            log.exception("could not apply the answer for run %s; calling again", call.run_id)
            await self._timers.pause(_PAUSE)
        finally:
            del self._calls[call.run_id, call.step_id]
            self._timers.poke(self._clock.now_ms())
            self._moved.set()

    async def _fetch(self, errand: Errand) -> None:
        try:
            begun_ms = self._clock.now_ms()
            memo = await self._gateway.fetch(errand.spec)
            ok = not memo.startswith(b'{"error"')
            self._metrics.fetched(self._clock.now_ms() - begun_ms, ok=ok)
            unit = partial(save.deliver, run_id=errand.run_id, memos={errand.step_id: memo})
            await self._keep(errand.run_id, unit)
        except StoreClosedError:
            pass
        except Exception:
            # The `gateway` row is still there; the request will be made again.
            log.exception("could not store a gateway result of run %s", errand.run_id)
            await self._timers.pause(_PAUSE)
        finally:
            del self._errands[errand.run_id, errand.step_id]
            self._timers.poke(self._clock.now_ms())
            self._moved.set()

    async def _settle(
        self, call: Call, outcome: OpsAnswer | PlainAnswer | Failure, begun_ms: int
    ) -> None:
        unit = partial(run_work.settle, call=call, outcome=outcome, begun_ms=begun_ms)
        await self._keep(call.run_id, unit)

    async def _keep(self, run_id: str, unit: Callable[..., Change]) -> None:
        """Store what came of a call, however long that takes: asking again for it would mean to
        do the work again whose result is already here."""
        while True:
            try:
                await self._store.write(partial(unit, at=self.moment()), self.follow)
            except sqlite3.OperationalError as error:
                # The disk is full, or read-only, or fails.
                self._storage_failed(error, "holding an answer", run_id)
                await self._timers.pause(_PAUSE)
            else:
                return

    def _storage_failed(self, error: Exception, message: str, run_id: str | None = None) -> None:
        fault = None if isinstance(error, sqlite3.Error) else error
        log_event(log, logging.ERROR, "storage.failed", message, run_id=run_id, error=str(error))
        if fault is not None:
            log.error("unexpected", exc_info=fault)


def _log_call(call: Call, answer: Answer | Failure, failure: Failure | None, took_ms: int) -> None:
    # What an endpoint says of its failure may hold anything, so only what never reached one is
    # told in full.
    detail = answer.message if isinstance(answer, Failure) else None
    log_event(
        log,
        logging.INFO if failure is None else logging.WARNING,
        "reentry",
        "endpoint called",
        run_id=call.run_id,
        job_id=call.job_id,
        attempt=call.attempt,
        method=call.method,
        origin=call.domain,
        status=answer.status if isinstance(answer, Answer) else None,
        failure=failure.kind.value if failure else None,
        error=failure.name if failure else None,
        detail=detail,
        duration_ms=took_ms,
    )
