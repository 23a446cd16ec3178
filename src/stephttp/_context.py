"""The run that the current code belongs to, and what joins the pure core to the world.

A `RunScope` is one run in one call of the handler, with the clock, the event loop and the lock
that the core does not have.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from stephttp._core import codec
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.run import Run, Step, Verdict
from stephttp.errors import NestedStepError, OutsideRunError, Suspended, UsageError

current_run: ContextVar[RunScope | None] = ContextVar("stephttp_run", default=None)
_inside_step: ContextVar[tuple[RunScope, str] | None] = ContextVar("stephttp_step", default=None)

_ENOUGH = "the run goes on in a later call"
"""Message of our own cancellations, to know them from others'."""

Claim = Callable[[], Awaitable[bool]]

SETTLE_TICKS = 16
"""Turns of the event loop after which code that only passes results on (gather, task groups,
nested in each other) has come to its next step: each level of nesting takes two or three."""


class RunScope:
    """One run in one call of the handler, on one event loop.

    Args:
        run: its state machine.
        now_ns: the clock, nanoseconds since the epoch.
        on_record: called on the event loop when a step of a resumed run was recorded.
    """

    __slots__ = (
        "_cancelling",
        "_ended_by_us",
        "_lock",
        "_loop",
        "_parked",
        "_quiet",
        "_settling",
        "_task",
        "_thread",
        "checkpointing",
        "claim",
        "claimer",
        "configured",
        "deadline_ns",
        "fn_id",
        "now_ns",
        "on_first_step",
        "on_record",
        "run",
        "started_ns",
    )

    def __init__(
        self,
        run: Run,
        now_ns: Callable[[], int],
        on_record: Callable[[], None] | None = None,
        checkpointing: Checkpointing = Checkpointing.performant,
    ) -> None:
        self.run = run
        self.now_ns = now_ns
        self.fn_id = ""
        self.configured = False
        self.checkpointing = checkpointing
        self.on_record = on_record
        self.on_first_step: Callable[[], None] | None = None
        """Called on the event loop, once, when the body of a first step is about to run."""
        self.claim: Claim | None = None
        """What has to be settled before the first step: whether this run is to answer at all."""
        self.claimer: Callable[[str], Awaitable[bool]] | None = None
        """Claims an idempotency key; `None` where that was done before."""
        self.started_ns = now_ns()
        self.deadline_ns: int | None = None
        self.limit(checkpointing.max_runtime)
        self._lock = threading.Lock()  # `def` routes run their steps in worker threads
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._task = asyncio.current_task()
        # Compared to, because a task group that failed leaves a count of its own behind (fixed in
        # Python 3.13), and so may whoever called us.
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._ended_by_us = False
        self._quiet: asyncio.Future[None] | None = None
        self._settling = 0
        self._parked: set[asyncio.Future[None]] = set()

    def meet(self, step_id: str, handler: Callable[..., Any]) -> StepCall:
        """Come to a step that runs in this process."""
        self._refuse_nesting(step_id)
        if self.deadline_ns is not None and self.now_ns() >= self.deadline_ns:
            self.run.expired = True
        with self._lock:
            step = self.run.begin(step_id)
        if self.on_first_step is not None and step.verdict is Verdict.EXECUTE:
            hook, self.on_first_step = self.on_first_step, None
            self._on_loop(hook)
        return StepCall(self, step, codec.return_annotation(handler))

    def sleep(self, step_id: str, until: timedelta | datetime) -> StepCall:
        """Come to a sleep."""
        self._refuse_nesting(step_id)
        with self._lock:
            step = self.run.sleep(step_id, until)
        return StepCall(self, step, Any)

    async def park(self) -> None:
        """Wait where the handler cannot go on, until it is ended. Never returns."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._parked.add(future)
        self._settle()
        try:
            if self._task is None:
                future.cancel()
            await future
        finally:
            self._parked.discard(future)

    def leave(self, waiting_for: str) -> Suspended:
        """The blocking counterpart of `park`: an exception for the caller to raise."""
        with self._lock:
            self.run.unwind()
        return Suspended(f"step {waiting_for!r}")

    def recorded(self) -> None:
        """A step's end was recorded: pass it on, and see whether the handler can still progress."""
        if self.on_record is not None or self.run.suspended:
            self._on_loop(self._after_record)

    def limit(self, max_runtime: timedelta | None) -> None:
        """Let the server go on after so long, counted from the start of this call."""
        self.deadline_ns = (
            None
            if max_runtime is None
            else self.started_ns + max_runtime // timedelta(microseconds=1) * 1000
        )

    async def settle_claim(self) -> bool:
        """Settle `claim`, once; whether this run goes on. If not, the caller has to wait."""
        if self.claim is None or await self.claim():
            self.claim = None
            return True
        self.run.give_way()
        return False

    def settle_claim_blocking(self) -> bool:
        """The same for handlers in threads."""
        if threading.get_ident() == self._thread:
            raise UsageError(
                "a blocking step tool on the event loop cannot wait for an idempotency key; use "
                "the tools of stephttp.step in `async def` handlers"
            )
        return asyncio.run_coroutine_threadsafe(self.settle_claim(), self._loop).result()

    def _on_loop(self, call: Callable[[], None]) -> None:
        if threading.get_ident() == self._thread:
            call()
        else:
            self._loop.call_soon_threadsafe(call)

    def close(self, error: BaseException | None) -> bool:
        """The handler has ended, with or without `error`: release whatever is still parked.

        Returns:
            Whether somebody else wants the current task cancelled.
        """
        task, self._task = self._task, None
        for future in self._parked:
            future.cancel(_ENOUGH)
        if task is None or not self._ended_by_us:
            return isinstance(error, asyncio.CancelledError) and error.args != (_ENOUGH,)
        if task.cancelling() > self._cancelling:
            task.uncancel()
        return task.cancelling() > self._cancelling

    async def quiet(self) -> None:
        """After `close`: no further step starts, and those that still run are waited for.

        A handler can leave steps behind, in tasks or threads that it does not wait for. What they
        give belongs to the run.
        """
        with self._lock:
            self.run.unwind()
        if not self.run.settled:
            self._quiet = self._loop.create_future()
            await self._quiet

    def _after_record(self) -> None:
        if self.on_record is not None:
            self.on_record()
        if self._quiet is not None and self.run.settled and not self._quiet.done():
            self._quiet.set_result(None)
        self._settle()

    def _settle(self) -> None:
        if self.run.suspended and self.run.settled:
            if not self._settling:
                self._loop.call_soon(self._tick)
            self._settling = SETTLE_TICKS

    def _tick(self) -> None:
        """End the handler once it has waited, without running a step, for long enough.

        The handler's own task is cancelled, so that `gather`, task groups, cancel scopes and
        `finally` blocks do what they do for any cancellation, in their order. That is done once,
        and not at all if somebody else did it: a second cancellation would hit clean-up that
        awaits something. What is parked all the same, because code on the way caught the first,
        is then cancelled where it is parked.
        """
        self._settling -= 1
        if self._task is None or not self.run.settled:
            self._settling = 0
        elif self._settling:
            self._loop.call_soon(self._tick)
        elif self._parked and not self._ended_by_us and self._task.cancelling() <= self._cancelling:
            self.run.unwind()
            self._ended_by_us = True
            self._task.cancel(_ENOUGH)
            self._settle()
        else:
            self.run.unwind()
            for future in self._parked:
                future.cancel(_ENOUGH)

    def _refuse_nesting(self, step_id: str) -> None:
        outer = _inside_step.get()
        if outer is not None and outer[0] is self:
            raise NestedStepError(
                f"step {step_id!r} was called inside the body of step {outer[1]!r}; call it before "
                "or after, or call the plain function"
            )


