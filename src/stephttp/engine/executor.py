"""Calls endpoints when they are due (re-entries), and makes the HTTP requests of steps: claims,
concurrency, and what came of each.

At most one call of a run is under way at a time, and beside it one for each of its planned steps;
at most `Settings.concurrency` of all, and no more than the gates of a run have room for. Timers
that fall due while the endpoint of their run is being called wait in the table until the call is
over. HTTP requests for steps are made beside all that, at most `Settings.gateway_concurrency` at a
time. Origins share both numbers (`live.slots`).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial

from stephttp.engine.live.changes import AfterCommit, Changes
from stephttp.engine.live.slots import Gates, Origins, Shares, TaskKey
from stephttp.engine.logs import log_event
from stephttp.engine.metrics import Metrics
from stephttp.engine.model.call import EndpointCall, GatewayRequest
from stephttp.engine.model.change import Change
from stephttp.engine.model.clock import Alarm, Clock
from stephttp.engine.model.inputs import UNANSWERED, CallFailure, FailureKind, Moment
from stephttp.engine.model.settings import Settings
from stephttp.engine.outbound.gateway import Gateway
from stephttp.engine.outbound.reentry_call import EndpointCaller, log_call
from stephttp.engine.resting import Resting
from stephttp.engine.rules.answers import HTTPResponse, read_answer
from stephttp.engine.rules.functions.function_answers import read_function_answer
from stephttp.engine.store.store import Store, StoreClosedError
from stephttp.engine.work import due
from stephttp.engine.work.settle import Outcome, settle, settle_request

log = logging.getLogger(__name__)
_Tasks = dict[TaskKey, "asyncio.Task[None]"]
_Work = Callable[[], Awaitable[None]]

_PAUSE = 1.0  # seconds of rest after the store failed (a full disk, say)


class Executor:
    """Does what is due.

    One task waits for the alarm, claims due work in one transaction, and starts a task for each
    call. That stores the outcome, frees its slot and sets the alarm, so that the next claim sees
    what is due for the same run. All this happens in the event loop, units of work beside it.
    """

    def __init__(
        self,
        store: Store,
        caller: EndpointCaller,
        gateway: Gateway,
        metrics: Metrics,
        changes: Changes,
        alarm: Alarm,
        after: AfterCommit,
        moment: Callable[[], Moment],
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._store = store
        self._caller = caller
        self._gateway = gateway
        self._metrics = metrics
        self._changes = changes
        self._alarm = alarm
        self._after = after
        self._moment = moment
        self._clock = clock
        self._settings = settings
        self.gates = Gates()
        self._resting = Resting(store, clock, self.gates)
        self._calls: _Tasks = {}
        self._http_steps: _Tasks = {}
        self.origins = Origins()
        self._gateway_origins = Origins()
        self._loop: asyncio.Task[None] | None = None
        self._looking = False
        self._draining = False
        self._since_ms = 0
        self._moved = asyncio.Event()

    def start(self) -> None:
        """Start to work; work that fell due while no engine ran is done now."""
        self._since_ms = self._clock.now_ms()
        self._resting.begin(self._since_ms)
        self._alarm.set(self._since_ms)
        self._loop = asyncio.create_task(self._run(), name="stephttp-executor")

    async def stop(self) -> None:
        """Stop, and give up the calls that are under way; they are repeated at the next start."""
        loop, self._loop = self._loop, None
        tasks = [*self._calls.values(), *self._http_steps.values(), *([loop] if loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drain(self) -> None:
        """Call no further endpoints; the calls that are under way continue."""
        if not self._draining:
            self._draining = True
            log_event(log, logging.INFO, "engine.drain", "no new calls", calls=len(self._calls))

    async def quiet(self) -> None:
        """Return once no endpoint is being called; for after `drain`."""
        await self._until(lambda: not (self._looking or self._calls))

    @property
    def busy(self) -> frozenset[TaskKey]:
        """Return the tasks that are under way."""
        return frozenset((*self._calls, *self._http_steps))

    @property
    def under_way(self) -> dict[str, int]:
        """Count the calls of endpoints, and HTTP requests for steps, that are under way."""
        return {"reentry": len(self._calls), "gateway": len(self._http_steps)}

    async def idle(self) -> None:
        """Return once nothing is due and no endpoint is being called."""
        await self._until(lambda: self.rests)

    @property
    def rests(self) -> bool:
        """Say whether nothing is due and no endpoint is being called."""
        return not (self._looking or self.busy or self._alarm.due_now)

    async def looked(self) -> None:
        """Return once all that can be taken up now is under way."""
        await self._until(lambda: not (self._looking or self._alarm.due_now))

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._moved.clear()
            await self._moved.wait()

    async def _run(self) -> None:
        while True:
            await self._alarm.wait()
            if self._draining:
                return
            self._looking = True
            try:
                await self._claim()
            except StoreClosedError:
                return
            except Exception as error:
                self._storage_failed(error, "cannot look for due work; trying again")
                await self._clock.wait_for(_PAUSE)
                self._alarm.set(self._clock.now_ms())
            finally:
                self._looking = False
                self._moved.set()

    async def _claim(self) -> None:
        # Clear the alarm before the table is read, not after: a timer that is stored in between is
        # not among the rows, and its alarm would be lost.
        self._alarm.clear()
        resting = () if self._resting.until is None else await self._resting.keys()
        room = self.gates.look(self._clock.now_ms())
        unit = partial(
            due.claim,
            at=self._moment(),
            busy=self.busy.union(resting),
            slots=Shares(self._settings.concurrency, self.origins.used, self.origins.trying),
            gateway_slots=Shares(self._settings.gateway_concurrency, self._gateway_origins.used),
            room=room,
            since_ms=self._since_ms,
        )
        try:
            claim = await self._store.write(unit, self._follow_claim)
        except BaseException:
            self.gates.reopen()
            raise
        self.gates.looked(room)
        for call in claim.calls:
            name, key = f"stephttp-call-{call.run_id}", (call.run_id, call.step_id)
            self.origins.begin(call.domain)
            self.gates.begin(call.gates)
            over = partial(self._over, call)
            work = self._work(self._calls, key, partial(self._call, call), over)
            self._calls[key] = asyncio.create_task(work, name=name)
        self._changes.publish([call.run_id for call in claim.calls])
        for request in claim.http_steps:
            name, key = f"stephttp-gateway-{request.run_id}", (request.run_id, request.step_id)
            self._gateway_origins.begin(request.origin)
            over = partial(self._gateway_origins.end, request.origin)
            work = self._work(self._http_steps, key, partial(self._fetch, request), over)
            self._http_steps[key] = asyncio.create_task(work, name=name)
        for due_ms in (claim.next_due_ms, self._resting.due_ms, self.gates.opening_ms):
            if due_ms is not None:
                self._alarm.set(due_ms)

    def limits_changed(self) -> None:
        """Look again at all that waits for a gate."""
        self.gates.reopen()
        self._alarm.set(self._clock.now_ms())

    def _over(self, call: EndpointCall) -> None:
        self.origins.end(call.domain)
        self.gates.end(call.gates)

    def _follow_claim(self, claim: due.DueWork) -> None:
        self._metrics.claimed(claim)
        self._after.follow_all(claim.ended)

    async def _work(
        self, tasks: _Tasks, key: TaskKey, work: _Work, over: Callable[[], None]
    ) -> None:
        """Do the work of a task, then free its slot and look for what fell due meanwhile."""
        try:
            await work()
        except StoreClosedError:
            pass
        except Exception:
            # The timer's row is still there, so the work is done again, but not in a tight loop.
            log.exception("the outcome for run %s cannot be stored; trying again", key[0])
            await self._clock.wait_for(_PAUSE)
        finally:
            del tasks[key]
            over()
            self._alarm.set(self._clock.now_ms())
            self._moved.set()

    async def _call(self, call: EndpointCall) -> None:
        begun_ms = self._clock.now_ms()
        try:
            answer = await self._caller.call(call)
        finally:
            reached = self._caller.forget(call)
        now_ms = self._clock.now_ms()
        outcome: Outcome
        if not isinstance(answer, HTTPResponse):
            outcome = answer
        elif call.function is None:
            outcome = read_answer(answer, now_ms, reached=reached)
        else:
            outcome = read_function_answer(answer, call, call.function, now_ms)
        failure = outcome if isinstance(outcome, CallFailure) else None
        silent = failure is not None and failure.kind in UNANSWERED
        answered = isinstance(answer, HTTPResponse) and not silent
        self.origins.heard(call.domain, answered=answered)
        self._metrics.called(call.fn_id, failure, now_ms - begun_ms)
        log_call(call, answer, failure, now_ms - begun_ms)
        try:
            await self._settle(call, outcome, begun_ms)
        except StoreClosedError:
            raise
        except Exception as error:
            # Calling again would bring the same answer, and repeat what the handler did.
            log.exception("the answer for run %s cannot be stored", call.run_id)
            message = f"the answer cannot be stored: {error}"
            failure = CallFailure(FailureKind.FINAL, "AnswerError", message)
            await self._settle(call, failure, begun_ms)

    async def _fetch(self, request: GatewayRequest) -> None:
        begun_ms = self._clock.now_ms()
        outcome = await self._gateway.fetch(request.spec)
        ok = not outcome.memo.startswith(b'{"error"')
        self._metrics.fetched(self._clock.now_ms() - begun_ms, ok=ok)
        unit = partial(settle_request, request=request, outcome=outcome, begun_ms=begun_ms)
        await self._keep(request.run_id, unit)

    async def _settle(self, call: EndpointCall, outcome: Outcome, begun_ms: int) -> None:
        unit = partial(settle, call=call, outcome=outcome, begun_ms=begun_ms)
        await self._keep(call.run_id, unit)

    async def _keep(self, run_id: str, unit: Callable[..., Change]) -> None:
        """Store the outcome of a call; try until that succeeds, since a new call would redo it."""
        while True:
            try:
                await self._store.write(partial(unit, at=self._moment()), self._after.follow)
            except sqlite3.OperationalError as error:
                # The disk is full, or read-only, or fails.
                self._storage_failed(error, "holding an answer", run_id)
                await self._clock.wait_for(_PAUSE)
            else:
                return

    def _storage_failed(self, error: Exception, message: str, run_id: str | None = None) -> None:
        log_event(log, logging.ERROR, "storage.failed", message, run_id=run_id, error=str(error))
        if not isinstance(error, sqlite3.Error):
            log.error("unexpected", exc_info=error)
