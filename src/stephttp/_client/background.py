"""Work beside the requests: tasks and timers of an event loop, or threads, as under WSGI.

Where an event loop runs, they are its tasks and timers; elsewhere, as under WSGI, threads.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TYPE_CHECKING, Generic, Protocol

from msgspec import Struct

from stephttp._client.blocking_driver import SyncDriver
from stephttp._client.drivers import AsyncDriver
from stephttp._client.flow import Flow, T

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("stephttp")


_off_loop: ContextVar[bool] = ContextVar("stephttp_off_loop", default=False)


def off_loop(call: Callable[[], None]) -> None:
    """Make a call whose work in the background is left to threads, even where an event loop runs:
    to one that ends with the `async def` view of a WSGI application."""
    token = _off_loop.set(True)
    try:
        call()
    finally:
        _off_loop.reset(token)


class TimerHandle(Protocol):
    """A pending call, as `loop.call_later` returns it."""

    def cancel(self) -> None: ...


class Job(Struct, Generic[T], frozen=True):
    """A flow that is carried out in the background."""

    outcome: Future[T]
    alive: Callable[[], bool]
    """True if it is being carried out: not when it has ended, nor when its loop has."""
    cancel: Callable[[], object]
    """Cancel it, where that is possible: a thread ends by itself."""


class Background:
    """Starts what is done beside the requests of a provider.

    Args:
        driver: carries out flows on event loops.
        sync_driver: carries out flows in threads.
    """

    def __init__(self, driver: AsyncDriver, sync_driver: SyncDriver) -> None:
        self._driver = driver
        self._sync_driver = sync_driver
        self._schedule = Schedule()

    def start(self, flow: Flow[T], name: str) -> Job[T]:
        """Carry out a flow in the background.

        Args:
            name: of the task or thread.
        """
        loop = _running_loop()
        if loop is None:
            return self._in_a_thread(flow, name)
        task = loop.create_task(self._driver.run(flow), name=name)
        outcome: Future[T] = Future()
        task.add_done_callback(lambda task: _pass_on(task, outcome))
        return Job(outcome, lambda: not task.done() and loop.is_running(), task.cancel)

    def later(self, seconds: float, call: Callable[[], None]) -> TimerHandle:
        """Call something after so many seconds, on this event loop or in a thread."""
        loop = _running_loop()
        if loop is None:
            return self._schedule.set(seconds, call)
        return loop.call_later(seconds, call)

    def reset_after_fork(self) -> None:
        """Start again in a forked process."""
        self._schedule = Schedule()

    def _in_a_thread(self, flow: Flow[T], name: str) -> Job[T]:
        outcome: Future[T] = Future()

        def work() -> None:
            try:
                outcome.set_result(self._sync_driver.run(flow))
            except BaseException as error:
                outcome.set_exception(error)

        # A daemon: the process may end without it, after the drain at its exit.
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return Job(outcome, thread.is_alive, lambda: None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread. Does not import asyncio."""
    imported = sys.modules.get("asyncio")
    if imported is None:
        return None
    try:
        loop: asyncio.AbstractEventLoop = imported.get_running_loop()
    except RuntimeError:
        return None
    return loop


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that does the background work, if one does."""
    return None if _off_loop.get() else running_loop()


def _pass_on(task: asyncio.Task[T], outcome: Future[T]) -> None:
    if task.cancelled():
        outcome.cancel()
        outcome.set_running_or_notify_cancel()  # or threads that wait for it wait forever
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


class ScheduledCall:
    """A call that is due at a time."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not make the call. One that has started continues."""
        self.call = None


class Schedule:
    """Makes calls when they are due, in one thread, which lives as long as there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, ScheduledCall]] = []
        self._order = itertools.count()
        self._thread: threading.Thread | None = None

    def set(self, seconds: float, call: Callable[[], None]) -> ScheduledCall:
        """Make a call after so many seconds."""
        scheduled = ScheduledCall(call)
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), scheduled))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="stephttp-schedule", daemon=True
                )
                self._thread.start()
            elif self._due[0][2] is scheduled:
                self._changed.notify()
        return scheduled

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._due and self._due[0][2].call is None:
                    heapq.heappop(self._due)
                if not self._due:
                    self._thread = None
                    return
                left = self._due[0][0] - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                call = heapq.heappop(self._due)[2].call
            try:
                if call is not None:
                    call()
            except Exception:
                logger.exception("stephttp: a call in the background failed")
