"""`setup()` and what it makes: the settings and the background delivery that requests share."""

from __future__ import annotations

import asyncio
import os
import random
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from ulid import ULID

from stephttp._client.drivers import AsyncDriver, Flow, SyncDriver, T
from stephttp._client.flow import Keys
from stephttp._client.idempotency import scope_of
from stephttp._client.journal import Journal
from stephttp._client.leases import Leases
from stephttp._client.lifecycle import Lifecycle
from stephttp._client.outbox import Item, Outbox, Parcel
from stephttp._context import current_run
from stephttp._core.checkpointing import Checkpointing, check_duration
from stephttp._core.messages import Request
from stephttp._core.run import Run, check_retries
from stephttp.errors import APIStatusError
from stephttp.options import MAX_BODY_BYTES, Settings, resolve

if TYPE_CHECKING:
    import httpx2

    from stephttp.asgi import ASGIApp, ASGIMiddleware

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
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
    checkpointing: Checkpointing = Checkpointing.performant,
    idempotency_header: str | None = None,
    idempotency: Callable[[Request], str | None] | None = None,
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
        checkpointing: when steps are sent while the request is still being answered; see
            `Checkpointing`. `configure` changes it for one request.
        idempotency_header: name of a request header, usually `Idempotency-Key`. Of the POST, PUT,
            PATCH and DELETE requests of one caller (told by `Authorization`) that carry the same
            value, the first is executed, and the others get its answer; one that differs in
            method, path, query or body gets 422. Keys are forgotten after 24 hours. Costs a call
            of the engine before the handler; needs the stephttp engine.
        idempotency: instead of a header, a function of the request (its body is not there yet)
            that returns the key, or `None` for a request without one. Its keys are not told
            apart by caller: let them hold who it is.

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
            checkpointing=checkpointing,
            idempotency_header=idempotency_header,
            idempotency=idempotency,
        )
    )


class Provider:
    """What the durable endpoints of one API share. Made by `setup`.

    Args:
        settings: resolved settings.
        transport: carries API calls instead of the network. Leases are then renewed by
            `renew_leases` only, and not by a thread.
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
        self.outbox = Outbox(self._deliver, batches=self._batches, pause=pause)
        self._renewer = SyncDriver(settings.base_url)
        self.leases = Leases(self._renew if transport is None else None)
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
        self.leases.close()
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

    def journal(
        self,
        run: Run,
        request: Callable[[], Request | None],
        fn_id: Callable[[], str],
        mode: Checkpointing,
    ) -> Journal:
        """What tells the server of a run while its request is being answered."""
        return Journal(
            run,
            request,
            fn_id,
            mode,
            lifecycle=self.lifecycle,
            outbox=self.outbox,
            leases=self.leases,
            later=asyncio.get_running_loop().call_later,
        )

    def idempotency_key(self, request: Request) -> tuple[str, str] | None:
        """The idempotency key of a request, and its scope; `None` if it has none."""
        settings = self.settings
        if settings.idempotency is not None:
            key = settings.idempotency(request)
            return (key, scope_of(settings.domain, "")) if key else None
        if not settings.idempotency_header or request.method in _SAFE_METHODS:
            return None
        key = request.header(settings.idempotency_header.encode())
        whose = request.header(b"authorization")
        return (key, scope_of(settings.domain, "", whose)) if key else None

    @property
    def has_keys(self) -> bool:
        """Whether a request may have an idempotency key before its handler runs."""
        return bool(self.settings.idempotency_header or self.settings.idempotency)

    async def renew_leases(self) -> None:
        """Renew all leases now. With the network, a thread does that by itself.

        Raises:
            APIError: they could not be renewed.
        """
        for length_ms, run_ids in self.leases.batches().items():
            self.leases.drop(await self.drive(self.lifecycle.renew(run_ids, length_ms)))

    def _renew(self, run_ids: list[str], length_ms: int) -> list[str]:
        return self._renewer.run(self.lifecycle.renew(run_ids, length_ms))

    def _batches(self) -> bool | None:
        keys = self.lifecycle.keys
        return None if keys.features is None else keys.supports("batch")

    async def _deliver(
        self, batch: Sequence[tuple[Item, Parcel]]
    ) -> Sequence[APIStatusError | None]:
        return await self._driver.run(self.lifecycle.deliver(batch))


def configure(
    *,
    id: str | None = None,
    retries: int | None = None,
    idempotency: str | None = None,
    max_runtime: timedelta | None = None,
    checkpointing: Checkpointing | None = None,
) -> None:
    """Set options of the current endpoint. Call it once, before the first step.

    Outside a request that passes through the middleware it does nothing.

    Args:
        id: name of the endpoint; by default method and path. Set it when the path holds values,
            as in `/users/123`.
        retries: how often a failed step, and a resumed handler that fails, is tried again (0 to
            20). With 0, the default, a step's exception goes to the handler as in any Python code.
        idempotency: a key of this endpoint: of the requests that give the same one, the first
            runs its steps, and the others get its answer (422 if they differ in method, path,
            query or body). Settled when the first step is met, by a call of the engine. The key
            is not told apart by caller: let it hold who it is. See `setup(idempotency_header=)`.
        max_runtime: after this time the next step is left to a new call by the server, and the
            caller is redirected to the result. Overrides that of `checkpointing`.
        checkpointing: when steps are sent while the request is still being answered; overrides
            that of `setup`.

    Raises:
        ValueError: a value is out of range.
        ConfigurationError: `max_runtime` is not positive.
    """
    check_retries(retries)
    if id is not None and not id:
        raise ValueError("id must not be empty; leave it out for the default")
    check_duration("max_runtime", max_runtime)
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
    if checkpointing is not None:
        scope.checkpointing = checkpointing
        scope.limit(checkpointing.max_runtime)
    if max_runtime is not None:
        scope.limit(max_runtime)
    if idempotency and scope.claimer is not None:
        scope.claim = partial(scope.claimer, idempotency)
