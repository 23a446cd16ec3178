"""The event loop of a blocking client: a thread of its own, while the test's thread waits and calls
WSGI applications.

WSGI applications are called in the thread of the test, as by the test clients of Flask and Django,
so that they see its database connections, its transactions, and its patched modules.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from stephttp.errors import UsageError
from stephttp.testing.tracebacks import without_client

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds of real time that one call of a client may take."""
_GRACE = 5.0
"""Seconds of real time after which a call that was cancelled must have ended."""
_TOO_LONG = (
    "the application has been at work for {:g} s of real time; does it wait for what only "
    "the test can do, or for another request of its own?"
)


async def within(patience: float, work: Awaitable[T]) -> T:
    """Carry out something that is to take so many seconds of real time at most.

    Raises:
        UsageError: it takes more.
    """
    limit = asyncio.timeout(patience)
    try:
        async with limit:
            return await work
    except Exception as error:
        if limit.expired() and isinstance(error, TimeoutError):
            raise UsageError(_TOO_LONG.format(patience)) from None
        without_client(error)
        raise


class LoopThread:
    """An event loop in a thread, and the work that it hands to the thread of the test.

    Args:
        patience: seconds of real time after which a call is given up.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self.stuck = False
        """Whether a call does not end, although it was cancelled. Its replacements stay."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self.loop = asyncio.new_event_loop()
        self._owner = threading.get_ident()
        self._deadline: float | None = None
        """When the present call of the client is given up."""
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="stephttp-testing", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out a coroutine on the loop, and return what it returns; raises what it raises.

        Raises:
            UsageError: it takes more real time than it should, or the client is closed. It has
                ended by then, unless `stuck` says otherwise.
        """
        if self.loop.is_closed():
            work.close()
            raise UsageError(
                "the client of this request is closed, and its engine with it; use the request "
                "inside of the `with` block"
            )
        begun: set[asyncio.Task[Any]] = set()
        future = asyncio.run_coroutine_threadsafe(self._noted(work, begun), self.loop)
        try:
            return self.wait(future)
        except UsageError:
            if future.cancelled():
                self._see_end(begun)
            raise

    def wait(self, future: Future[T], grace: float = 0.0) -> T:
        """Wait for a future, in any thread but that of the loop; that of the test works meanwhile.

        Args:
            future: what to wait for.
            grace: seconds of real time that it may take longer.

        Raises:
            UsageError: it takes more real time than it should.
        """
        try:
            if threading.get_ident() != self._owner:
                wait_for((future,), self._patience + grace)
            else:
                self._work_until(future, grace)
        except Empty:
            pass
        if not future.done():
            future.cancel()
            raise UsageError(_TOO_LONG.format(self._patience))
        return _outcome(future)

    def _work_until(self, future: Future[T], grace: float) -> None:
        """Do the work of the test's thread until a future is done. Calls that wait inside of
        such work have no more time than the call of the client, but for a grace."""
        outer = self._deadline
        if outer is None or grace:
            self._deadline = time.monotonic() + self._patience + grace
        try:
            future.add_done_callback(lambda _: self._jobs.put(None))
            while not future.done():
                assert self._deadline is not None
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise Empty
                job = self._jobs.get(timeout=left)
                if job is not None:
                    job()
        finally:
            self._deadline = outer

    async def in_test(self, work: Callable[[], T]) -> T:
        """Do something in the thread of the test, which waits for a call of the client."""
        done: Future[T] = Future()

        def job() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                with suppress(BaseException):
                    done.set_exception(error)
                if not isinstance(error, Exception):
                    raise

        self._jobs.put(job)
        return await asyncio.wrap_future(done)

    def close(self, last: Coroutine[Any, Any, Any] | None = None) -> None:
        """End the loop and its thread; where a call is stuck, once that has ended.

        Args:
            last: a call that comes before; raises what it raises, unless one is stuck.
        """
        try:
            if last is not None and not self.stuck:
                now, last = last, None
                self.call(now)
        finally:
            if self.stuck:
                asyncio.run_coroutine_threadsafe(self._end(last), self.loop)
            else:
                self.loop.call_soon_threadsafe(self.loop.stop)
                self._thread.join()

    async def _end(self, last: Coroutine[Any, Any, Any] | None) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
        if last is not None:
            with suppress(Exception):
                await last
        self.loop.stop()

    async def _noted(self, work: Coroutine[Any, Any, T], begun: set[asyncio.Task[Any]]) -> T:
        """Carry out a call, and note its task."""
        task = asyncio.current_task()
        assert task is not None
        begun.add(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await work

    def _see_end(self, begun: set[asyncio.Task[Any]]) -> None:
        """Wait for the end of a call that was cancelled, and see whether it comes."""
        grace = min(self._patience, _GRACE)

        async def has_ended() -> bool:
            return not begun or not (await asyncio.wait(begun, timeout=grace))[1]

        try:
            ended = self.wait(asyncio.run_coroutine_threadsafe(has_ended(), self.loop), _GRACE)
        except UsageError:  # the loop itself stands still
            ended = False
        self.stuck = self.stuck or not ended

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()


def _outcome(future: Future[T]) -> T:
    """Return what a future that is done has; raises what it has, without frames of its module in
    the traceback, which pytest would show."""
    if future.cancelled() or (error := future.exception()) is None:
        return future.result()
    without_client(error)
    try:
        raise error
    finally:
        del error, future  # or its traceback and it hold each other