class StepCall:
    """One step of one run, and the attempt to execute it as a context manager."""

    __slots__ = (
        "_annotation",
        "_raw",
        "_scope",
        "_started",
        "_step",
        "_token",
        "_value",
        "suspended",
    )

    def __init__(self, scope: RunScope, step: Step, annotation: Any) -> None:
        self._scope = scope
        self._step = step
        self._annotation = annotation
        self._raw: bytes | None = None
        self.suspended = step.verdict is Verdict.SUSPEND

    @property
    def executes(self) -> bool:
        """Whether the step's body has to run now."""
        return self._step.verdict is Verdict.EXECUTE

    def complete(self, value: Any) -> None:
        """The body returned `value`. Raises `StepResultError` when that cannot be stored."""
        raw = codec.encode_result(value, self._step.step_id)
        self._value = codec.decode_result(raw, self._annotation, self._step.step_id)
        self._raw = raw

    def result(self) -> Any:
        """What the handler gets: the value, or the remembered failure as `StepError`."""
        if self._raw is not None:
            return self._value
        memo = self._step.memo
        assert memo is not None, "a step that neither ran nor is remembered has no result"
        if memo.error is not None:
            raise codec.step_error(memo.error)
        return codec.decode_result(memo.raw, self._annotation, self._step.step_id)

    def __enter__(self) -> None:
        self._token: Token[Any] = _inside_step.set((self._scope, self._step.step_id))
        self._started = self._scope.now_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        _inside_step.reset(self._token)
        scope, run, step = self._scope, self._scope.run, self._step
        duration = max(0, scope.now_ns() - self._started)
        info = codec.error_info(error) if isinstance(error, Exception) else None
        with scope._lock:
            if self._raw is not None:
                run.complete(step, self._raw, self._started, duration)
            elif info is not None:
                self.suspended = run.fail(step, info, self._started, duration) is Verdict.SUSPEND
            else:
                run.abandon(step)
        scope.recorded()
        return self.suspended


def run_scope(tool: str) -> RunScope:
    """The current run, for a tool that cannot do without one.

    Raises:
        OutsideRunError: there is none.
    """
    scope = current_run.get()
    if scope is None:
        raise OutsideRunError(
            f"step.{tool} was called outside a request that passes through the stephttp "
            "middleware, so there is nothing that could wait; wrap the application with "
            "provider.asgi(app), or call it from a handler"
        )
    return scope
