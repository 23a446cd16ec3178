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

from stephttp._asgi_result import serve_result
from stephttp._client.endpoints import NEW_RUN, REQUEST_VERSION, SDK
from stephttp._client.idempotency import Claimed, claim, scope_of
from stephttp._client.journal import Journal
from stephttp._client.lifecycle import Resumed, claims_reentry
from stephttp._client.outbox import Item, Parcel
from stephttp._context import RunScope, current_run, enter
from stephttp._core import replies
from stephttp._core.codec import describe
from stephttp._core.messages import Headers, Request, Response
from stephttp.errors import APIError, CannotWaitError, ConfigurationError, Suspended
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
_PLAIN_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
_VERSION_HEADER = (b"x-inngest-req-version", str(REQUEST_VERSION).encode())
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
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
            if scope["path"] == self.provider.settings.result_path:
                await serve_result(self.provider, _request(scope, b""), receive, send)
            elif claims_reentry(scope["headers"]):
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
        "_ahead",
        "_answer",
        "_app",
        "_asked",
        "_claiming",
        "_ended",
        "_headers",
        "_journal",
        "_keeps_answer",
        "_keyed",
        "_provider",
        "_receive",
        "_run",
        "_run_scope",
        "_scope",
        "_send",
        "_started",
        "_status",
        "_stored",
    )

    def __init__(
        self, app: ASGIApp, provider: Provider, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._app = app
        self._provider = provider
        self._scope = scope
        self._receive = receive
        self._send = send
        self._run = provider.new_run()
        self._asked = _Body(provider.settings.max_body_bytes)
        self._answer = _Body(provider.settings.max_body_bytes)
        self._status = 0
        self._headers: Headers = []
        self._ahead: list[Message] = []
        self._journal: Journal | None = None
        self._keyed = self._ended = False
        self._stored: Claimed | None = None
        self._claiming: asyncio.Lock | None = None
        self._keeps_answer = False
        if scope["method"] == "HEAD":
            self._run.cannot_wait = "the answer to HEAD has no body that could carry the result"

    async def respond(self) -> None:
        run, provider = self._run, self._provider
        self._run_scope = scope = RunScope(
            run, provider.now_ns, checkpointing=provider.settings.checkpointing
        )
        scope.provider = provider
        self._started = scope.started_ns
        scope.claimer = self._claim_late
        if provider.has_keys and not await self._claimed_at_once():
            return
        scope.on_first_step = self._first_step
        try:
            error = await _call(self._app, self._scope, self._recording_receive, self._out, scope)
        except BaseException:
            if self._journal is not None:
                self._journal.abandon()
            raise
        self._ended = True
        if self._stored is not None and run.suspended:
            await self._reply_stored(self._stored)
        elif run.suspended:
            await self._suspend(scope)
        elif run.used or self._journal is not None:
            self._record(scope, error)
        if error is not None:
            raise error

    def _first_step(self) -> None:
        """A step is about to run: from now on there is something that could get lost."""
        scope = self._run_scope
        if scope.checkpointing.at_end_only or self._ended:
            return
        if self._journal is None:
            self._journal = self._new_journal()
        self._journal.mode = scope.checkpointing
        scope.on_record = self._journal.note
        self._journal.begin()

    def _new_journal(self) -> Journal:
        scope = self._run_scope
        return self._provider.journal(
            self._run, self._known_request, lambda: scope.fn_id, scope.checkpointing
        )

    def _known_request(self) -> Request | None:
        """The request, once its body is complete."""
        if not self._ended and (self._asked.overflown or not self._has_all()):
            return None
        return _request(self._scope, self._asked.join())

    def _has_all(self) -> bool:
        return self._asked.complete or _is_bodiless(self._scope)

    async def _claimed_at_once(self) -> bool:
        """Claim the key that the request itself carries, if it does; whether to go on."""
        key = self._provider.idempotency_key(_request(self._scope, b""))
        if key is None:
            return True
        self._run_scope.claimer = None
        if not await self._read_ahead():
            return False
        claimed = await self._claim(*key)
        if claimed.answer is not None:
            await self._reply_stored(claimed)
        return claimed.answer is None

    async def _claim_late(self, key: str) -> bool:
        """Claim a key that the handler gave; whether its steps are to run."""
        if self._claiming is None:
            self._claiming = asyncio.Lock()
        async with self._claiming:  # steps that run side by side ask together
            if self._stored is None:
                if self._run.cannot_wait is not None:
                    raise CannotWaitError(
                        f"the idempotency key comes too late, because {self._run.cannot_wait}; "
                        "call stephttp.configure at the start of the handler"
                    )
                if not await self._read_ahead():
                    raise asyncio.CancelledError
                scope = scope_of(self._provider.settings.domain, self._run_scope.fn_id)
                self._stored = await self._claim(key, scope)
            return self._stored.answer is None

    async def _claim(self, key: str, scope: str) -> Claimed:
        provider, run_scope = self._provider, self._run_scope
        if self._asked.overflown:
            limit = provider.settings.max_body_bytes
            return Claimed(False, replies.error_answer(
                413, f"a request with an idempotency key may have a body of {limit} bytes"
            ))  # fmt: skip
        request = _request(self._scope, self._asked.join())
        lease = run_scope.checkpointing.lease_ms
        flow = claim(provider.lifecycle, self._run, request, run_scope.fn_id, key, scope, lease)
        claimed = await provider.drive(flow)
        if claimed.held:
            self._keyed = True
            self._journal = self._new_journal()
            self._journal.claimed()
        return claimed

    async def _read_ahead(self) -> bool:
        """Read the rest of the body before the handler does; False if the caller left."""
        while not self._has_all():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return False
            self._note(message)
            if not self._asked.overflown:
                self._ahead.append(message)
        return True

    async def _reply_stored(self, claimed: Claimed) -> None:
        assert claimed.answer is not None
        await _reply(self._send, claimed.answer, _marks(claimed.run_id or self._run.run_id))

    async def _recording_receive(self) -> Message:
        if self._ahead:
            return self._ahead.pop(0)
        message = await self._receive()
        self._note(message)
        return message

    def _note(self, message: Message) -> None:
        if message["type"] == "http.request":
            self._asked.add(message.get("body", b""), message.get("more_body", False))

    async def _out(self, message: Message) -> None:
        run = self._run
        if run.suspended:
            return
        if message["type"] == "http.response.start":
            run.cannot_wait = "the response has begun"
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
            message = {**message, "headers": [*self._headers, *_marks(run.run_id)]}
            self._keeps_answer = run.used or self._keyed
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
            if self._journal is not None:
                await self._journal.hand_over()
            flow = self._provider.lifecycle.suspend(run, request, scope.fn_id, self._journal)
            reply = await self._provider.drive(flow)
        await _reply(self._send, reply, _marks(run.run_id))

    def _record(self, scope: RunScope, error: BaseException | None) -> None:
        provider = self._provider
        response = Response(self._status or 500, self._headers, self._answer.join())
        duration_ns = max(0, provider.now_ns() - self._started)
        text = None if error is None else describe(error)
        if self._run.opts.omit_response_body and not self._keyed:
            response.body = b""
        if self._journal is not None:
            if self._keyed:
                response = self._repeatable(response)
            self._journal.finish(
                provider.lifecycle.completed(
                    response, duration_ns=duration_ns, error=text, exact=self._keyed
                )
            )
            return
        checkpoint = provider.lifecycle.finished(
            self._run,
            _request(self._scope, self._asked.join()),
            response,
            fn_id=scope.fn_id,
            duration_ns=duration_ns,
            error=text,
        )
        provider.outbox.put(Item(Parcel(NEW_RUN, checkpoint)))

    def _repeatable(self, response: Response) -> Response:
        """What other requests with the same idempotency key get."""
        if self._answer.overflown:
            return replies.error_answer(
                500, f"the answer to this idempotency key has {self._answer.size} bytes, and was "
                "not kept",
            )  # fmt: skip
        if not self._status:  # the handler raised, and the server answers for it
            return Response(500, list(_PLAIN_TEXT), b"Internal Server Error")
        return response


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
        run_scope = RunScope(
            self._run,
            self._provider.now_ns,
            self._flush_soon,
            self._provider.settings.checkpointing,
        )
        run_scope.provider = self._provider
        try:
            replay = _Replay(self._request.body, receive)
            error = await _call(app, scope, replay, self._keep, run_scope)
            if self._flushing is not None:
                # What it could not store is back with the run; the answer may carry it.
                await asyncio.wait({self._flushing})
            reply = await self._provider.drive(self._conclude(error))
        except APIError as problem:
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


def _is_bodiless(scope: Scope) -> bool:
    """Whether a request has no body, as its head says, so that nobody needs to read one."""
    if scope["method"] not in _BODILESS and not scope.get("http_version", "1.1").startswith("1"):
        return False  # from HTTP/2 on a body needs no header
    return not any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _marks(run_id: str) -> Headers:
    return [(b"x-run-id", run_id.encode("latin-1")), _SDK_HEADER]


async def _reply(send: Send, reply: Response, marks: Headers) -> None:
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": reply.headers + marks}
    )
    await send({"type": "http.response.body", "body": reply.body})
