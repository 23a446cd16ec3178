"""A run whose handler lives on an event loop: how a step waits, and how the handler is unwound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import get_ident
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar

from stephttp._adapters.asgi.side_tasks import SideTasks
from stephttp._core.run import Run
from stephttp._core.steps import Step
from stephttp._run.echoes import echoes_suspension
from stephttp._run.loop_or_thread import SETTLE_TICKS
from stephttp._run.loop_turns import LoopTurns
from stephttp._run.scope import RunScope, is_waited_for
from stephttp._run.turn_queue import ENOUGH, given
from stephttp._run.wait_limits import warn_of_limits
from stephttp.errors import Suspended, UsageError

if TYPE_CHECKING:
    from stephttp._client.background import TimerHandle
    from stephttp._client.flow import Flow, T
    from stephttp._run.runtime import Runtime

TaskContext = tuple[asyncio.AbstractEventLoop, "asyncio.Task[Any] | None", int]
"""Where a handler is called: event loop, task, and what `task.cancelling()` said then. Later counts
are compared to that, because the caller may leave a count of its own behind, and so does a task
group that failed (fixed in Python 3.13)."""


def task_context() -> TaskContext:
    """Return the context in which this code runs."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    return loop, task, 0 if task is None else task.cancelling()


# `super`, or to look them up each time, takes more instructions.
_init = RunScope.__init__
_close = RunScope.close


