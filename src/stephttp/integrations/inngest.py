"""With Inngest's Python SDK (PyPI `inngest` 0.5): `setup` from its client, middleware that was
written for it, and the step tools of stephttp in its functions.

import inngest
from stephttp.integrations.inngest import StepMiddleware, setup

client = inngest.Inngest(app_id="shop", middleware=[StepMiddleware, ...])
provider = setup(client, "https://api.example.com")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from inspect import isawaitable
from typing import Any, Unpack

import inngest
from inngest._internal import server_lib
from inngest._internal.middleware_lib.middleware import TransformOutputStepInfo
from inngest._internal.types import empty_sentinel
from msgspec.structs import replace

from stephttp._core.tool_types import Event
from stephttp._wire.http import Response
from stephttp.integrations._inngest_middleware import StepMiddleware
from stephttp.middleware import (
    MISSING,
    Middleware,
    MiddlewareFactory,
    RunContext,
    SendEventsResult,
    StepInfo,
    StepMemo,
    TransformOutputResult,
)
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.setup_options import SetupOptions

__all__ = ["InngestMiddleware", "StepMiddleware", "adapt", "setup"]

InngestMiddleware = Callable[[inngest.Inngest, object], inngest.Middleware | inngest.MiddlewareSync]
"""What an Inngest client takes as middleware: a class, or a function that makes an instance."""

_EVENT_NAME = "inngest/http.request"


def setup(client: inngest.Inngest, domain: str, **options: Unpack[SetupOptions]) -> Provider:
    """Configure durable endpoints as an Inngest client is configured.

    Keys, origins, environment, whether it is development, and middleware are the client's; no
    `INNGEST_*` variables are read but those that the client read itself.

    Args:
        client: where it sends events, `step.send_event` does.
        domain: see `stephttp.setup`, like all `options`.
        **options: they win over what the client says. `middleware` comes after the client's.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
    """
    own = [adapt(client, one) for one in client.middleware if one is not StepMiddleware]
    chosen: dict[str, Any] = {
        "base_url": client.api_origin,
        "signing_key": client.signing_key or "",
        "signing_key_fallback": client.signing_key_fallback or "",
        "event_key": client.event_key or "",
        "env": client.env or "",
        **options,
        "middleware": [*own, *options.get("middleware", ())],
    }
    environ = {} if client.is_production else {"INNGEST_DEV": "1"}
    settings = resolve(domain, environ=environ, **chosen)
    return Provider(replace(settings, event_base_url=client.event_api_origin.rstrip("/")))


def adapt(client: inngest.Inngest, middleware: InngestMiddleware) -> MiddlewareFactory:
    """Make middleware of an Inngest client fit for `stephttp.setup(middleware=[...])`.

    It gets what an endpoint has of a function: `ctx` without `step` and `group`, an event that
    describes the HTTP request, a function that is named after method and path.
    `transform_input` is called before the handler with the results of all finished steps,
    `transform_output` for each step, and with the error of a step or handler that failed. (Not
    with the handler's response, which belongs to its caller.)

    Of tools that Inngest's Python SDK does not have (`fetch`, `wait_for_signal`) it gets only
    the results.

    Args:
        client: given to `middleware`, as it expects.
        middleware: a class of `inngest.Middleware` or `inngest.MiddlewareSync`, or a function that
            makes one, such as `inngest_encryption.EncryptionMiddleware.factory(key)`.
    """

    def factory(ctx: RunContext) -> Middleware:
        return _Adapter(ctx, client, middleware(client, ctx.request))

    return factory


class _Adapter(Middleware):
    """Calls one middleware of Inngest's, whose methods may be async or not."""

    def __init__(
        self,
        ctx: RunContext,
        client: inngest.Inngest,
        theirs: inngest.Middleware | inngest.MiddlewareSync,
    ) -> None:
        super().__init__(ctx)
        self._client = client
        self._theirs = theirs

    def transform_input(self, steps: Mapping[str, StepMemo]) -> Awaitable[None] | None:
        memos = inngest.StepMemos.from_raw({key: _memo(memo) for key, memo in steps.items()})

        def take_back() -> None:
            for memo, theirs in zip(steps.values(), memos.values(), strict=True):
                if memo.error is None:
                    memo.data = theirs.data

        request = self.ctx.request
        name = self.ctx.fn_id or f"{request.method} {request.path}"
        made = self._theirs.transform_input(
            _context(self.ctx, self._client), _function(self._client, name), memos
        )
        return _then(made, take_back)

    def before_execution(self) -> Awaitable[None] | None:
        return self._theirs.before_execution()

    def after_execution(self) -> Awaitable[None] | None:
        return self._theirs.after_execution()

    def before_response(self, response: Response) -> Awaitable[None] | None:
        return self._theirs.before_response()

    def transform_output(self, result: TransformOutputResult) -> Awaitable[None] | None:
        step = _step(result.step)
        if step is None:
            return None
        output = result.output if result.has_output() else empty_sentinel
        theirs = inngest.TransformOutputResult(None, output, step)

        def take_back() -> None:
            result.output = theirs.output if theirs.has_output() else MISSING

        return _then(self._theirs.transform_output(theirs), take_back)

    def on_error(self, error: Exception, step: StepInfo | None) -> Awaitable[None] | None:
        info = None if step is None else _step(step)
        return self._theirs.transform_output(
            inngest.TransformOutputResult(error, empty_sentinel, info)
        )

    def before_send_events(self, events: list[Event]) -> Awaitable[None] | None:
        theirs = [
            inngest.Event(name=event.name, data=event.data, id=event.id, ts=event.ts)
            for event in events
        ]

        def take_back() -> None:
            events[:] = [
                Event(name=event.name, data=dict(event.data), id=event.id, ts=event.ts)
                for event in theirs
            ]

        return _then(self._theirs.before_send_events(theirs), take_back)

    def after_send_events(self, result: SendEventsResult) -> Awaitable[None] | None:
        error = None if result.error is None else str(result.error)
        theirs = inngest.SendEventsResult(ids=result.ids, error=error)
        return self._theirs.after_send_events(theirs)


def _then(made: Awaitable[None] | None, take_back: Callable[[], None]) -> Awaitable[None] | None:
    """Take back what a method changed, when it is done."""
    if not isawaitable(made):
        take_back()
        return None

    async def finish() -> None:
        await made
        take_back()

    return finish()


def _memo(memo: StepMemo) -> dict[str, object]:
    if memo.error is None:
        return {"data": memo.data}
    error = memo.error
    return {"error": {"name": error.name, "message": error.message, "stack": error.stack}}


def _step(step: StepInfo) -> TransformOutputStepInfo | None:
    """Return a step in their terms; `None` for what Inngest's Python SDK does not have."""
    try:
        op = server_lib.Opcode(step.op.value)
    except ValueError:
        return None
    return TransformOutputStepInfo(id=step.id, op=op, opts=step.opts)


def _context(ctx: RunContext, client: inngest.Inngest) -> inngest.Context:
    request = ctx.request
    data: dict[str, inngest.JSON] = {
        "method": request.method,
        "path": request.path,
        "query_params": request.query,
        "content_type": request.header(b"content-type"),
        "fn": ctx.fn_id,
    }
    now_ms = ctx.started_ns // 1_000_000
    event = inngest.Event(name=_EVENT_NAME, data=data, id=ctx.run_id, ts=now_ms)
    nothing: Any = None
    return inngest.Context(
        attempt=ctx.attempt,
        event=event,
        events=[event],
        group=nothing,
        job_id=None,
        logger=client.logger,
        request_id=ctx.request_id or None,
        run_id=ctx.run_id,
        step=nothing,
    )


@lru_cache(maxsize=1024)
def _function(client: inngest.Inngest, name: str) -> inngest.Function[Any]:
    trigger = inngest.TriggerEvent(event=_EVENT_NAME)

    async def handler(ctx: inngest.Context) -> None:
        """Never called: the endpoint is."""

    return client.create_function(fn_id=name, trigger=trigger)(handler)
