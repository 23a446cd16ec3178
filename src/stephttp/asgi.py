"""ASGI middleware (configuration), and a responder for one request of either kind.

A request that comes in from outside is live: what the handler sends goes out at once, and a
finished run is recorded afterwards. A re-entry is a call of the server: the handler's response is
its result, not its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from stephttp._client.endpoints import REQUEST_VERSION, SDK
from stephttp._client.lifecycle import Resumed, claims_reentry, unavailable
from stephttp._context import RunScope, current_run, enter
from stephttp._core import replies
from stephttp._core.codec import describe
from stephttp._core.messages import Headers, Request, Response
from stephttp._core.run import Run
from stephttp.errors import APIError, ConfigurationError, Suspended
from stephttp.provider import Provider

logger = logging.getLogger("stephttp")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_RESULT_BYTES = 4 * 1024 * 1024
"""The largest response body of a resumed handler; a server reads 8 MiB of JSON (PROTOCOL 10)."""

_MARK = "stephttp.run_id"
_SDK_HEADER = (b"x-inngest-sdk", SDK.encode())
_VERSION_HEADER = (b"x-inngest-req-version", str(REQUEST_VERSION).encode())
_BYPASSING = ("http.response.pathsend", "http.response.zerocopysend", "http.response.trailers")
"""Extensions by which a response's body would reach the server without passing us."""


class ASGIMiddleware:
    """Makes the endpoints of an ASGI application durable.

    Use `provider.asgi(app)`, or `app.add_middleware(stephttp.ASGIMiddleware, provider=provider)`.
    Everything but HTTP requests passes through; at the end of the lifespan, finished runs that
    are still on their way are delivered.

    Args:
        app: the application.
        provider: what `stephttp.setup` returned.
    """

    def __init__(self, app: ASGIApp, provider: Provider) -> None:
        self.app = app
        self.provider = provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if _MARK in scope:
                raise ConfigurationError(
                    "the stephttp middleware is applied twice to this application; apply it once"
                )
            if claims_reentry(scope["headers"]):
                await _reenter(self.app, self.provider, scope, receive, send)
            else:
                await _Live(self.app, self.provider, scope, receive, send).respond()
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, self._draining(send))
        else:
            await self.app(scope, receive, send)

    def _draining(self, send: Send) -> Send:
        async def draining_send(message: Message) -> None:
            ends = message["type"].startswith("lifespan.shutdown.")
            if ends and not await self.provider.aclose():
                logger.warning(
                    "stephttp: %d finished runs were not delivered before the shutdown",
                    self.provider.outbox.depth,
                )
            await send(message)

        return draining_send


class _Body:
    """The chunks of a body that passes by, up to a limit; beyond it, nothing is kept."""

    __slots__ = ("_chunks", "_limit", "complete", "overflown", "size")

    def __init__(self, limit: int) -> None:
        self._chunks: list[bytes] = []
        self._limit = limit
        self.size = 0
        self.overflown = False
        self.complete = False

    def add(self, chunk: bytes, more: bool) -> None:
        self.complete = not more
        self.size += len(chunk)
        if self.size > self._limit:
            self.overflown = True
            self._chunks.clear()
        elif chunk:
            self._chunks.append(chunk)

    def join(self) -> bytes:
        return b"".join(self._chunks)


