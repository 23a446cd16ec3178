"""`AsyncDurableClient`, for `async def` tests: application and engine on the event loop of
the test.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from stephttp._client.background import running_loop
from stephttp.errors import UsageError
from stephttp.testing.async_call import AsyncCall
from stephttp.testing.base_client import BaseClient
from stephttp.testing.calls import Exchange
from stephttp.testing.loop_thread import within
from stephttp.testing.places_in_code import place_here
from stephttp.testing.recorded import RecordedEvent, RecordedRun

T = TypeVar("T")


class AsyncDurableClient(BaseClient[AsyncCall]):
    """Sends requests to a durable application, and moves the time of its runs.

    The counterpart of `DurableClient` for `async def` tests, with the same methods, to be awaited.
    An application of ASGI is called on the event loop of the test, one of WSGI in threads.
    """

    _opening = "async with AsyncDurableClient(app) as client:"

    async def __aenter__(self) -> Self:
        if running_loop() is None:
            raise UsageError(
                "AsyncDurableClient needs an event loop of asyncio; with anyio's pytest plugin, "
                "choose its backend 'asyncio' for this test"
            )
        await self._start(place_here(sys._getframe(1)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._world.check()
            else:
                await self._world.explain(error)
        finally:
            await self._world.close()
        if error is None:
            self._stubs.check_used()

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, follow_redirects: bool | None = None, **options: Any
    ) -> AsyncGenerator[httpx2.Response]:
        """Make a request, and read its response as it comes, with `iter_lines()` and so on.

        While nothing comes, time passes. The stream of a run that waits continues where its last
        event says, unless redirects are not followed.

        Args:
            method: of HTTP.
            url: a path, or a whole address.
            follow_redirects: as for the client.
            **options: as those of `request`.

        Returns:
            The response, as that of `httpx.AsyncClient.stream`.

        Raises:
            Stuck: nothing comes any more, and the response does not end.
        """
        exchange = self._exchange(method, url, follow_redirects, options)
        followed = await within(self._patience, exchange.streamed())
        try:
            yield followed.for_loop(self._patience)
        finally:
            await followed.aclose()

    async def runs(self) -> list[RecordedRun]:
        """Return all runs as they stand now, in the order in which they began."""
        return await self._world.runs()

    async def events(self) -> list[RecordedEvent]:
        """Return all events that the application and the test have sent so far, in order."""
        return await self._world.events()

    async def advance(self, time: timedelta) -> None:
        """Let time pass; what falls due meanwhile happens at its time.

        Args:
            time: how much.
        """
        await self._do(self._world.advance, time)

    async def send_event(
        self, name: str, data: Mapping[str, Any] | None = None, *, id: str | None = None
    ) -> None:
        """Send an event from outside; runs that wait for it continue.

        Args:
            name: of the event.
            data: plain JSON.
            id: deduplicates.
        """
        await self._do(self._world.send_event, name, data, id)

    async def send_signal(self, name: str, data: Any = None) -> None:
        """Send a signal; the run that waits for it continues.

        Args:
            name: of the signal.
            data: plain JSON.

        Raises:
            AssertionError: no run waits for it.
        """
        await self._do(self._world.send_signal, name, data)

    async def cancel(self, run: RecordedRun | str) -> None:
        """End a run as cancelled.

        Args:
            run: the run, or its id.
        """
        await self._do(self._world.cancel, run if isinstance(run, str) else run.id)

    async def run(self, run_id: str) -> RecordedRun:
        """Return a run as it stands now.

        Args:
            run_id: a ULID.

        Raises:
            LookupError: the engine does not have it.
        """
        return await self._world.run(run_id)

    async def save(self, path: str | Path) -> None:
        """Write the engine's database to a file, for `stephttp start --db FILE` and its dashboard.

        Args:
            path: the file; one that exists is replaced.
        """
        await self._do(self._world.save, Path(path))

    def _call(self, exchange: Exchange) -> AsyncCall:
        return AsyncCall(exchange, self._patience)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    def _wait(self, future: Future[T]) -> T:
        return future.result()

    async def _do(self, work: Callable[..., Awaitable[Any]], *args: Any) -> None:
        await within(self._patience, work(*args))
        self._world.check()
