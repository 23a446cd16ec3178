"""`setup()` and `Provider`: `asgi`, `wsgi`, `endpoint`, `wait`, `close`; what is sent from
outside of a request is in `_run.outside`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack

from stephttp._client.background import running_loop
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.endpoint_options import AsyncResponse, OnDivergence
from stephttp._core.retry_policy import ExceptionTypes
from stephttp._run.endpoint import P, R, checked, decorator
from stephttp._run.outside import Outside
from stephttp._run.runtime import SHUTDOWN_TIMEOUT, Replaced, Runtime
from stephttp._wire.http import Request
from stephttp.errors import UsageError
from stephttp.options import Settings, resolve
from stephttp.setup_options import SetupOptions, SetupOpts

if TYPE_CHECKING:
    from stephttp._core.endpoint_limits import Concurrency, EndpointLimits, Throttle
    from stephttp.asgi import ASGIApp, ASGIMiddleware
    from stephttp.wsgi import WSGIApp, WSGIMiddleware


def setup(domain: str | SetupOpts, **options: Unpack[SetupOptions]) -> Provider:
    """Configure durable endpoints for one API.

    Args:
        domain: where this API is reached from the engine or Inngest server: an origin such as
            `https://api.example.com` (`https://` is added where the scheme is missing). In
            development (`INNGEST_DEV` set) the origin is taken from each request instead.
            A `SetupOpts` gives the options that it has; arguments win over it.
        **options: see `stephttp.setup_options.SetupOptions`.

    Returns:
        What the application's middleware and endpoints share.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
    """
    return Provider(resolve(domain, **options))


class Provider(Outside):
    """The durable endpoints of one API. Made by `setup`.

    Tests make one themselves, to replace its transports, clock, pauses and jitter; see `Runtime`.

    Args:
        settings: resolved settings.
    """

    def __init__(self, settings: Settings, **replaced: Unpack[Replaced]) -> None:
        self.runtime = Runtime(settings, **replaced)
        """The state that its runs share; not for applications."""

    @property
    def settings(self) -> Settings:
        """The resolved settings."""
        return self.runtime.settings

    def asgi(self, app: ASGIApp) -> ASGIMiddleware:
        """Wrap an ASGI application (FastAPI, Starlette, Litestar, Quart, Django, Falcon, any).

        Args:
            app: the application.

        Returns:
            What the server is to serve instead.
        """
        from stephttp.asgi import ASGIMiddleware

        return ASGIMiddleware(app, provider=self)

    def wsgi(self, app: WSGIApp) -> WSGIMiddleware:
        """Wrap a WSGI application (Flask, Django, Falcon, any).

        Args:
            app: the application.

        Returns:
            What the server is to serve instead.
        """
        from stephttp.wsgi import WSGIMiddleware

        return WSGIMiddleware(app, provider=self)

    def endpoint(
        self,
        id: str | None = None,
        *,
        retries: int | None = None,
        omit_request_body: bool | None = None,
        omit_response_body: bool | None = None,
        async_response: AsyncResponse | None = None,
        idempotency: Callable[..., str | None] | None = None,
        idempotency_scope: Callable[[Request], str | None] | None = None,
        max_runtime: timedelta | None = None,
        checkpointing: Checkpointing | None = None,
        delay: timedelta | None = None,
        max_delay: timedelta | None = None,
        retry_on: ExceptionTypes | None = None,
        give_up_on: ExceptionTypes | None = None,
        on_divergence: OnDivergence | None = None,
        concurrency: Concurrency | Sequence[Concurrency] | None = None,
        throttle: Throttle | None = None,
        priority: int | Callable[..., int] | None = None,
        refuse_over_limit: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Set the options of one endpoint, as a decorator of its handler (async or not).

        A handler that may wait should have it, also without options: what ends the handler then
        ends here, and the code around it (dependencies, sessions, transactions, tracers) sees a
        request that was answered.

        It goes under the framework's own decorator, and leaves the handler's signature as it is.
        `configure` inside the handler can still refine them.

        Args:
            id: see `configure`, like the others.
            retries: 0 to 20.
            omit_request_body: keep the request's body out of the record.
            omit_response_body: keep the response's body out of the record.
            async_response: what the caller gets when the request goes async.
            idempotency: a plain function that gets what the handler gets, and returns the key of
                this request, or `None` for one without.
            idempotency_scope: a plain function of the request that returns who sent it, as that of
                `setup`, for the keys of this endpoint.
            max_runtime: after this time the next step is left to a new call by the server.
            checkpointing: when steps are sent while the request is still being answered.
            delay: the pause before the first repetition; each further one is twice as long.
            max_delay: the longest pause.
            retry_on: only these types of exceptions are worth a repetition.
            give_up_on: these types of exceptions are not worth one.
            on_divergence: `warn` or `fail`.
            concurrency: how many calls of waiting runs the engine makes at a time; one limit, or
                two. For the stephttp engine only, like the next two: before another server the
                handler does not begin, and the request fails with a `UsageError`.
            throttle: how many waiting runs get their first call by the engine in a period.
            priority: seconds, -600 to 600, by which a run goes before its turn (negative: after),
                or a plain function that gets what the handler gets and returns them.
            refuse_over_limit: whether `concurrency` and `throttle` hold the first call, too: a
                request for which there is no room gets a 429 with `Retry-After`, and its handler
                does not begin. Each request costs two calls of the engine. Not together with
                idempotency keys.

        Returns:
            The decorator.

        Raises:
            TypeError: a value has another type.
            ValueError: a value is out of range, or two contradict each other.
            ConfigurationError: `async_response`, `idempotency`, `idempotency_scope`,
                `on_divergence`, `concurrency`, `throttle`, `priority` or `refuse_over_limit` is not
                possible, or `max_runtime` is not positive.
        """
        return decorator(
            checked(
                id=id,
                omit_request_body=omit_request_body,
                omit_response_body=omit_response_body,
                async_response=async_response,
                retries=retries,
                delay=delay,
                max_delay=max_delay,
                retry_on=retry_on,
                give_up_on=give_up_on,
                on_divergence=on_divergence,
            ),
            idempotency,
            idempotency_scope,
            max_runtime,
            checkpointing,
            limits_of(
                concurrency,
                throttle,
                priority,
                refuse_over_limit,
                has_keys=idempotency is not None or self.runtime.settings.has_keys,
            ),
            self.runtime.endpoint_ids,
        )

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until all finished runs are delivered.

        Args:
            timeout: seconds; `None` waits for as long as it takes.

        Returns:
            True when everything is delivered, False at the timeout.
        """
        return await self.runtime.outbox.wait(timeout)

    def wait_sync(self, timeout: float | None = None) -> bool:
        """`wait`, blocking: for another thread than the event loop's, or after the loop has ended.

        Args:
            timeout: seconds; `None` waits for as long as it takes.

        Returns:
            What `wait` returns.

        Raises:
            UsageError: called on a running event loop, which it would stop from delivering.
        """
        if running_loop() is not None:
            raise UsageError(
                "wait_sync would block the event loop that has to deliver; "
                "use `await provider.wait()`"
            )
        return self.runtime.outbox.wait_sync(timeout)

    async def aclose(self, timeout: float = SHUTDOWN_TIMEOUT) -> bool:
        """Deliver what is left, then close the connections. Called by the ASGI lifespan.

        Args:
            timeout: seconds that the delivery may take.

        Returns:
            What `wait` returned.
        """
        return await self.runtime.aclose(timeout)

    def close(self, timeout: float = SHUTDOWN_TIMEOUT) -> bool:
        """`aclose`, blocking. Called at the exit of a process that serves WSGI.

        Args:
            timeout: seconds that the delivery may take.

        Returns:
            What `wait_sync` returned.
        """
        return self.runtime.close(timeout)


def limits_of(
    concurrency: Any, throttle: Any, priority: Any, refuse: Any = False, *, has_keys: bool = False
) -> EndpointLimits | None:
    """Return the limits of an endpoint, checked; `None` without any.

    Args:
        refuse: whether requests over them are refused.
        has_keys: whether requests to the endpoint may carry idempotency keys.
    """
    if concurrency is None and throttle is None and priority is None and refuse is False:
        return None
    from stephttp._core.endpoint_limits import checked_limits  # few applications need it

    return checked_limits(concurrency, throttle, priority, refuse, has_keys=has_keys)