class _Live:
    """One request from outside: the sync phase of a run."""

    __slots__ = (
        "_answer",
        "_app",
        "_asked",
        "_headers",
        "_keeps_answer",
        "_provider",
        "_receive",
        "_run",
        "_scope",
        "_send",
        "_started",
        "_status",
    )

    def __init__(
        self, app: ASGIApp, provider: Provider, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._app = app
        self._provider = provider
        self._scope = scope
        self._receive = receive
        self._send = send
        self._run = Run(provider.new_run_id())
        self._asked = _Body(provider.settings.max_body_bytes)
        self._answer = _Body(provider.settings.max_body_bytes)
        self._status = 0
        self._headers: Headers = []
        self._keeps_answer = False
        if scope["method"] == "HEAD":
            self._run.cannot_wait = "the answer to HEAD has no body that could carry the result"

    async def respond(self) -> None:
        run, provider = self._run, self._provider
        self._started = provider.now_ns()
        scope = RunScope(run, provider.now_ns)
        scope.provider = provider
        error = await _call(self._app, self._scope, self._recording_receive, self._out, scope)
        if run.suspended:
            await self._suspend(scope)
        elif run.used:
            self._record(scope, error)
        if error is not None:
            raise error

    async def _recording_receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._asked.add(message.get("body", b""), message.get("more_body", False))
        return message

    async def _out(self, message: Message) -> None:
        run = self._run
        if run.suspended:
            return
        if message["type"] == "http.response.start":
            run.cannot_wait = "the response has begun"
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
            message = {**message, "headers": [*self._headers, *_marks(run.run_id)]}
            self._keeps_answer = run.used
        elif message["type"] == "http.response.body" and self._keeps_answer:
            self._answer.add(message.get("body", b""), message.get("more_body", False))
        await self._send(message)

    async def _suspend(self, scope: RunScope) -> None:
        run = self._run
        while not self._asked.complete:
            if (await self._recording_receive())["type"] == "http.disconnect":
                logger.info("stephttp: run %s: the caller left before its request was complete",
                            run.run_id)  # fmt: skip
                return
        if self._asked.overflown:
            limit = self._provider.settings.max_body_bytes
            reply = replies.error_answer(
                413, f"the request's body has {self._asked.size} bytes; a request that goes on in "
                f"the background may have {limit}",
            )  # fmt: skip
        else:
            request = _request(self._scope, self._asked.join())
            flow = self._provider.lifecycle.suspend(run, request, scope.fn_id)
            reply = await self._provider.drive(flow)
        await _reply(self._send, reply, _marks(run.run_id))

    def _record(self, scope: RunScope, error: BaseException | None) -> None:
        provider = self._provider
        response = Response(self._status or 500, self._headers, self._answer.join())
        checkpoint = provider.lifecycle.finished(
            self._run,
            _request(self._scope, self._asked.join()),
            response,
            fn_id=scope.fn_id,
            duration_ns=max(0, provider.now_ns() - self._started),
            error=None if error is None else describe(error),
        )
        provider.outbox.put(checkpoint)


async def _reenter(
    app: ASGIApp, provider: Provider, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a call of the server: verify it, run the handler on from where it stood."""
    body = _Body(provider.settings.max_body_bytes)
    while not body.complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body.add(message.get("body", b""), message.get("more_body", False))
    request = _request(scope, body.join())
    run_id = request.header(b"x-run-id")
    error: BaseException | None = None
    if body.overflown:
        reply = replies.error_answer(413, f"the body has {body.size} bytes, which is too many")
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
    await _reply(send, reply, [*_marks(run_id), _VERSION_HEADER])
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
        self._response = Response(500, [(b"content-type", b"text/plain; charset=utf-8")])
        self._body = _Body(MAX_RESULT_BYTES)
        self._flushing: asyncio.Task[APIError | None] | None = None

    async def answer(
        self, app: ASGIApp, scope: Scope, receive: Receive
    ) -> tuple[Response, BaseException | None]:
        """Run the handler. Returns the answer to the server, and what the handler raised."""
        scope = self._restored(scope)
        run_scope = RunScope(self._run, self._provider.now_ns, self._flush_soon)
        run_scope.provider = self._provider
        try:
            replay = _Replay(self._request.body, receive)
            error = await _call(app, scope, replay, self._keep, run_scope)
            if self._flushing is not None:
                # What it could not store is back with the run; the answer may carry it.
                await asyncio.wait({self._flushing})
            reply = await self._provider.drive(self._conclude(error))
        except APIError as problem:
            logger.error("stephttp: run %s: finished steps could not be stored: %s",
                         self._run.run_id, problem)  # fmt: skip
            return unavailable(f"finished steps could not be stored: {problem}"), None
        finally:
            if self._flushing is not None:
                self._flushing.cancel()
        return reply, error

    def _conclude(self, error: BaseException | None) -> Any:
        response = self._response
        if self._body.overflown:
            response = replies.error_answer(
                500, f"the response's body has {self._body.size} bytes; a resumed handler's may "
                f"have {MAX_RESULT_BYTES}",
            )  # fmt: skip
        elif error is not None and not self._body.complete:
            response = Response(500, [(b"content-type", b"text/plain; charset=utf-8")])
            response.body = b"Internal Server Error"
        else:
            response.body = self._body.join()
        text = None if error is None else describe(error)
        return self._provider.lifecycle.conclude(self._resumed, response, text, error)

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


async def _call(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, run_scope: RunScope
) -> BaseException | None:
    """Call the application as the current run.

    Returns:
        The exception that ended it, if it is the application's own: not when it is the echo of a
        suspension, in whatever wrapping.

    Raises:
        CancelledError: somebody else cancelled this request.
    """
    run = run_scope.run
    scope[_MARK] = run.run_id
    request = (scope["method"], scope["path"], scope.get("query_string"), scope["headers"])
    token = enter(run_scope, request)
    error: BaseException | None = None
    try:
        await app(scope, receive, send)
    except BaseException as raised:
        error = raised
    finally:
        current_run.reset(token)
        del scope[_MARK]
        cancelled = run_scope.close(error)
    if cancelled or isinstance(error, KeyboardInterrupt | SystemExit):
        run.end()
        raise error or asyncio.CancelledError
    if run.suspended:
        await run_scope.quiet()
    run.end()
    if not run.suspended:
        return error
    if error is not None and not _echoes_suspension(error):
        logger.warning(
            "stephttp: run %s waits for a step; what its handler raised meanwhile is dropped, and "
            "will be raised again if it still applies then", run.run_id, exc_info=error,
        )  # fmt: skip
    return None


def _echoes_suspension(error: BaseException) -> bool:
    """Task groups wrap what ends their tasks, next to what they make of it themselves."""
    if isinstance(error, BaseExceptionGroup):
        return any(_echoes_suspension(inner) for inner in error.exceptions)
    return isinstance(error, asyncio.CancelledError | Suspended)


def _request(scope: Scope, body: bytes) -> Request:
    raw_path = scope.get("raw_path")
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=raw_path.decode("latin-1") if raw_path else quote(scope["path"]),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=list(scope["headers"]),
        client=(client[0], client[1]) if client else None,
        scheme=scope.get("scheme", "http"),
        body=body,
    )


def _marks(run_id: str) -> Headers:
    return [(b"x-run-id", run_id.encode("latin-1")), _SDK_HEADER]


async def _reply(send: Send, reply: Response, marks: Headers) -> None:
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": reply.headers + marks}
    )
    await send({"type": "http.response.body", "body": reply.body})
