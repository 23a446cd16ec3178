"""One run in one call of the handler: what joins the pure state machine to the world.

A `RunScope` adds to a `Run` the clock, the lock and the ways to the server. Where the handler
lives, on an event loop or in a thread, is the adapters' business: each has its own kind
(`_adapters.asgi.scope`, `_adapters.wsgi.scope`).
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from stephttp._client.flow import T, Until
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, CutTimes, Step
from stephttp._core.waits import Wait
from stephttp._run import database_watch
from stephttp._run.echoes import is_being_cancelled, is_cancellation, log_unless_echo
from stephttp._run.hooks import Hooks, awaiting
from stephttp._run.places import come_to_step, here
from stephttp._run.shared_ids import SharedIds
from stephttp._wire.http import Request
from stephttp._wire.stored_state import NAMES_FEATURE
from stephttp.errors import Suspended
from stephttp.middleware import RunContext

if TYPE_CHECKING:
    import asyncio

    from stephttp._client.background import TimerHandle
    from stephttp._client.flow import Flow
    from stephttp._run.branches import ThreadTurns
    from stephttp._run.final_failures import FinalFailures
    from stephttp._run.loop_turns import LoopTurns
    from stephttp._run.runtime import Runtime
    from stephttp._run.supervised import LoopWatch
    from stephttp._run.transactions import StepWrites

SETTLE_TICKS = 16
"""Turns of the event loop after which code that only passes results on (gather, task groups,
nested in each other) has come to its next step: each level of nesting takes two or three."""


class FirstCallOfRun(Protocol):
    """A first call, as the scope of its run knows it."""

    def first_step(self) -> None:
        """Begin to save, as configured; dispatched when the body of a first step has begun."""

    def claim_late(self, key: str) -> Flow[bool]:
        """Claim a key that the handler gave. Returns whether its steps are to run."""
        ...


class RunScope(ABC):
    """One run in one call of the handler.

    Args:
        runtime: the way to the server, and the settings and the clock that all runs share.
        run: its state machine.
        started_ns: when the call of the handler began; `None`: now.
        on_record: dispatched when a step has ended.
    """

    __slots__ = (
        "__dict__",
        "checkpointing",
        "claim",
        "deadline_ns",
        "final_failures",
        "first_call",
        "has_begun",
        "hooks",
        "lock",
        "loop_watch",
        "now_ns",
        "on_end",
        "on_record",
        "run",
        "runtime",
        "started_ns",
        "step_watch",
        "turns",
        "warned_ids",
    )

    ENDINGS: ClassVar[tuple[type[BaseException], ...]] = (Suspended,)
    """What a handler raises that was ended because its run has to wait."""

    # Few runs come to these, so they are not set in each one.
    configured: bool = False
    """Whether the handler has called `configure`."""
    guarded: bool = False
    """Whether a handler is at work that is decorated with `@provider.endpoint`."""
    key_claimed: bool = False
    """Whether an idempotency key was claimed before the handler was called."""
    only_asks: bool = False
    """Whether `claim` may be left out where it cannot be waited for."""
    thread_turns: ThreadTurns | None = None
    """The turns of remembered steps in threads, if any thread has come to one."""
    writes: dict[str, StepWrites] | None = None
    """What steps of this call have written and not committed, by step hash; see `transactions`."""
    _joined: Future[None] | None = None
    _shared_ids: SharedIds | None = None

    def __init__(
        self,
        runtime: Runtime,
        run: Run,
        started_ns: int | None = None,
        on_record: Callable[[], None] | None = None,
    ) -> None:
        self.runtime = runtime
        self.run = run
        self.now_ns = runtime.now_ns
        self.hooks: Hooks | None = None
        """The user's middleware, if there is any."""
        self.loop_watch: LoopWatch | None = None
        """Sees, in development, whether a step blocks the event loop of this run."""
        self.checkpointing = runtime.settings.checkpointing
        self.on_record = on_record
        self.on_end: Callable[[], None] | None = None
        """Called when a step has ended, where that was."""
        self.first_call: FirstCallOfRun | None = None
        """The call that a caller has made, while its handler is at work."""
        self.has_begun = False
        """Whether the body of a step has begun."""
        self.claim: Callable[[], Flow[bool]] | None = None
        """What has to be settled before the next step: whether this run is to answer at all."""
        self.started_ns = self.now_ns() if started_ns is None else started_ns
        self.deadline_ns: int | None = None
        if self.checkpointing.max_runtime is not None:
            self.limit(self.checkpointing.max_runtime)
        self.lock = threading.Lock()
        """Guards `run`: a `def` route runs its steps in a worker thread, beside the event loop."""
        self.final_failures: FinalFailures | None = None
        """What steps have raised in this re-entry that every later call would raise."""
        self.turns: LoopTurns | None = None
        """The turns of remembered steps on an event loop, if any task has come to one."""
        self.warned_ids = runtime.warned_ids
        """The shared ids of which was warned; `None` outside of development."""
        if (loaded := len(sys.modules)) != database_watch.LOADED:
            database_watch.LOADED = loaded
            database_watch.watch_loaded()
        self.step_watch = database_watch.STEP_WATCH
        """Sees what steps leave in sessions, if the application has any."""
        if runtime.settings.retry_policy:
            run.configure(**runtime.settings.retry_policy)

    @abstractmethod
    def dispatch(self, callback: Callable[[], None]) -> None:
        """Call `callback` where this run does its book-keeping, now or soon."""

    @abstractmethod
    def later(self, seconds: float, call: Callable[[], None]) -> TimerHandle:
        """Call something after so many seconds, from where this run does its book-keeping."""

    @abstractmethod
    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API, for an `async def` handler."""

    @abstractmethod
    def block(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API while this thread waits, for the blocking tools."""

    @abstractmethod
    async def suspend(self, step: Step | None = None) -> None:
        """Wait where an `async def` handler cannot continue, until it is ended. Never returns.

        Args:
            step: what it waits for, if that is a step.
        """

    @abstractmethod
    def turn(self, step: Step, function: Callable[..., Any] | None) -> Awaitable[None] | None:
        """Return what to wait for before a remembered step is given back; `None`: nothing.

        See `LoopTurns.turn`.
        """

    @abstractmethod
    async def come_after(self, *, ended: bool) -> None:
        """Let the end of a step come after those beside it; see `LoopTurns.come_after`."""

    @abstractmethod
    async def park(self, step: Step) -> None:
        """Wait where an `async def` handler cut a step off before; see `LoopTurns.park`."""

    def look_aside(self) -> object:
        """See which tasks the handler has, beside the one in which this runs."""
        return None

    def left_branches(self) -> bool:
        """Whether branches of the handler may have been left behind that are not at a step."""
        return False

    @abstractmethod
    def unwind_when_stuck(self) -> None:
        """End the handler if none of its steps can progress. Called after the end of a step."""

    def close(self, error: BaseException | None) -> bool:
        """Note that the handler has ended, with or without `error`.

        Subclasses release what `suspend` still holds. The call of the handler holds this scope; if
        this scope held the call as well, both would be left to the garbage collector.

        Returns:
            Whether the current task was cancelled by others than us.
        """
        self.first_call = None
        self.warned_ids = None
        if self._shared_ids is not None:
            self._shared_ids = None  # its tasks lead back to this scope
        return False

    def guard(self) -> bool:
        """Note that a decorated handler begins, at which the unwinding ends; `unguard` follows.

        Returns:
            Whether it ends there; not inside another one, which still has to be ended.
        """
        if self.guarded:
            return False
        self.guarded = True
        return True

    def overtaken(self, error: BaseException | None) -> bool:
        """Say whether a decorated handler was ended only because its run has to wait.

        What else it may have raised meanwhile is logged, and ends here as well.

        Args:
            error: what it raised.
        """
        if not self.run.unwinding:
            return False
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            return False
        self._log_unless_ended(error)
        return True

    def unguard(self) -> None:
        """Note that a decorated handler has ended."""
        self.guarded = False

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
            return self.block(awaiting(awaitable))
        finally:
            if isinstance(awaitable, Coroutine):  # where it was refused
                awaitable.close()

    def begin(self, step_id: str, retries: int | None) -> Step:
        """Come to a step that runs in this process; see `Run.begin`."""
        place = here.get()
        branch = "" if place is None else come_to_step(self, place, step_id)
        if self.deadline_ns is not None and self.now_ns() >= self.deadline_ns:
            self.run.expire()
        first = False
        self.lock.acquire()  # a `with` takes twice the instructions
        try:
            step = self.run.begin(step_id, retries, branch)
            if not self.has_begun and step.verdict is EXECUTE:
                self.has_begun = first = True
        finally:
            self.lock.release()
        if first and self.first_call is not None:
            mode = self.checkpointing
            if mode.buffered_steps is not None or mode.max_interval is not None:
                self.dispatch(self.first_call.first_step)
        if self.warned_ids is not None:
            self.note_branch(step, branch)
        return step

    def wait(self, wait: Wait) -> Step:
        """Come to a step that the server carries out; see `Run.wait`."""
        branch = self.come_to(wait.step_id)
        with self.lock:
            step = self.run.wait(wait, branch)
        if self.warned_ids is not None:
            self.note_branch(step, branch)
        return step

    def come_to(self, step_id: str) -> str:
        """Check that a step may begin here; see `come_to_step`."""
        place = here.get()
        return "" if place is None else come_to_step(self, place, step_id)

    def note_branch(self, step: Step, branch: str) -> None:
        """Note who came to a step, in development. A known branch gets its own results, where the
        server keeps that."""
        if self.warned_ids is None or (branch and self._keeps_branches()):
            return
        if self._shared_ids is None:
            self._shared_ids = SharedIds(self.warned_ids)
        self._shared_ids.note(step.step_id, branch)

    def _keeps_branches(self) -> bool:
        """Return whether the server keeps the branch of each step, as far as it is known."""
        run, features = self.run, self.runtime.checkpoints.keys.features
        if run.resumed:
            return run.earlier.is_named
        return features is None or NAMES_FEATURE in features

    def again(self, step: Step) -> Step:
        """Take back that a step was cut off in an earlier call: it is not in this one."""
        with self.lock:
            return self.run.renew(step, self.now_ns())

    def begin_again(self, step: Step) -> Step:
        """Begin a step that was cut off in an earlier call, and is not in this one."""
        with self.lock:
            return self.run.renew(step, self.now_ns(), body=True)

    def wait_again(self, step: Step, wait: Wait) -> Step:
        """Have the server carry out a step that was cut off in an earlier call."""
        with self.lock:
            step = self.run.renew(step, self.now_ns())
            return self.run.request(step, wait) if step.verdict is EXECUTE else step

    def left(self, step: Step, error: BaseException | None, started_ns: int) -> None:
        """Note that the body of a step neither returned nor failed; see `cuts`."""
        times = self.times(started_ns)
        with self.lock:
            if error is None or not is_cancellation(error):
                self.run.abandon(step)
            else:
                self.run.cut_off(step, times, raised=not is_being_cancelled())

    def times(self, started_ns: int) -> CutTimes:
        """Return when a step that began then is cut off, if it is now."""
        return CutTimes(started_ns, self.now_ns(), self.started_ns)

    @contextmanager
    def group(self) -> Generator[None]:
        """Keep the run from being settled while threads or middleware of it are at work."""
        with self.lock:
            self.run.hold()
        try:
            yield
        finally:
            with self.lock:
                self.run.release()
            self.recorded()

    def recorded(self) -> None:
        """Pass on that a step has ended, and see whether the handler can still progress."""
        if self.on_end is not None:
            self.on_end()
        if self.on_record is not None or self.run.suspended:
            self.dispatch(self._after_record)

    def limit(self, max_runtime: timedelta | None) -> None:
        """Leave the run to the server after so long, counted from the start of this call."""
        self.deadline_ns = None
        if max_runtime is not None:
            self.deadline_ns = self.started_ns + max_runtime // timedelta(microseconds=1) * 1000

    def ask(self, question: Callable[[], Flow[bool]]) -> None:
        """Have something carried out before the next step begins, if the handler can wait there."""
        if self.claim is None:
            self.claim, self.only_asks = question, True

    def holds_up_loop(self) -> bool:
        """Return whether blocking here would stop the event loop on which the SDK works."""
        return False

    def settle_claim(self) -> Flow[bool]:
        """Settle `claim`, once. Returns whether this run continues; if not, the caller waits."""
        if self.claim is None or (yield from self.claim()):
            self.claim, self.only_asks = None, False
            return True
        self.run.yield_to_another_run()
        return False

    def join_steps(self) -> Flow[None]:
        """Start no further step, and wait for those that still run. Called after `close`.

        A handler can leave steps behind, in tasks or threads that it does not wait for. Their
        results belong to the run.
        """
        with self.lock:
            self.run.unwind()
            if self.run.settled:
                return
            self._joined = Future()
        yield Until(self._joined)

    def own_error(self, error: BaseException | None) -> BaseException | None:
        """End the run whose handler was ended by `error`, if by any.

        Returns:
            `error`, if it is the application's own: not the echo of a suspension, however wrapped.
            Or `UncommittedStepError`, where writes of a step were lost and the run cannot wait.
        """
        run = self.run
        run.end()
        if self.writes is not None:
            from stephttp._run.transactions import conclude

            error = conclude(self, error)
        if not run.suspended:
            return error
        self._log_unless_ended(error)
        return None

    def _log_unless_ended(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, self.ENDINGS):
            log_unless_echo(self.run, error)

    def _after_record(self) -> None:
        if self.on_record is not None:
            self.on_record()
        with self.lock:
            if self._joined is not None and self.run.settled and not self._joined.done():
                self._joined.set_result(None)
        self.unwind_when_stuck()


def is_waited_for(task: asyncio.Task[Any] | None) -> bool:
    """Whether anything waits for the end of a task."""
    # Private. Without it all tasks count as waited for: then code that only looks whether its
    # tasks are done, a few turns of the loop later, sees a remembered step a bit late.
    return bool(getattr(task, "_callbacks", True))
