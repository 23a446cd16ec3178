"""The run that the current code belongs to, and what joins the pure core to the world.

A `RunScope` is one run in one call of the handler, with the clock and the lock that the core does
not have. Where the handler lives, on an event loop or in a thread, is the adapters' business: each
has its own kind (`_asgi.scope`, `_wsgi.scope`).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from stephttp._client.flow import Invoke, Until
from stephttp._core.annotations import decode_arguments, decode_result, return_annotation
from stephttp._core.encoding import encode_input, encode_result
from stephttp._core.failures import error_info, retry_after, step_error
from stephttp._core.run import ENDED, Run
from stephttp._core.steps import EXECUTE, SUSPEND, Step, check_retries
from stephttp._core.values import Event
from stephttp._core.waits import Wait
from stephttp._run.hooks import Hooks
from stephttp._wire.http import Request
from stephttp.errors import NestedStepError, Suspended
from stephttp.middleware import RunContext

if TYPE_CHECKING:
    from stephttp._client.flow import Flow
    from stephttp._run.runtime import Runtime

T = TypeVar("T")

_inside_step: ContextVar[tuple[RunScope, str] | None] = ContextVar("stephttp_step", default=None)
_branch: ContextVar[Branch | None] = ContextVar("stephttp_branch", default=None)

SETTLE_TICKS = 16
"""Turns of the event loop after which code that only passes results on (gather, task groups,
nested in each other) has come to its next step: each level of nesting takes two or three."""


class RunScope(ABC):
    """One run in one call of the handler.

    Args:
        runtime: the way to the server, and the settings and the clock that all runs share.
        run: its state machine.
        on_record: called at home when a step of a resumed run was recorded.
        started_ns: when the call of the handler began; `None`: now.
    """

    __slots__ = (
        "_lock",
        "_quiet",
        "checkpointing",
        "claim",
        "claimer",
        "configured",
        "deadline_ns",
        "hooks",
        "now_ns",
        "on_first_step",
        "on_record",
        "request",
        "run",
        "runtime",
        "started_ns",
    )

    def __init__(
        self,
        runtime: Runtime,
        run: Run,
        on_record: Callable[[], None] | None = None,
        started_ns: int | None = None,
    ) -> None:
        self.runtime = runtime
        self.run = run
        self.now_ns = runtime.now_ns
        self.request: tuple[Any, ...] = ()
        """What tells the request from others; see `Current`."""
        self.hooks: Hooks | None = None
        """The user's middleware, if there is any."""
        self.configured = False
        self.checkpointing = runtime.settings.checkpointing
        self.on_record = on_record
        self.on_first_step: Callable[[], None] | None = None
        """Called at home, once, when the body of a first step is about to run."""
        self.claim: Callable[[], Flow[bool]] | None = None
        """What has to be settled before the first step: whether this run is to answer at all."""
        self.claimer: Callable[[str], Flow[bool]] | None = None
        """Claims an idempotency key; `None` where that was done before."""
        self.started_ns = self.now_ns() if started_ns is None else started_ns
        self.deadline_ns: int | None = None
        if self.checkpointing.max_runtime is not None:
            self.limit(self.checkpointing.max_runtime)
        self._lock = threading.Lock()  # `def` routes run their steps in worker threads
        self._quiet: Future[None] | None = None

    @property
    def run_id(self) -> str:
        """The run's ULID."""
        return self.run.run_id

    @property
    def over(self) -> bool:
        """Whether the handler has ended; not if a wait has overtaken it."""
        return self.run.state is ENDED

    @property
    def replaying(self) -> bool:
        """Whether the handler still passes over what it did in earlier calls."""
        return self.run.replaying

    def open(self) -> RunScope:
        """Itself; see `Current`."""
        return self

    @abstractmethod
    def at_home(self, call: Callable[[], None]) -> None:
        """Make a call where the book-keeping of the run is done, now or soon."""

    @abstractmethod
    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API, for an `async def` handler."""

    @abstractmethod
    def block(self, flow: Flow[T]) -> T:
        """The same while this thread waits, for the blocking tools."""

    @abstractmethod
    async def park(self) -> None:
        """Wait where an `async def` handler cannot go on, until it is ended. Never returns."""

    @abstractmethod
    def settle(self) -> None:
        """Called at home after a step's end: end the handler if it cannot progress any more."""

    @abstractmethod
    def close(self, error: BaseException | None) -> bool:
        """The handler has ended, with or without `error`: release whatever is still parked.

        Returns:
            Whether somebody else wants the current task cancelled.
        """

    def use_middleware(self, request: Request, request_id: str = "", attempt: int = 0) -> None:
        """Make the middleware of `runtime` for this call, if it has any.

        Args:
            request: what the handler is called with.
            request_id: the server's id of this call.
            attempt: how many calls for the same purpose failed before.
        """
        ctx = RunContext(self.run, request, self.now_ns, self.started_ns, request_id, attempt)
        self.hooks = Hooks(self.runtime.settings.middleware, self.run, ctx)

    def wait_for(self, awaitable: Awaitable[Any]) -> Any:
        """Have something of the user's middleware awaited while this thread waits."""
        try:
            return self.block(_awaiting(awaitable))
        finally:
            if isinstance(awaitable, Coroutine):  # where it was refused
                awaitable.close()

    def resolve(self, step_id: str, handler: Callable[..., Any], options: StepOptions) -> StepCall:
        """Come to a step that runs in this process."""
        self._refuse(step_id)
        if self.deadline_ns is not None and self.now_ns() >= self.deadline_ns:
            self.run.expire()
        hook = None
        with self._lock:
            step = self.run.begin(step_id, options.retries)
            if self.on_first_step is not None and step.verdict is EXECUTE:
                hook, self.on_first_step = self.on_first_step, None
        if hook is not None:
            self.at_home(hook)
        type_ = options.output_type
        return StepCall(self, step, return_annotation(handler) if type_ is Any else type_)

    def wait(self, wait: Wait) -> StepCall:
        """Come to a step that the server carries out."""
        self._refuse(wait.step_id)
        with self._lock:
            step = self.run.wait(wait)
        return StepCall(self, step, wait.result, wait.convert)

    def _refuse(self, step_id: str) -> None:
        """Raise what speaks against coming to a step here."""
        inside = _inside_step.get()
        # A step may well make a request of this process to itself: that is another run.
        if inside is not None and inside[0] is self:
            raise NestedStepError(
                f"step {step_id!r} was called inside the body of step {inside[1]!r}; call it "
                "before or after, or call the plain function"
            )
        branch = _branch.get()
        if branch is not None and branch.scope is self and branch.left:
            raise Suspended(branch.left)

    def leave(self, waiting_for: str) -> Suspended:
        """The blocking counterpart of `park`: an exception for the caller to raise.

        Args:
            waiting_for: what it says it waits for.
        """
        branch = _branch.get()
        if branch is not None and branch.scope is self:
            # The others are to come as far as they can; then `group` ends them all.
            branch.left = waiting_for
        else:
            with self._lock:
                self.run.unwind()
        return Suspended(waiting_for)

    @contextmanager
    def group(self) -> Generator[None]:
        """Threads of this run are at work; it is not settled while they are."""
        with self._lock:
            self.run.hold()
        try:
            yield
        finally:
            with self._lock:
                self.run.release()
            self.recorded()

    def branch(self) -> None:
        """The current context is that of one thread of a `group`."""
        _branch.set(Branch(self))

    def recorded(self) -> None:
        """A step's end was recorded: pass it on, and see whether the handler can still progress."""
        if self.on_record is not None or self.run.suspended:
            self.at_home(self._after_record)

    def limit(self, max_runtime: timedelta | None) -> None:
        """Let the server go on after so long, counted from the start of this call."""
        self.deadline_ns = (
            None
            if max_runtime is None
            else self.started_ns + max_runtime // timedelta(microseconds=1) * 1000
        )

    def settle_claim(self) -> Flow[bool]:
        """Settle `claim`, once; whether this run goes on. If not, the caller has to wait."""
        if self.claim is None or (yield from self.claim()):
            self.claim = None
            return True
        self.run.yield_to_another_run()
        return False

    def quiet(self) -> Flow[None]:
        """After `close`: no further step starts, and those that still run are waited for.

        A handler can leave steps behind, in tasks or threads that it does not wait for. What they
        give belongs to the run.
        """
        with self._lock:
            self.run.unwind()
            if self.run.settled:
                return
            self._quiet = Future()
        yield Until(self._quiet)

    def _after_record(self) -> None:
        if self.on_record is not None:
            self.on_record()
        with self._lock:
            if self._quiet is not None and self.run.settled and not self._quiet.done():
                self._quiet.set_result(None)
        self.settle()


