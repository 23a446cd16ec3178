"""A run whose handler lives on an event loop, with or without worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stephttp._client.event_loop import running_loop
from stephttp._core.run import Run
from stephttp._run.scope import SETTLE_TICKS, RunScope, T
from stephttp.errors import UsageError

if TYPE_CHECKING:
    from stephttp._client.flow import Flow
    from stephttp._run.runtime import Runtime

_ENOUGH = "the run goes on in a later call"
"""Message of our own cancellations, to know them from others'."""


Home = tuple[asyncio.AbstractEventLoop, "asyncio.Task[Any] | None", int]
"""Where a handler is called: loop, task, and what `task.cancelling()` said then. That is compared
to, because a task group that failed leaves a count of its own behind (fixed in Python 3.13), and so
may whoever called us."""


def here() -> Home:
    """Where this code runs."""
    task = asyncio.current_task()
    return asyncio.get_running_loop(), task, 0 if task is None else task.cancelling()


class LoopScope(RunScope):
    """One run in one call of the handler, on one event loop. See `RunScope`.

    Args:
        home: where the handler is called.
    """

    __slots__ = (
        "_cancelling",
        "_ended_by_us",
        "_loop",
        "_parked",
        "_settling",
        "_task",
        "hang_up",
    )

    def __init__(
        self,
        runtime: Runtime,
        run: Run,
        on_record: Callable[[], None] | None = None,
        *,
        home: Home,
        started_ns: int | None = None,
    ) -> None:
        super().__init__(runtime, run, on_record, started_ns)
        self._loop, self._task, self._cancelling = home
        self._ended_by_us = False
        self._settling = 0
        self._parked: set[asyncio.Future[None]] = set()
        self.hang_up: Callable[[], bool] = _nobody_listens
        """Tells the application that nobody waits for its answer; whether it was listening."""

    def at_home(self, call: Callable[[], None]) -> None:
        """Make a call on the event loop: `def` routes run their steps in worker threads."""
        if running_loop() is self._loop:
            call()
        else:
            self._loop.call_soon_threadsafe(call)

    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API."""
        return await self.runtime.drive(flow)

    def block(self, flow: Flow[T]) -> T:
        """The same while this thread waits."""
        if running_loop() is self._loop:
            flow.close()
            raise UsageError(
                "a blocking step tool that talks to the server, or to middleware that is async, "
                "was called on the event loop; "
                "use `from stephttp import step` in `async def` handlers"
            )
        return asyncio.run_coroutine_threadsafe(self.drive(flow), self._loop).result()

    async def park(self) -> None:
        """Wait where the handler cannot go on, until it is ended. Never returns."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._parked.add(future)
        self.settle()
        try:
            if self._task is None:
                future.cancel()
            await future
        finally:
            self._parked.discard(future)

    def close(self, error: BaseException | None) -> bool:
        """The handler has ended, with or without `error`: release whatever is still parked.

        Returns:
            Whether somebody else wants the current task cancelled.
        """
        task, self._task = self._task, None
        self.hang_up = _nobody_listens  # what it was bound to leads back to us
        for future in self._parked:
            future.cancel(_ENOUGH)
        if task is None or not self._ended_by_us:
            return isinstance(error, asyncio.CancelledError) and error.args != (_ENOUGH,)
        if task.cancelling() > self._cancelling:
            task.uncancel()
        return task.cancelling() > self._cancelling

    def settle(self) -> None:
        """End the handler if none of its steps can progress any more."""
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

        Quart and Django have the handler in a task of its own beside one that listens for the end
        of the connection, and leave both behind when they are cancelled. They are told that the
        connection has ended, and then do what they do for that.
        """
        self._settling -= 1
        if self._task is None or not self.run.settled:
            self._settling = 0
        elif self._settling:
            self._loop.call_soon(self._tick)
        elif self._parked and self.hang_up():
            self.run.unwind()
            self.settle()
        elif self._parked and not self._ended_by_us and self._task.cancelling() <= self._cancelling:
            self.run.unwind()
            self._ended_by_us = True
            self._task.cancel(_ENOUGH)
            self.settle()
        else:
            self.run.unwind()
            for future in self._parked:
                future.cancel(_ENOUGH)


def _nobody_listens() -> bool:
    return False
