"""The SDK's work in the background of a test's requests, such as its reports: on the loop of
the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar

from stephttp._client.background import Background, Job, ScheduledCall, TimerHandle, running_loop
from stephttp._client.blocking_driver import SyncDriver
from stephttp._client.drivers import AsyncDriver
from stephttp._client.flow import Flow, T

beside_requests: ContextVar[bool] = ContextVar("stephttp_beside_requests", default=False)
"""Whether the current code is work beside the requests."""


class OnLoop(Background):
    """Work beside the requests, all of it on one event loop: no thread outlives a test.

    Args:
        loop: the loop.
        driver: carries out flows on it.
        sync_driver: the same in threads; not used.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, driver: AsyncDriver, sync_driver: SyncDriver
    ) -> None:
        super().__init__(driver, sync_driver)
        self._loop = loop
        self._run = driver.run

    def start(self, flow: Flow[T], name: str) -> Job[T]:
        """Carry out a flow in the background."""
        token = beside_requests.set(True)
        try:
            if running_loop() is self._loop:
                return super().start(flow, name)
            outcome: Future[T] = asyncio.run_coroutine_threadsafe(self._run(flow), self._loop)
            return Job(outcome, lambda: not outcome.done(), outcome.cancel)
        finally:
            beside_requests.reset(token)

    def later(self, seconds: float, call: Callable[[], None]) -> TimerHandle:
        """Call something after so many seconds."""
        if running_loop() is self._loop:
            return self._loop.call_later(seconds, call)
        scheduled = ScheduledCall(call)

        def due() -> None:
            if scheduled.call is not None:
                scheduled.call()

        self._loop.call_soon_threadsafe(lambda: self._loop.call_later(seconds, due))
        return scheduled
