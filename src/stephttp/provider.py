"""`setup()` and what it makes: the settings and the background delivery that requests share."""

from __future__ import annotations

import asyncio
import os
import random
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ulid import ULID

from stephttp._client.drivers import AsyncDriver, Flow, T
from stephttp._client.flow import Keys
from stephttp._client.lifecycle import Lifecycle
from stephttp._client.outbox import Outbox
from stephttp._context import current_run
from stephttp._core.run import check_retries
from stephttp.options import MAX_BODY_BYTES, Settings, resolve

if TYPE_CHECKING:
    import httpx2

    from stephttp.asgi import ASGIApp, ASGIMiddleware

SHUTDOWN_TIMEOUT = 10.0
"""Seconds that a shutting-down application waits for its finished runs to be delivered."""


def setup(
    domain: str,
    *,
    signing_key: str | None = None,
    signing_key_fallback: str | None = None,
    base_url: str | None = None,
    event_key: str | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Provider:
    """Configure durable endpoints for one API.

    Args:
        domain: where this API is reached from the engine or Inngest server: an origin such as
            `https://api.example.com` (`https://` is added where the scheme is missing). In
            development (`INNGEST_DEV` set) the origin is taken from each request instead.
        signing_key: shared with the server; default `INNGEST_SIGNING_KEY`.
        signing_key_fallback: tried when the first is refused; default
            `INNGEST_SIGNING_KEY_FALLBACK`.
        base_url: origin of the engine or server. Default: `INNGEST_BASE_URL`; then, with
            `INNGEST_DEV` set, that variable if it is a URL, else `http://127.0.0.1:8288`; then
            `https://api.inngest.com`.
        event_key: for `step.send_event`; default `INNGEST_EVENT_KEY`. A development server needs
            none.
        max_body_bytes: the largest request body (bytes) of a run that may wait, and the largest
            response body that is kept with a finished run.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
    """
    return Provider(
        resolve(
            domain,
            signing_key=signing_key,
            signing_key_fallback=signing_key_fallback,
            base_url=base_url,
            event_key=event_key,
            max_body_bytes=max_body_bytes,
        )
    )


class Provider:
    """What the durable endpoints of one API share. Made by `setup`.

    Args:
        settings: resolved settings.
        transport: carries API calls instead of the network.
        now_ns: the clock, nanoseconds since the epoch.
        pause: waits for so many seconds.
        rng: jitter.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.now_ns = now_ns
        self.lifecycle = Lifecycle(settings, Keys(*settings.keys), now_ns, rng or random.Random())
        self._driver = AsyncDriver(settings.base_url, transport=transport, pause=pause)
        self.outbox = Outbox(self._deliver, pause=pause)
        self._reentries: dict[str, tuple[asyncio.Lock, int]] = {}

    def asgi(self, app: ASGIApp) -> ASGIMiddleware:
        """Wrap an ASGI application (FastAPI, Starlette, Litestar, Quart, Django)."""
        from stephttp.asgi import ASGIMiddleware

        return ASGIMiddleware(app, provider=self)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until all finished runs are delivered.

        Args:
            timeout: seconds; `None` waits for as long as it takes.

        Returns:
            True when everything is delivered, False at the timeout.
        """
        return await self.outbox.wait(timeout)

    async def aclose(self, timeout: float = SHUTDOWN_TIMEOUT) -> bool:
        """Deliver what is left, then close the connections. Called by the ASGI lifespan.

        Returns:
            What `wait` returned.
        """
        delivered = await self.wait(timeout)
        await self._driver.aclose()
        return delivered

    def new_run_id(self) -> str:
        """A ULID that sorts by the time at which the request came in."""
        now_ms = self.now_ns() // 1_000_000
        return str(ULID(now_ms.to_bytes(6, "big") + os.urandom(10)))

    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the checkpoint API."""
        return await self._driver.run(flow)

    @asynccontextmanager
    async def reentry(self, run_id: str) -> AsyncGenerator[None]:
        """Let one re-entry of a run at a time into this process (DESIGN 3.11)."""
        lock, users = self._reentries.get(run_id) or (asyncio.Lock(), 0)
        self._reentries[run_id] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._reentries.pop(run_id)
            if users > 1:
                self._reentries[run_id] = lock, users - 1

    async def _deliver(self, checkpoint: bytes) -> None:
        await self._driver.run(self.lifecycle.deliver(checkpoint))


def configure(*, id: str | None = None, retries: int | None = None) -> None:
    """Set options of the current endpoint. Call it once, before the first step.

    Outside a request that passes through the middleware it does nothing.

    Args:
        id: name of the endpoint; by default method and path. Set it when the path holds values,
            as in `/users/123`.
        retries: how often a failed step, and a resumed handler that fails, is tried again (0 to
            20). With 0, the default, a step's exception goes to the handler as in any Python code.

    Raises:
        ValueError: a value is out of range.
    """
    check_retries(retries)
    if id is not None and not id:
        raise ValueError("id must not be empty; leave it out for the default")
    scope = current_run.get()
    if scope is None:
        return
    if scope.configured:
        warnings.warn(
            "stephttp.configure was called twice in one request; the later values win",
            stacklevel=2,
        )
    scope.configured = True
    if id is not None:
        scope.fn_id = id
    if retries is not None:
        scope.run.retries = retries
