"""`DurableClient`, the blocking client: for plain test functions, pytest and `unittest`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from stephttp._client.background import running_loop
from stephttp.errors import UsageError
from stephttp.testing.base_client import BaseClient
from stephttp.testing.blocking_call import Call
from stephttp.testing.calls import Exchange
from stephttp.testing.loop_thread import LoopThread
from stephttp.testing.places_in_code import place_here
from stephttp.testing.recorded import RecordedEvent, RecordedRun

T = TypeVar("T")


class DurableClient(BaseClient[Call]):
    """Sends requests to a durable application, and moves the time of its runs.

    The interface is that of httpx's clients, and of Starlette's: `get`, `post` and so on, with
    `json=`, `headers=`, `params=`; cookies are kept. Use it as a context manager: it starts the
    application (its lifespan) and an engine in memory, and ends both.

    An application of ASGI is called in a thread with an event loop, one of WSGI in the thread of
    the test.
    """

    _opening = "with DurableClient(app) as client:"
    _loop: LoopThread | None = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._world.check()
            elif self._loop is not None:
                self._loop.call(self._world.explain(error))
        finally:
            self.close()
        if error is None:
            self._stubs.check_used()

    def open(self) -> Self:
        """Start engine and application, where a `with` statement does not fit; then `close` it.

        Raises:
            UsageError: it is open, or an event loop runs in this thread.
        """
        if self._loop is not None:
            raise UsageError("this client is open already")
        if running_loop() is not None:
            raise UsageError(
                "DurableClient would block the event loop that runs here; in an async test use "
                "`async with AsyncDurableClient(app) as client:`"
            )
        self._loop = LoopThread(self._patience)
        try:
            self._loop.call(self._start(place_here(sys._getframe(1))))
        except BaseException:
            self._end_loop()
            raise
        return self

    def close(self) -> None:
        """End application and engine, if they are open. The runs end with the engine in memory;
        `open` starts a new one, at the time that the clock shows."""
        if self._loop is None:
            return
        try:
            self._loop.call(self._world.close())
        finally:
            self._end_loop()

    @contextmanager
    def stream(
        self, method: str, url: str, *, follow_redirects: bool | None = None, **options: Any
    ) -> Generator[httpx2.Response]:
        """Make a request, and read its response as it comes, with `iter_lines()` and so on.

        While nothing comes, time passes. The stream of a run that waits continues where its last
        event says, unless redirects are not followed.

        Args:
            method: of HTTP.
            url: a path, or a whole address.
            follow_redirects: as for the client.
            **options: as those of `request`.

        Returns:
            The response, as that of `httpx.Client.stream`.

        Raises:
            Stuck: nothing comes any more, and the response does not end.
        """
        loop = self._opened
        exchange = self._exchange(method, url, follow_redirects, options)
        followed = loop.call(exchange.streamed())
        try:
            yield followed.for_thread(loop.call)
        finally:
            loop.call(followed.aclose())

    @property
    def runs(self) -> list[RecordedRun]:
        """All runs as they stand now, in the order in which they began."""
        return self._opened.call(self._world.runs())

    @property
    def events(self) -> list[RecordedEvent]:
        """All events that the application and the test have sent so far, in order."""
        return self._opened.call(self._world.events())

    def advance(self, time: timedelta) -> None:
        """Let time pass; what falls due meanwhile happens at its time.

        Args:
            time: how much.
        """
        self._do(self._world.advance, time)

    def send_event(
        self, name: str, data: Mapping[str, Any] | None = None, *, id: str | None = None
    ) -> None:
        """Send an event from outside; runs that wait for it continue.

        Args:
            name: of the event.
            data: plain JSON.
            id: deduplicates.
        """
        self._do(self._world.send_event, name, data, id)

    def send_signal(self, name: str, data: Any = None) -> None:
        """Send a signal; the run that waits for it continues.

        Args:
            name: of the signal.
            data: plain JSON.

        Raises:
            AssertionError: no run waits for it.
        """
        self._do(self._world.send_signal, name, data)

    def cancel(self, run: RecordedRun | str) -> None:
        """End a run as cancelled.

        Args:
            run: the run, or its id.
        """
        self._do(self._world.cancel, run if isinstance(run, str) else run.id)

    def run(self, run_id: str) -> RecordedRun:
        """Return a run as it stands now.

        Args:
            run_id: a ULID.

        Raises:
            LookupError: the engine does not have it.
        """
        return self._opened.call(self._world.run(run_id))

    def save(self, path: str | Path) -> None:
        """Write the engine's database to a file, for `stephttp start --db FILE` and its dashboard.

        Args:
            path: the file; one that exists is replaced.
        """
        self._do(self._world.save, Path(path))

    @property
    def _opened(self) -> LoopThread:
        if self._loop is None:
            raise self._world.not_open()
        return self._loop

    def _call(self, exchange: Exchange) -> Call:
        self._opened.call(exchange.first())
        return Call(exchange, self._opened)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._opened.in_test(work)

    def _wait(self, future: Future[T]) -> T:
        return self._opened.wait(future)

    def _do(self, work: Callable[..., Any], *args: Any) -> None:
        self._opened.call(work(*args))
        self._world.check()

    def _end_loop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()
