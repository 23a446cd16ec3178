"""A run whose handler lives in a thread of a WSGI server: a step that waits raises `Suspended`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from stephttp._client.background import off_loop
from stephttp._core.run import Run
from stephttp._core.steps import Step
from stephttp._run.loop_or_thread import SETTLE_TICKS
from stephttp._run.scope import RunScope
from stephttp._run.shared_ids import current_branch
from stephttp.errors import Suspended

if TYPE_CHECKING:
    import asyncio

    from stephttp._client.background import TimerHandle
    from stephttp._client.flow import Flow, T
    from stephttp._run.loop_turns import LoopTurns
    from stephttp._run.runtime import Runtime


class ThreadScope(RunScope):
    """One run in one call of the handler, in one thread, or in several by `step.parallel`."""

    __slots__ = ("_held", "_in_tasks", "thread")

    def __init__(
        self,
        runtime: Runtime,
        run: Run,
        context: None = None,
        started_ns: int | None = None,
        on_record: Callable[[], None] | None = None,
    ) -> None:
        RunScope.__init__(self, runtime, run, started_ns, on_record)  # as in `LoopScope`
        self.thread = get_ident()
        self._held: list[asyncio.Future[None]] = []
        """What the tasks of an async view wait for that have come to a stop."""
        self._in_tasks = False
        """Whether an async view has come to remembered steps."""

    def dispatch(self, callback: Callable[[], None]) -> None:
        """Call `callback` in this thread: any thread in which a step ends does the book-keeping."""
        off_loop(callback)

    def later(self, seconds: float, call: Callable[[], None]) -> TimerHandle:
        """Call something after so many seconds, in a thread."""
        return self.runtime.background.later(seconds, call)

    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API in a thread: the loop of an async view ends with it."""
        import asyncio

        return await asyncio.to_thread(self.block, flow)

    def block(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API."""
        return self.runtime.drive_sync(flow)

    async def suspend(self, step: Step | None = None) -> None:
        """End an `async def` view, which its framework runs on an event loop of its own.

        The steps beside this one come as far as they can first.
        """
        import asyncio

        since_ns = self.now_ns()
        self.parked = False  # a task may be in code of its own
        try:
            if self.turns is not None:
                self.turns.kept.cancel_late()
            await self._until_stuck()
        except asyncio.CancelledError:
            with self.lock:
                self.run.give_up(step, self.times(since_ns))
            if self.turns is not None:
                await self.turns.come_after(None, ended=False)
            raise
        with self.lock:
            self.run.unwind()
        raise Suspended

    def turn(self, step: Step, function: Callable[..., Any] | None) -> Awaitable[None] | None:
        """Return what an async view waits for before a remembered step is given back."""
        self._in_tasks = True
        return None if self.run.earlier.order is None else self.turns_here().turn(step, function)

    def note_branch(self, step: Step, branch: str) -> None:
        """Note who came to a step, in development, but for the thread that called the handler, as
        long as it is alone: none of its steps is in anyone's way."""
        if branch or self.shared_ids is not None or current_branch() != self.thread:
            RunScope.note_branch(self, step, branch)

    def still_waits(self) -> bool:
        """Say whether the run still has to wait, now that the handler responds."""
        with self.lock:
            self.run.leave_pending()
        return self.run.suspended

    def turns_here(self) -> LoopTurns:
        """Return the turns on the current loop. A view may use several, one after the other."""
        import asyncio

        from stephttp._run.loop_turns import LoopTurns

        loop = asyncio.get_running_loop()
        if self.turns is None or self.turns.loop is not loop:
            self.turns = LoopTurns(self, loop, asyncio.current_task())
        return self.turns

    async def _until_stuck(self) -> None:
        """Wait until no step of this run can progress."""
        import asyncio

        idle = 0
        while idle < SETTLE_TICKS:
            progress: asyncio.Future[None] | None = None
            with self.lock:
                if not self.run.settled:
                    progress = asyncio.get_running_loop().create_future()
                    self._held.append(progress)
            if progress is None:
                idle += 1
                await asyncio.sleep(0)
            else:
                idle = 0
                await progress

    def left_branches(self) -> bool:
        """Whether branches of the handler may have been left behind that are not at a step.

        Threads of `parallel` are not. The tasks of an async view have ended with its loop.
        """
        return self._in_tasks

    def unwind_when_stuck(self) -> None:
        """Let what `suspend` holds see whether any step of this run can progress."""
        if not self._held:
            return
        with self.lock:
            held, self._held = self._held, []
        for future in held:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_release, future)

    def close(self, error: BaseException | None) -> bool:
        """Note that the handler has ended. The loop of what `suspend` held has ended with it."""
        self._held = []
        return RunScope.close(self, error)

    def end(self, error: BaseException | None) -> BaseException | None:
        """End the run whose application has returned, or raised `error`.

        Returns:
            The exception that ended the application, if it is its own: not the echo of a
            suspension, however wrapped.

        Raises:
            KeyboardInterrupt: it was this that ended the application; likewise `SystemExit`.
        """
        self.close(error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self.run.end()
            raise error
        if self.run.suspended:
            self.block(self.join_steps())
        return self.own_error(error)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