class LoopScope(RunScope):
    """One run in one call of the handler, on one event loop. See `RunScope`.

    Args:
        context: where the handler is called.
    """

    __slots__ = (
        "_cancelling",
        "_held",
        "_loop",
        "_loop_thread",
        "_owing",
        "_task",
        "disconnect",
    )

    ENDINGS: ClassVar[tuple[type[BaseException], ...]] = (Suspended, asyncio.CancelledError)

    _ended_by_us: bool = False
    _given: object | None = None
    """What `LoopTurns` begins with."""
    _outer: tuple[asyncio.Task[Any], int] | None = None
    """What `_task` and `_cancelling` were before a decorated handler began in its own task."""
    _side_tasks: SideTasks | None = None
    _ticks: int = 0

    def __init__(
        self,
        runtime: Runtime,
        run: Run,
        context: TaskContext,
        started_ns: int | None = None,
        on_record: Callable[[], None] | None = None,
    ) -> None:
        _init(self, runtime, run, started_ns, on_record)
        self.loop_watch = runtime.loop_watch
        self._loop, self._task, self._cancelling = context
        self._held: dict[asyncio.Future[None], tuple[Step | None, int, Any]] = {}
        """What the tasks wait for that have come to a stop: the step, since when, the task."""
        self._loop_thread: int | None = None
        """The thread of the event loop, in development."""
        self._owing: asyncio.Task[Any] | None = None
        """The task that was cancelled by us, until that is taken back."""
        self.disconnect: Callable[[], bool] = _not_listening
        """Lets the application know that the connection has ended; returns whether it listened."""

    def dispatch(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop: `def` routes run their steps in worker threads."""
        if self._is_here():
            callback()
        else:
            self._loop.call_soon_threadsafe(callback)

    def later(self, seconds: float, call: Callable[[], None]) -> TimerHandle:
        """Call something after so many seconds. Only on the event loop."""
        return self._loop.call_later(seconds, call)

    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API."""
        return await self.runtime.drive(flow)

    def block(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API while this thread waits."""
        if self._is_here():
            flow.close()
            raise UsageError(
                "a blocking step tool that talks to the server, or to middleware that is async, "
                "was called on the event loop; "
                "use `from stephttp import step` in `async def` handlers"
            )
        return asyncio.run_coroutine_threadsafe(self.drive(flow), self._loop).result()

    def holds_up_loop(self) -> bool:
        """Return whether this thread runs the event loop of the handler."""
        return self._is_here()

    async def suspend(self, step: Step | None = None) -> None:
        """Wait where the handler cannot continue, until it is ended. Never returns."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._held[future] = step, self.now_ns(), asyncio.current_task()
        self.unwind_when_stuck()
        try:
            if self._task is None:
                future.cancel()
            elif self.turns is not None:
                self.turns.kept.cancel_late()
            await future
        except asyncio.CancelledError:
            if self.turns is not None and not self._ended_by_us:
                self._let_go(future)  # what is cut off now comes before what is while it waits
                await self.turns.come_after(None, ended=False)
            raise
        finally:
            self._let_go(future)

    def turn(self, step: Step, function: Callable[..., Any] | None) -> Awaitable[None] | None:
        """Return what to wait for before a remembered step is given back; `None`: nothing."""
        order, task = self.run.earlier.order, self._task
        if order is None or task is None:
            return None
        cuts = self.run.cuts
        first = self.turns is None and (cuts is None or cuts.late(step.hash) is None)
        if first and asyncio.current_task() is task and order.meet(step.hash):
            mark = object()  # the handler's own task is the only one so far; see `LoopTurns`
            given.set(mark)
            self._given = mark if is_waited_for(task) else None
            return None
        return self.turns_here().turn(step, function)

    def turns_here(self) -> LoopTurns:
        if self.turns is None:
            self.turns = LoopTurns(self, self._loop, self._task, self._given)
            if self._task is None:
                self.turns.close()
        return self.turns

    def note_branch(self, step: Step, branch: str) -> None:
        """Note who came to a step, in development, but for the task in which the handler is called:
        it was made before all branches, so it overtakes none and is overtaken by none."""
        # To ask which loop runs takes a system call (before Python 3.12), and each step comes here.
        thread = get_ident()
        if thread != self._loop_thread and self._task is not None and self._is_here():
            self._loop_thread = thread
        if thread != self._loop_thread or asyncio.current_task(self._loop) is not self._task:
            RunScope.note_branch(self, step, branch)

    def still_waits(self) -> bool:
        """Say whether the run still has to wait, now that the handler responds."""
        for future in [future for future in self._held if future.cancelled()]:
            self._let_go(future)
        with self.lock:
            self.run.leave_pending()
        return self.run.suspended

    def left_branches(self) -> bool:
        """Whether branches of the handler may have been left behind that are not at a step."""
        return self.look_aside().cut_short

    def unwind_when_stuck(self) -> None:
        """End the handler if none of its steps can progress any more."""
        if self.run.stuck:
            if not self._ticks:
                self._loop.call_soon(self._tick)
            self._ticks = SETTLE_TICKS

    def close(self, error: BaseException | None) -> bool:
        """Note that the handler has ended, and cancel what `suspend` still holds."""
        _close(self, error)
        if self.guarded:
            self.guarded = False
            self.handler_ends()
        task, self._task = self._task, None
        if self.turns is not None:
            self.turns.close()
        self.disconnect = _not_listening  # what it was bound to leads back to this scope
        for future in self._held:
            future.cancel(ENOUGH)
        return self._cancelled_by_others(task, error)

    def handler_begins(self) -> None:
        """Note in which task a decorated handler begins."""
        if self._task is not None and self._is_here():
            task = asyncio.current_task()
            if task is not None:
                self._outer = self._task, self._cancelling
                self._task, self._cancelling = task, task.cancelling()

    def cancelled_in_handler(self, error: BaseException | None) -> bool:
        """Take back what ended a decorated handler, so that code behind it may await again."""
        return self._outer is not None and self._cancelled_by_others(self._task, error)

    def handler_ends(self) -> None:
        """Note that the task of the application is the one to be ended again."""
        outer, self._outer = self._outer, None
        if outer is not None and self._task is not None:
            self._task, self._cancelling = outer

    async def end(self, error: BaseException | None) -> BaseException | None:
        """End the run whose application has returned, or raised `error`.

        Returns:
            The exception that ended the application, if it is its own: not the echo of a
            suspension, however wrapped.

        Raises:
            CancelledError: something else than the SDK cancelled this request.
        """
        cancelled = self.close(error)
        answered = self.run.cannot_wait is not None or error is not None or self.run.suspended
        if cancelled or not answered:
            self.run.forget_cuts()
        if cancelled or (error is not None and isinstance(error, KeyboardInterrupt | SystemExit)):
            self.run.end()
            raise error or asyncio.CancelledError
        if self.run.cannot_wait is None and (
            error is None or isinstance(error, self.ENDINGS) or echoes_suspension(error)
        ):
            self.run.wait_after_all()
        if self.run.suspended:
            await self.drive(self.join_steps())
        return self.own_error(error)

    def _cancelled_by_others(
        self, task: asyncio.Task[Any] | None, error: BaseException | None
    ) -> bool:
        """Take our cancellation of a task back that has ended, or whose handler has."""
        if task is None or self._owing is not task:
            return isinstance(error, asyncio.CancelledError) and error.args != (ENOUGH,)
        self._owing = None
        if task.cancelling() > self._cancelling:
            task.uncancel()
        return task.cancelling() > self._cancelling

    def _let_go(self, future: asyncio.Future[None]) -> None:
        """Let go of a future of `suspend` that was cancelled, by the handler or by us."""
        held = self._held.pop(future, None)
        if held is not None and self._task is not None:
            step, since_ns, _ = held
            with self.lock:
                self.run.give_up(step, self.times(since_ns))

    def _look_at_waits(self) -> None:
        """See what holds the handler, while it still stands where it does."""
        if self.run.passed:
            held = [task for _, _, task in self._held.values()]
            self.parked = self._task in held and not self.look_aside().others(held)
        if self.runtime.settings.dev:
            self._warn_of_limits()

    def _warn_of_limits(self) -> None:
        """Say which waits are inside of a limit that cannot end them."""
        held = [(step.step_id, task) for step, _, task in self._held.values() if step is not None]
        held += [(step_id, self._task) for step_id, task in held if task is not self._task]
        waits = [(step_id, task) for step_id, task in held if task is not None]
        if unknown := [wait for wait in waits if _is_new(*wait)]:
            warn_of_limits(unknown)

    def look_aside(self) -> SideTasks:
        """See which tasks the handler has, beside the one in which this runs."""
        task = self._task if self._outer is None else self._outer[0]
        self._side_tasks = side_tasks = self._side_tasks or SideTasks(self, task)
        side_tasks.look()
        return side_tasks

    def _is_here(self) -> bool:
        """Whether this thread runs the event loop of the handler."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _tick(self) -> None:
        """End the handler once it has waited, without running a step, for long enough.

        The handler's own task is cancelled, so that `gather`, task groups, cancel scopes and
        `finally` blocks do what they do for any cancellation, in their order. That is done once,
        and not at all if others did it: a second cancellation would hit clean-up that awaits
        something. If code on the way caught that cancellation, some tasks are still held in
        `suspend`; those are then cancelled there.

        Quart and Django have the handler in a task of its own beside one that listens for the end
        of the connection, and leave both behind when they are cancelled. For them the connection
        is ended instead, so that they do what they do for that; but a decorated handler is in the
        task that is cancelled, and its framework does not notice.
        """
        self._ticks = ticks = self._ticks - 1
        if self._task is None or not self.run.stuck:
            self._ticks = 0
        elif ticks:
            self._loop.call_soon(self._tick)
            if ticks == 1:
                self._look_at_waits()
        elif self._held and self._outer is None and self.disconnect():
            self.run.unwind()
            self.unwind_when_stuck()
        elif self._held and not self._ended_by_us and self._task.cancelling() <= self._cancelling:
            self.run.unwind()
            self._ended_by_us = True
            self._owing = self._task
            self._task.cancel(ENOUGH)
            self.unwind_when_stuck()
        else:
            self.run.unwind()
            for future in self._held:
                future.cancel(ENOUGH)


_looked_at: dict[tuple[Any, ...], list[CodeType]] = {}
"""By step id and the identities of code objects, which are kept here: their hash is of all that is
in them, and made again each time."""
_MOST_LOOKED_AT = 10_000
"""Then it is emptied: ids of steps may hold the ids of orders."""


def _is_new(step_id: str, task: asyncio.Task[Any]) -> bool:
    """Return whether it is still unknown what is around a wait, by step and code."""
    coroutine: Any = task.get_coro()
    place: list[CodeType] = []
    try:  # there are some thirty, and `getattr` takes twice the instructions
        while True:
            place.append(coroutine.cr_code)
            coroutine = coroutine.cr_await
    except AttributeError:  # the innermost waits for something else than a coroutine
        pass
    key = step_id, *map(id, place)
    if key in _looked_at:
        return False
    if len(_looked_at) >= _MOST_LOOKED_AT:
        _looked_at.clear()
    _looked_at[key] = place
    return True


def _not_listening() -> bool:
    return False
