"""Parts that both clients share: their options, the verbs of HTTP, cookies, and what needs no
waiting.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import httpx2

from stephttp.provider import Provider
from stephttp.testing.always_replay import AlwaysReplay
from stephttp.testing.calls import Exchange
from stephttp.testing.findings import Finding, Place
from stephttp.testing.loop_thread import PATIENCE
from stephttp.testing.stubbing import Stubbing
from stephttp.testing.stubs import Stubs
from stephttp.testing.world import World

AnyCall = TypeVar("AnyCall")
"""What a client makes of a request."""
T = TypeVar("T")

BASE_URL = "http://testserver"


class BaseClient(Stubbing, ABC, Generic[AnyCall]):
    """The part that the blocking client and the async one have in common."""

    _opening: ClassVar[str]
    """How the client is opened, in code."""

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
        """Make a client, which is not open yet.

        Args:
            app: the application, of ASGI or WSGI, with the durable middleware.
            provider: the provider of that middleware, or several, where they cannot be found in it.
            base_url: the origin at which the application is called.
            headers: of every request.
            cookies: of every request.
            start: the first time that the clock shows; `None`: the present.
            raise_server_exceptions: whether what the application raises in a first call is raised
                in the test; otherwise the answer is a 500.
            follow_redirects: whether redirects are followed, to the results of runs and elsewhere.
            database: the engine's file, to look into it later; `None`: in memory.
            always_replay: whether each step is in a call of its own, and each call is compared with
                the one before it; what differs fails the test with a `ReplayError`.
            ignored_findings: kinds of findings of `always_replay` that do not fail it.
            patience: seconds of real time that one request or method may take.

        Raises:
            ConfigurationError: the application is not one, or has no durable middleware.
        """
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
            in_thread=self._in_thread,
            wait=self._wait,
            opening=self._opening,
        )

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

    def request(
        self, method: str, url: str, *, follow_redirects: bool | None = None, **options: Any
    ) -> AnyCall:
        """Make a request. `DurableClient` sends it, and returns once its first call of the handler
        has ended; with `AsyncDurableClient` it is sent when the result is awaited.

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
        return self._call(self._exchange(method, url, follow_redirects, options))

    def get(self, url: str, **options: Any) -> AnyCall:
        """Make a GET request; see `request`."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> AnyCall:
        """Make a POST request; see `request`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> AnyCall:
        """Make a PUT request; see `request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> AnyCall:
        """Make a PATCH request; see `request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> AnyCall:
        """Make a DELETE request; see `request`."""
        return self.request("DELETE", url, **options)

    def head(self, url: str, **options: Any) -> AnyCall:
        """Make a HEAD request; see `request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Any) -> AnyCall:
        """Make an OPTIONS request; see `request`."""
        return self.request("OPTIONS", url, **options)

    def _exchange(
        self, method: str, url: str, follow_redirects: bool | None, options: dict[str, Any]
    ) -> Exchange:
        follow = self._follow if follow_redirects is None else follow_redirects
        request = self._world.client.build_request(method, url, **options)
        return Exchange(self._world, request, follow=follow)

    async def _start(self, opened_at: Place) -> None:
        await self._world.open(opened_at)
        self._world.client.headers.update(self._headers)
        self._world.client.cookies.update(self._cookies)

    @abstractmethod
    def _call(self, exchange: Exchange) -> AnyCall:
        """Return a request as tests see it."""

    @abstractmethod
    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do something in a thread where an application of WSGI may block."""

    @abstractmethod
    def _wait(self, future: Future[T]) -> T:
        """Wait for a future, in such a thread."""