class StepOptions(Struct, frozen=True):
    """Settings of one step that runs in this process; see `stephttp.step.options`."""

    retries: int | None = None
    output_type: Any = Any

    def __post_init__(self) -> None:
        check_retries(self.retries)


class Branch:
    """One of several threads of a run, and the step at which it came to a stop."""

    __slots__ = ("left", "scope")

    def __init__(self, scope: RunScope) -> None:
        self.scope = scope
        self.left = ""


class StepCall:
    """One step of one run, and the attempt to execute it as a context manager."""

    __slots__ = (
        "_annotation",
        "_convert",
        "_opts",
        "_raw",
        "_started",
        "_step",
        "_token",
        "_value",
        "executes",
        "scope",
        "suspended",
    )

    def __init__(
        self,
        scope: RunScope,
        step: Step,
        annotation: Any,
        convert: Callable[[Any], Any] | None = None,
    ) -> None:
        self.scope = scope
        self._step = step
        self._annotation = annotation
        self._convert = convert
        self._opts: dict[str, Any] | None = None
        self._raw: bytes | None = None
        self.executes = step.verdict is EXECUTE
        """Whether the step's body has to run now."""
        self.suspended = step.verdict is SUSPEND

    def complete(self, value: Any, sent: bytes | None = None) -> None:
        """The body returned `value`.

        Args:
            sent: what the server gets instead of it, as JSON.

        Raises:
            StepResultError: `value` cannot be stored.
        """
        raw = encode_result(value, self._step.step_id)
        self._value = decode_result(raw, self._annotation, self._step.step_id)
        self._raw = raw if sent is None else sent

    def invoke(self, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the body of a step: with what the handler gives it, or, in a rerun, with positional
        arguments that somebody edited.

        Raises:
            StepResultError: these do not fit the body.
        """
        step = self._step
        if step.memo is not None:
            args = decode_arguments(step.memo.raw, body, step.step_id)
        if args and self.scope.runtime.settings.record_inputs:
            raw = encode_input(args)
            self._opts = None if raw is None else {"input": raw}
        return body(*args, **kwargs)

    def result(self) -> Any:
        """What the handler gets: the value, or the remembered failure as `StepError`."""
        if self._raw is not None:
            return self._value
        memo = self._step.memo
        assert memo is not None, "a step that neither ran nor is remembered has no result"
        if memo.error is not None:
            raise step_error(memo.error)
        value = decode_result(memo.raw, self._annotation, self._step.step_id)
        return value if self._convert is None else self._convert(value)

    def send(self, events: list[Event]) -> Flow[list[str]]:
        """What the body of a step that sends events has to do."""
        checkpoints = self.scope.runtime.checkpoints
        return checkpoints.send_events(self.scope.run.run_id, self._step, events)

    def leave(self) -> Suspended:
        """What a blocking tool raises when the handler cannot pass this step now."""
        return self.scope.leave(f"step {self._step.step_id!r}")

    def __enter__(self) -> None:
        self._token: Token[Any] = _inside_step.set((self.scope, self._step.step_id))
        self._started = self.scope.now_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        _inside_step.reset(self._token)
        scope, run, step = self.scope, self.scope.run, self._step
        duration = max(0, scope.now_ns() - self._started)
        if self._raw is not None:
            with scope._lock:
                verdict = run.complete(step, self._raw, self._started, duration, self._opts)
            self.suspended = verdict is SUSPEND
        elif isinstance(error, Exception):
            info, later = error_info(error), retry_after(error, scope.now_ns())
            with scope._lock:
                verdict = run.fail(step, info, self._started, duration, later, self._opts)
            self.suspended = verdict is SUSPEND
        else:
            with scope._lock:
                run.abandon(step)
        scope.recorded()
        return self.suspended


def _awaiting(awaitable: Awaitable[T]) -> Flow[T]:
    def itself(_: None) -> Awaitable[T]:
        return awaitable

    return (yield Invoke(itself, None))  # type: ignore[no-any-return]
