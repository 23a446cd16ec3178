"""A call of the server: the handler goes on, and its response is the run's result."""

from __future__ import annotations

import asyncio

from stephttp._asgi.common import (
    PLAIN_TEXT,
    ASGIApp,
    Body,
    Message,
    Receive,
    Scope,
    Send,
    call_app,
    marks,
    neutral,
    reply_with,
)
from stephttp._client.endpoints import REQUEST_VERSION
from stephttp._client.lifecycle import Resumed
from stephttp._context import RunScope
from stephttp._core import replies
from stephttp._core.codec import describe
from stephttp._core.messages import Request, Response
from stephttp._core.middleware import CallEnd
from stephttp._hooks import drive
from stephttp.errors import APIError
from stephttp.provider import Provider

MAX_RESULT_BYTES = 4 * 1024 * 1024
"""The largest response body of a resumed handler; a server reads 8 MiB of JSON (PROTOCOL 10)."""

_VERSION_HEADER = (b"x-inngest-req-version", str(REQUEST_VERSION).encode())
_BYPASSING = ("http.response.pathsend", "http.response.zerocopysend", "http.response.trailers")
"""Extensions by which a response's body would reach the server without passing us."""


async def reenter(
    app: ASGIApp, provider: Provider, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a call of the server: verify it, run the handler on from where it stood."""
    body = Body(provider.settings.max_body_bytes)
    while not body.complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body.add(message.get("body", b""), message.get("more_body", False))
    request = neutral(scope, body.join())
    run_id = request.header(b"x-run-id")
    error: BaseException | None = None
    if body.overflown:
        reply = replies.refused(413, f"the body has {body.size} bytes, which is too many")
    elif (refusal := provider.lifecycle.verify(request)) is not None:
        reply = refusal
    else:
        async with provider.reentry(run_id):
            resumed = await provider.drive(provider.lifecycle.resume(request))
            if isinstance(resumed, Response):
                reply = resumed
            else:
                reply, error = await _Resumed(provider, resumed, request).answer(
                    app, scope, receive
                )
    await reply_with(send, reply, [*marks(run_id), _VERSION_HEADER])
    if error is not None:
        raise error  # so that what watches over the application sees it as it does without us


class _Resumed:
    """One re-entry of a run that was found, with the request as its first caller sent it."""

    __slots__ = ("_body", "_flushing", "_provider", "_request", "_response", "_resumed", "_run")

    def __init__(self, provider: Provider, resumed: Resumed, request: Request) -> None:
        self._provider = provider
        self._resumed = resumed
        self._run = resumed.run
        self._request = request
        self._response = Response(500, list(PLAIN_TEXT))
        self._body = Body(MAX_RESULT_BYTES)
        self._flushing: asyncio.Task[APIError | None] | None = None

    async def answer(
        self, app: ASGIApp, scope: Scope, receive: Receive
    ) -> tuple[Response, BaseException | None]:
        """Run the handler. Returns the answer to the server, and what the handler raised."""
        scope = self._restored(scope)
        run_scope = RunScope(
            self._run,
            self._provider.now_ns,
            self._flush_soon,
            self._provider.settings.checkpointing,
        )
        run_scope.provider = self._provider
        resumed, hooks = self._resumed, None
        if self._provider.settings.middleware:
            run_scope.use_middleware(self._request, resumed.request_id, resumed.attempt)
            hooks = run_scope.hooks
        try:
            replay = _Replay(self._request.body, receive)
            error = await call_app(app, scope, replay, self._keep, run_scope)
            if self._flushing is not None:
                # What it could not store is back with the run; the answer may carry it.
                await asyncio.wait({self._flushing})
            response = self._answered(error)
            if hooks is not None and not self._run.suspended:
                await drive(hooks.before_response(response))
            text = None if error is None else describe(error)
            flow = self._provider.lifecycle.conclude(resumed, response, text, error)
            reply = await self._provider.drive(flow)
            if hooks is not None:
                if self._run.suspended:
                    response = reply
                    await drive(hooks.before_response(reply))
                await drive(hooks.over(CallEnd(response, error, resumed.ended)))
        except APIError as problem:
            if hooks is not None:
                await drive(hooks.over(CallEnd(None, problem, False)))
            return (
                self._provider.lifecycle.unavailable(
                    self._resumed.ours,
                    f"run {self._run.run_id}: finished steps could not be stored",
                    problem,
                ),
                None,
            )
        finally:
            if self._flushing is not None:
                self._flushing.cancel()
        return reply, error

    def _answered(self, error: BaseException | None) -> Response:
        """The handler's response."""
        response = self._response
        if self._body.overflown:
            response = replies.error_answer(
                500, f"the response's body has {self._body.size} bytes; a resumed handler's may "
                f"have {MAX_RESULT_BYTES}",
            )  # fmt: skip
        elif error is not None and not self._body.complete:
            response = Response(500, list(PLAIN_TEXT))
            response.body = b"Internal Server Error"
        else:
            response.body = self._body.join()
        return response

    async def _keep(self, message: Message) -> None:
        if self._run.suspended:
            return
        if message["type"] == "http.response.start":
            self._run.cannot_wait = "the response has begun"
            self._response = Response(message["status"], list(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            self._body.add(message.get("body", b""), message.get("more_body", False))

    def _flush_soon(self) -> None:
        if self._flushing is None or (self._flushing.done() and not self._flushing.result()):
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> APIError | None:
        try:
            await self._provider.drive(self._provider.lifecycle.flush(self._run))
        except APIError as problem:
            return problem
        return None

    def _restored(self, scope: Scope) -> Scope:
        extensions = scope.get("extensions") or {}
        return {
            **scope,
            "headers": self._request.headers,
            "client": self._request.client,
            "scheme": self._request.scheme,
            "extensions": {k: v for k, v in extensions.items() if k not in _BYPASSING},
        }


class _Replay:
    """`receive` of a re-entry: the body at once, then whatever the server's connection does."""

    __slots__ = ("_message", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._receive = receive

    async def __call__(self) -> Message:
        message, self._message = self._message, None
        return message if message is not None else await self._receive()
