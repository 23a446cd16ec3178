"""A run whose handler lives in a thread of a WSGI server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stephttp._client.background import off_loop
from stephttp._core.run import Run
from stephttp._run.scope import SETTLE_TICKS, RunScope, T
from stephttp.errors import Suspended

if TYPE_CHECKING:
    import asyncio

    from stephttp._client.flow import Flow
    from stephttp._run.runtime import Runtime


class ThreadScope(RunScope):
    """One run in one call of the handler, in one thread, or in several by `step.parallel`."""

    __slots__ = ("_parked",)

    def __init__(
        self, runtime: Runtime, run: Run, on_record: Callable[[], None] | None = None
    ) -> None:
        super().__init__(runtime, run, on_record)
        self._parked: list[asyncio.Future[None]] = []

    def at_home(self, call: Callable[[], None]) -> None:
        """Make a call: the book-keeping is done in whatever thread a step ends."""
        off_loop(call)

    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API in a thread: the loop of an async view ends with it."""
        import asyncio

        return await asyncio.to_thread(self.block, flow)

    def block(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API."""
        return self.runtime.drive_sync(flow)

    async def park(self) -> None:
        """End an `async def` view, which its framework runs on an event loop of its own.

        The steps beside this one come as far as they can first.
        """
        import asyncio

        idle = 0
        while idle < SETTLE_TICKS:
            moved: asyncio.Future[None] | None = None
            with self._lock:
                if not self.run.settled:
                    moved = asyncio.get_running_loop().create_future()
                    self._parked.append(moved)
            if moved is None:
                idle += 1
                await asyncio.sleep(0)
            else:
                idle = 0
                await moved
        with self._lock:
            self.run.unwind()
        raise Suspended

    def settle(self) -> None:
        """Let those who are parked see whether anything of this run can progress."""
        if not self._parked:
            return
        with self._lock:
            parked, self._parked = self._parked, []
        for future in parked:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_release, future)

    def close(self, error: BaseException | None) -> bool:
        """The handler has ended; nobody is parked any more, because its loop has ended with it."""
        self._parked = []
        return False


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
