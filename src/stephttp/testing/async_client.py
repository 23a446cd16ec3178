"""The client for `async def` tests: application and engine on the event loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from stephttp._client.background import running_loop
from stephttp.errors import UsageError
from stephttp.provider import Provider
from stephttp.testing.always_replay import AlwaysReplay
from stephttp.testing.async_call import AsyncCall
from stephttp.testing.blocking_client import BASE_URL
from stephttp.testing.calls import Exchange
from stephttp.testing.findings import Finding
from stephttp.testing.loop_thread import PATIENCE, within
from stephttp.testing.recorded import RecordedEvent, RecordedRun
from stephttp.testing.stubbing import Stubbing
from stephttp.testing.stubs import Stubs
from stephttp.testing.world import World


class AsyncDurableClient(Stubbing):
    """Sends requests to a durable application, and moves the time of its runs.

    The counterpart of `DurableClient` for `async def` tests, with the same methods, to be awaited.
    An application of ASGI is called on the event loop of the test, one of WSGI in threads.

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
        patience: seconds of real time that one request or method may take.

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
            in_thread=asyncio.to_thread,
            wait=Future.result,
            opening="async with AsyncDurableClient(app) as client:",
        )

    async def __aenter__(self) -> Self:
        if running_loop() is None:
            raise UsageError(
                "AsyncDurableClient needs an event loop of asyncio; with anyio's pytest plugin, "
                "choose its backend 'asyncio' for this test"
            )
        await self._world.open()
        self._world.client.headers.update(self._headers)
        self._world.client.cookies.update(self._cookies)
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

    async def runs(self) -> list[RecordedRun]:
        """Return all runs as they stand now, in the order in which they began."""
        return await self._world.runs()

    async def events(self) -> list[RecordedEvent]:
        """Return all events that the application and the test have sent so far, in order."""
        return await self._world.events()

    def request(
        self, method: str, url: str, *, follow_redirects: bool | None = None, **options: Any
    ) -> AsyncCall:
        """Make a request; it is sent when the result is awaited.

        Args:
            method: of HTTP.
            url: a path, or a whole address.
            follow_redirects: as for the client.
            **options: as those of `httpx.AsyncClient.request`: `json`, `data`, `files`, `content`,
                `params`, `headers`, `cookies`.

        Returns:
            The request, to be awaited.
        """
        follow = self._follow if follow_redirects is None else follow_redirects
        request = self._world.client.build_request(method, url, **options)
        return AsyncCall(Exchange(self._world, request, follow=follow), self._patience)

    def get(self, url: str, **options: Any) -> AsyncCall:
        """Make a GET request; see `request`."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> AsyncCall:
        """Make a POST request; see `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> AsyncCall:
        """Make a PUT request; see `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> AsyncCall:
        """Make a PATCH request; see `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> AsyncCall:
        """Make a DELETE request; see `request`."""
        return self.request("DELETE", url, **options)

    def head(self, url: str, **options: Any) -> AsyncCall:
        """Make a HEAD request; see `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Any) -> AsyncCall:
        """Make an OPTIONS request; see `request`."""
        return self.request("OPTIONS", url, **options)

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

    async def _do(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        done = await within(self._patience, work(*args))
        self._world.check()
        return done
