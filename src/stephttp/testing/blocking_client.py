"""The blocking client: for plain test functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from stephttp._client.background import running_loop
from stephttp.errors import UsageError
from stephttp.provider import Provider
from stephttp.testing.always_replay import AlwaysReplay
from stephttp.testing.blocking_call import Call
from stephttp.testing.calls import Exchange
from stephttp.testing.findings import Finding
from stephttp.testing.loop_thread import PATIENCE, LoopThread
from stephttp.testing.recorded import RecordedEvent, RecordedRun
from stephttp.testing.stubbing import Stubbing
from stephttp.testing.stubs import Stubs
from stephttp.testing.world import World

T = TypeVar("T")

BASE_URL = "http://testserver"


class DurableClient(Stubbing):
    """Sends requests to a durable application, and moves the time of its runs.

    The interface is that of httpx's clients, and of Starlette's: `get`, `post` and so on, with
    `json=`, `headers=`, `params=`; cookies are kept. Use it as a context manager: it starts the
    application (its lifespan) and an engine in memory, and ends both.

    An application of ASGI is called in a thread with an event loop, one of WSGI in the thread of
    the test.

    Args:
        app: the application, of ASGI or WSGI, with the durable middleware.
        provider: the provider of that middleware, or several, where they cannot be found in it.
        base_url: the origin at which the application is called.
        headers: of every request.
        cookies: of every request.
        start: the first time that the clock shows; `None`: the present.
        raise_server_exceptions: whether what the application raises in a first call is raised in
            the test; otherwise the answer is a 500.
        follow_redirects: whether redirects are followed, to the results of runs and elsewhere.
        database: the engine's file, to look into it later; `None`: in memory.
        always_replay: whether each step is in a call of its own, and each call is compared with
            the one before it; what differs fails the test with a `ReplayError`.
        ignored_findings: kinds of findings of `always_replay` that do not fail it.
        patience: seconds of real time that one call of the client may take.

    Raises:
        ConfigurationError: the application is not one, or has no durable middleware.
    """

    def __init__(
        self,
        app: Any,
        *,
        provider: Provider | Iterable[Provider] = (),
        base_url: str = BASE_URL,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        start: datetime | None = None,
        raise_server_exceptions: bool = True,
        follow_redirects: bool = True,
        database: str | Path | None = None,
        always_replay: bool = False,
        ignored_findings: Iterable[str] = (),
        patience: float = PATIENCE,
    ) -> None:
        self._patience = patience
        self._follow = follow_redirects
        self._headers = dict(headers or {})
        self._cookies = dict(cookies or {})
        self._loop: LoopThread | None = None
        self._stubs = Stubs()
        self._world = World(
            app,
            providers=(provider,) if isinstance(provider, Provider) else tuple(provider),
            base_url=base_url,
            start=start,
            database=None if database is None else Path(database),
            raises=raise_server_exceptions,
            stubs=self._stubs,
            always_replay=AlwaysReplay(tuple(ignored_findings)) if always_replay else None,
            in_thread=self._in_test,
            wait=self._wait,
            opening="with DurableClient(app) as client:",
        )

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
            self._loop.call(self._world.open())
            self._world.client.headers.update(self._headers)
            self._world.client.cookies.update(self._cookies)
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

    @property
    def findings(self) -> list[Finding]:
        """What `always_replay` has found so far."""
        always = self._world.always_replay
        return [] if always is None else list(always.findings)

    @property
    def cookies(self) -> httpx2.Cookies:
        """The cookies that were set so far, and are sent."""
        return self._world.client.cookies

    @property
    def headers(self) -> httpx2.Headers:
        """The headers of every request."""
        return self._world.client.headers

    @property
    def now(self) -> datetime:
        """What the clock shows, in UTC."""
        return self._world.now

    @property
    def runs(self) -> list[RecordedRun]:
        """All runs as they stand now, in the order in which they began."""
        return self._opened.call(self._world.runs())

    @property
    def events(self) -> list[RecordedEvent]:
        """All events that the application and the test have sent so far, in order."""
        return self._opened.call(self._world.events())

    def request(
        self, method: str, url: str, *, follow_redirects: bool | None = None, **options: Any
    ) -> Call:
        """Send a request, and return once its first call of the handler has ended.

        Args:
            method: of HTTP.
            url: a path, or a whole address.
            follow_redirects: as for the client.
            **options: as those of `httpx.Client.request`: `json`, `data`, `files`, `content`,
                `params`, `headers`, `cookies`.

        Returns:
            The request's run, and its response. Time passes only when the answer is used, or with
            the methods of the result.

        Raises:
            Exception: what the application raises.
        """
        follow = self._follow if follow_redirects is None else follow_redirects
        opened = self._opened
        request = self._world.client.build_request(method, url, **options)
        exchange = Exchange(self._world, request, follow=follow)
        opened.call(exchange.first())
        return Call(exchange, opened)

    def get(self, url: str, **options: Any) -> Call:
        """Send a GET request; see `request`."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> Call:
        """Send a POST request; see `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> Call:
        """Send a PUT request; see `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> Call:
        """Send a PATCH request; see `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> Call:
        """Send a DELETE request; see `request`."""
        return self.request("DELETE", url, **options)

    def head(self, url: str, **options: Any) -> Call:
        """Send a HEAD request; see `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Any) -> Call:
        """Send an OPTIONS request; see `request`."""
        return self.request("OPTIONS", url, **options)

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

    async def _in_test(self, work: Callable[[], T]) -> T:
        return await self._opened.in_test(work)

    def _wait(self, future: Future[T]) -> T:
        return self._opened.wait(future)

    def _do(self, work: Callable[..., Any], *args: Any) -> Any:
        done = self._opened.call(work(*args))
        self._world.check()
        return done

    def _end_loop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()
