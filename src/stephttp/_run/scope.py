"""One run in one call of the handler: adds clock, lock and the ways to the server to the state
machine; `max_runtime`.

A `RunScope` adds to a `Run` the clock, the lock and the ways to the server. Where the handler
lives is the adapters' business; see `loop_or_thread`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from stephttp._client.flow import Until
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, CutTimes, Step
from stephttp._core.waits import Wait
from stephttp._run import database_watch
from stephttp._run.echoes import log_unless_echo
from stephttp._run.hooks import Hooks
from stephttp._run.loop_or_thread import LoopOrThread
from stephttp._run.places import come_to_step, here
from stephttp._run.shared_ids import SharedIds, keeps_branches
from stephttp.errors import Suspended

if TYPE_CHECKING:
    import asyncio

    from stephttp._client.flow import Flow
    from stephttp._run.branches import ThreadTurns
    from stephttp._run.current import FirstCallOfRun
    from stephttp._run.fences import Fence
    from stephttp._run.final_failures import FinalFailures
    from stephttp._run.hidden_exceptions import HiddenExceptions
    from stephttp._run.loop_turns import LoopTurns
    from stephttp._run.run_stream import RunStream
    from stephttp._run.runtime import Runtime
    from stephttp._run.supervised import LoopWatch
    from stephttp._run.transactions import StepWrites


_here = here.get  # to look it up each time takes more instructions


class RunScope(LoopOrThread):
    """One run in one call of the handler.

    Args:
        runtime: the way to the server, and the settings and the clock that all runs share.
        run: its state machine.
        started_ns: when the call of the handler began; `None`: now.
        on_record: dispatched when a step has ended.
    """

    __slots__ = (
        "__dict__", "checkpointing", "claim", "deadline_ns", "fence", "final_failures",
        "first_call", "guarded", "has_begun", "hooks", "lock", "loop_watch", "now_ns", "on_record",
        "run", "runtime", "shared_ids", "started_ns", "step_watch", "stream", "turns",
        "warned_ids", "writes",
    )  # fmt: skip

    ENDINGS: ClassVar[tuple[type[BaseException], ...]] = (Suspended,)
    """What a handler raises that was ended because its run has to wait."""

    # Few runs come to these, so they are not set in each one.
    configured: bool = False
    """Whether the handler has called `configure`."""
    within_limits: bool = False
    """Whether the run is opened before the handler begins, if its limits have room."""
    key_claimed: bool = False
    """Whether an idempotency key was claimed before the handler was called."""
    thread_turns: ThreadTurns | None = None
    """The turns of remembered steps in threads, if any thread has come to one."""
    thread: int | None = None
    """The thread that called the handler, if it lives in one."""
    hidden: HiddenExceptions | None = None
    """What may have left the handler of a re-entry, and not its framework."""
    parked: bool = True
    """Whether all branches of the handler are known to have stood still at steps when it was ended.
    Only looked at where calls plan steps; see `plain_server`."""
    new_stream: Callable[[], RunStream] | None = None
    """Begins the stream of a re-entry."""
    _joined: Future[None] | None = None

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
        self.first_call: FirstCallOfRun | None = None
        """The call that a caller has made, while its handler is at work."""
        self.guarded = False
        """Whether a handler is at work that is decorated with `@provider.endpoint`."""
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
        self.fence: Fence | None = None
        """Stands before the bodies of steps, where another call may take the place of this one."""
        self.stream: RunStream | None = None
        """What the handler has pushed in this call, if anything."""
        self.writes: dict[str, StepWrites] | None = None
        """What steps of this call have written and not committed, by step hash; see
        `transactions`."""
        self.final_failures: FinalFailures | None = None
        """What steps have raised in this re-entry that every later call would raise."""
        self.turns: LoopTurns | None = None
        """The turns of remembered steps on an event loop, if any task has come to one."""
        self.shared_ids: SharedIds | None = None
        """Which branches came to which steps, in development."""
        self.warned_ids = runtime.warned_ids
        """The shared ids of which was warned; `None` outside of development."""
        if (loaded := len(sys.modules)) != database_watch.LOADED:
            database_watch.LOADED = loaded
            database_watch.watch_loaded()
        self.step_watch = database_watch.STEP_WATCH
        """Sees what steps leave in sessions, if the application has any."""
        if runtime.settings.retry_policy:
            run.configure(**runtime.settings.retry_policy)

    def begin_response(self) -> bool:
        """Let the response begin. Returns whether it may, because no wait has overtaken it."""
        self.lock.acquire()  # a `with` takes twice the instructions
        try:
            if self.run.suspended:
                return False
            self.run.response_began()
            return True
        finally:
            self.lock.release()

    def leaves_end(self) -> bool:
        """Leave the answer of a first call to the next one, if that may have the run already.

        Returns:
            Whether it is left; the handler's own is not to be sent.
        """
        if self.fence is None or self.first_call is None or not self.fence.closed:
            return False
        with self.lock:
            return self.run.leave_end()

    def close(self, error: BaseException | None) -> bool:
        """Note that the handler has ended, with or without `error`.

        Subclasses release what `suspend` still holds. The call of the handler holds this scope; if
        this scope held the call as well, both would be left to the garbage collector.

        Returns:
            Whether the current task was cancelled by others than us.
        """
        self.first_call = None
        self.warned_ids = None
        # These lead back to this scope.
        self.fence = self.shared_ids = None
        return False

    def open_stream(self) -> RunStream | None:
        """Return the stream of this call, made at the first push; `None` once it is over."""
        with self.runtime.opening:
            if self.stream is None and self.first_call is not None:
                self.stream = self.first_call.open_stream(self)
            elif self.stream is None and self.new_stream is not None:
                self.stream = self.new_stream()
            return self.stream

    def begin(self, step_id: str, retries: int | None) -> Step:
        """Come to a step that runs in this process; see `Run.begin`."""
        place = _here()
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
        place = _here()
        return "" if place is None else come_to_step(self, place, step_id)

    def note_branch(self, step: Step, branch: str) -> None:
        """Note who came to a step, in development. A known branch gets its own results, where the
        server keeps that."""
        if self.warned_ids is not None and not (branch and keeps_branches(self)):
            self.shared_ids = self.shared_ids or SharedIds(self.warned_ids, self.thread)
            self.shared_ids.note(step.step_id, branch)

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
        if self.on_record is not None or self.run.suspended:
            self.dispatch(self._after_record)

    def limit(self, max_runtime: timedelta | None) -> None:
        """Leave the run to the server after so long, counted from the start of this call."""
        self.deadline_ns = None
        if max_runtime is not None:
            self.deadline_ns = self.started_ns + max_runtime // timedelta(microseconds=1) * 1000

    def settle_claim(self) -> Flow[bool]:
        """Settle `claim`, once. Returns whether this run continues; if not, the caller waits."""
        if self.claim is None or (yield from self.claim()):
            self.claim = None
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
        self.log_unless_ended(error)
        return None

    def log_unless_ended(self, error: BaseException | None) -> None:
        """Log what a handler raised that was ended, if that was not what ended it."""
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
