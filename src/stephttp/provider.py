"""`setup()` and what it makes: the settings and the background delivery that requests share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from stephttp._client.event_loop import running_loop
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.endpoint_options import AsyncResponse
from stephttp._run.endpoint import P, R, checked, decorator
from stephttp._run.runtime import SHUTDOWN_TIMEOUT, Replaced, Runtime
from stephttp._wire.http import Request
from stephttp.errors import UsageError
from stephttp.middleware import MiddlewareFactory
from stephttp.options import MAX_BODY_BYTES, Settings, SetupOpts, resolve

if TYPE_CHECKING:
    from stephttp.asgi import ASGIApp, ASGIMiddleware
    from stephttp.wsgi import WSGIApp, WSGIMiddleware


def setup(
    domain: str | SetupOpts,
    *,
    track_all_endpoints: bool = False,
    default_async_response: AsyncResponse | None = None,
    signing_key: str | None = None,
    signing_key_fallback: str | None = None,
    base_url: str | None = None,
    event_key: str | None = None,
    env: str | None = None,
    restore_headers: Collection[str] | None = None,
    result_path: str | None = None,
    serve_origin: str | None = None,
    trusted_proxies: Iterable[str] = (),
    max_body_bytes: int = MAX_BODY_BYTES,
    checkpointing: Checkpointing = Checkpointing.performant,
    idempotency_header: str | None = None,
    idempotency: Callable[[Request], str | None] | None = None,
    middleware: Sequence[MiddlewareFactory] = (),
    record_inputs: bool | None = None,
) -> Provider:
    """Configure durable endpoints for one API.

    Args:
        domain: where this API is reached from the engine or Inngest server: an origin such as
            `https://api.example.com` (`https://` is added where the scheme is missing). In
            development (`INNGEST_DEV` set) the origin is taken from each request instead.
            A `SetupOpts` stands for all arguments that it has.
        track_all_endpoints: also record requests that use no steps.
        default_async_response: what the caller of a request that goes async gets; default
            `AsyncResponseRedirect()`.
        signing_key: shared with the server; default `INNGEST_SIGNING_KEY`.
        signing_key_fallback: tried when the first is refused; default
            `INNGEST_SIGNING_KEY_FALLBACK`.
        base_url: origin of the engine or server. Default: `INNGEST_BASE_URL`; then, with
            `INNGEST_DEV` set, that variable if it is a URL, else `http://127.0.0.1:8288`; then
            `https://api.inngest.com`.
        event_key: for `step.send_event`; default `INNGEST_EVENT_KEY`. A development server needs
            none.
        env: branch environment, sent as `x-inngest-env`; default `INNGEST_ENV`.
        restore_headers: names of the request headers that a re-entry gets back, instead of
            `stephttp.DEFAULT_RESTORE_HEADERS`. Credentials, and headers that are not among the
            defaults, are encrypted with the signing key (needs `stephttp[crypto]`).
        result_path: a path such as `/_stephttp/result`, at which this API then serves the results
            of its runs, so that callers need not reach the server. Redirects point there.
        serve_origin: origin at which the server re-enters this API, if that is not `domain`.
            Counts in development too.
        trusted_proxies: addresses and networks (`10.0.0.0/8`) of proxies whose
            `X-Forwarded-For`, `-Host` and `-Proto` are believed.
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
        middleware: classes of `Middleware`, or functions that make one from a `RunContext`; the
            first is the outermost.
        record_inputs: send the positional arguments of steps with their results, for people to
            look at and to edit for a rerun: those that have a JSON form, up to 64 KiB a step.
            Default: in development without middleware, and not elsewhere, because they may hold
            what is not to be stored, and encoding them takes time.

    Returns:
        What the application's middleware and endpoints share.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
    """
    if isinstance(domain, SetupOpts):
        optional = domain.optional
        track_all_endpoints = track_all_endpoints or optional.track_all_endpoints
        default_async_response = default_async_response or optional.default_async_response
        signing_key = optional.signing_key if signing_key is None else signing_key
        if signing_key_fallback is None:
            signing_key_fallback = optional.signing_key_fallback
        base_url = base_url or optional.base_url
        middleware = middleware or optional.middleware
        domain = domain.domain
    return Provider(
        resolve(
            domain,
            signing_key=signing_key,
            signing_key_fallback=signing_key_fallback,
            base_url=base_url,
            event_key=event_key,
            max_body_bytes=max_body_bytes,
            env=env,
            restore_headers=restore_headers,
            result_path=result_path,
            serve_origin=serve_origin,
            trusted_proxies=trusted_proxies,
            track_all_endpoints=track_all_endpoints,
            default_async_response=default_async_response,
            checkpointing=checkpointing,
            idempotency_header=idempotency_header,
            idempotency=idempotency,
            middleware=middleware,
            record_inputs=record_inputs,
        )
    )


class Provider:
    """The durable endpoints of one API. Made by `setup`.

    Args:
        settings: resolved settings.
        replaced: transports, clock, pauses and jitter, where tests put their own; see `Runtime`.
    """

    def __init__(self, settings: Settings, **replaced: Unpack[Replaced]) -> None:
        self.runtime = Runtime(settings, **replaced)
        """What its runs share; not for applications."""

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
        max_runtime: timedelta | None = None,
        checkpointing: Checkpointing | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Set the options of one endpoint, as a decorator of its handler (async or not).

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
            max_runtime: after this time the next step is left to a new call by the server.
            checkpointing: when steps are sent while the request is still being answered.

        Returns:
            The decorator.

        Raises:
            ValueError: a value is out of range.
            ConfigurationError: `async_response` or `idempotency` is none, or `max_runtime` is not
                positive.
        """
        return decorator(
            checked(id, retries, omit_request_body, omit_response_body, async_response),
            idempotency,
            max_runtime,
            checkpointing,
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
