"""A request from outside: the sync phase of a run. What the handler sends goes out at once."""

from __future__ import annotations

import asyncio
import logging

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
from stephttp._client.endpoints import NEW_RUN
from stephttp._client.idempotency import Claimed, claim, scope_of
from stephttp._client.journal import Journal
from stephttp._client.outbox import Item, Parcel
from stephttp._context import RunScope
from stephttp._core import replies
from stephttp._core.codec import describe
from stephttp._core.messages import Headers, Request, Response
from stephttp._routes import asgi_route
from stephttp.errors import CannotWaitError
from stephttp.provider import Provider

logger = logging.getLogger("stephttp")

_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Live:
    """One request from outside: the sync phase of a run."""

    __slots__ = (
        "_ahead",
        "_answer",
        "_app",
        "_asked",
        "_claiming",
        "_ended",
        "_gone",
        "_headers",
        "_journal",
        "_keyed",
        "_provider",
        "_reading",
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
        self._asked = Body(provider.settings.max_body_bytes)
        self._answer: Body | None = None
        """What the handler answers, if that is to be kept."""
        self._status = 0
        self._headers: Headers = []
        self._ahead: list[Message] = []
        self._journal: Journal | None = None
        self._keyed = self._ended = self._gone = False
        self._reading = asyncio.Lock()
        self._stored: Claimed | None = None
        self._claiming: asyncio.Lock | None = None
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
            error = await call_app(
                self._app, self._scope, self._recording_receive, self._out, scope
            )
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
            self._record(error)
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
        return self._provider.journal(self._run, self._known_request, scope.checkpointing)

    def _known_request(self) -> Request | None:
        """The request, once its body is complete."""
        if not self._ended and (self._asked.overflown or not self._has_all()):
            return None
        return self._request()

    def _request(self) -> Request:
        """The request, as far as it was read, and its route if that is to name the endpoint."""
        request = neutral(self._scope, self._asked.join())
        if not self._run.opts.id:
            request.route = asgi_route(self._app, self._scope)
        return request

    def _has_all(self) -> bool:
        return self._asked.complete or _is_bodiless(self._scope)

    async def _claimed_at_once(self) -> bool:
        """Claim the key that the request itself carries, if it does; whether to go on."""
        key = self._provider.idempotency_key(neutral(self._scope, b""))
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
                endpoint = self._run.opts.id or self._request().endpoint
                scope = scope_of(self._provider.settings.domain, endpoint)
                self._stored = await self._claim(key, scope)
            return self._stored.answer is None

    async def _claim(self, key: str, scope: str) -> Claimed:
        provider, run_scope = self._provider, self._run_scope
        if self._asked.overflown:
            limit = provider.settings.max_body_bytes
            return Claimed(False, replies.error_answer(
                413, f"a request with an idempotency key may have a body of {limit} bytes"
            ))  # fmt: skip
        request = self._request()
        lease = run_scope.checkpointing.lease_ms
        flow = claim(provider.lifecycle, self._run, request, key, scope, lease)
        claimed = await provider.drive(flow)
        if claimed.held:
            self._keyed = True
            self._journal = self._new_journal()
            self._journal.claimed()
        return claimed

    async def _read_ahead(self) -> bool:
        """Read the rest of the body before the handler does; False if the caller left."""
        while not self._has_all():
            async with self._reading:
                if self._gone:
                    return False
                if not self._has_all():
                    message = await self._read()
                    if not self._asked.overflown:
                        self._ahead.append(message)
        return True

    async def _reply_stored(self, claimed: Claimed) -> None:
        assert claimed.answer is not None
        await reply_with(self._send, claimed.answer, marks(claimed.run_id or self._run.run_id))

    async def _recording_receive(self) -> Message:
        # Quart and Django read in a task of their own, which goes on while we read what is left:
        # one at a time, or the one would wait for ever for what the other got.
        async with self._reading:
            return self._ahead.pop(0) if self._ahead else await self._read()

    async def _read(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._asked.add(message.get("body", b""), message.get("more_body", False))
        else:
            self._gone = True
        return message

    async def _out(self, message: Message) -> None:
        run = self._run
        if run.suspended:
            return
        if message["type"] == "http.response.start":
            run.cannot_wait = "the response has begun"
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
            message = {**message, "headers": [*self._headers, *marks(run.run_id)]}
            if run.used or self._keyed:
                self._answer = Body(self._provider.settings.max_body_bytes)
        elif message["type"] == "http.response.body" and self._answer is not None:
            self._answer.add(message.get("body", b""), message.get("more_body", False))
        await self._send(message)

    async def _suspend(self, scope: RunScope) -> None:
        run = self._run
        while not self._asked.complete:
            async with self._reading:
                if self._gone:
                    logger.info("stephttp: run %s: the caller left before its request was complete",
                                run.run_id)  # fmt: skip
                    return
                if not self._asked.complete:
                    await self._read()
        if self._asked.overflown:
            limit = self._provider.settings.max_body_bytes
            reply = replies.error_answer(
                413, f"the request's body has {self._asked.size} bytes; a request that goes on in "
                f"the background may have {limit}",
            )  # fmt: skip
        else:
            request = self._request()
            if self._journal is not None:
                await self._journal.hand_over()
            flow = self._provider.lifecycle.suspend(run, request, self._journal)
            reply = await self._provider.drive(flow)
        await reply_with(self._send, reply, marks(run.run_id))

    def _record(self, error: BaseException | None) -> None:
        provider, answer = self._provider, self._answer
        response = Response(self._status or 500, self._headers, answer.join() if answer else b"")
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
            self._request(),
            response,
            duration_ns=duration_ns,
            error=text,
        )
        provider.outbox.put(Item(Parcel(NEW_RUN, checkpoint)))

    def _repeatable(self, response: Response) -> Response:
        """What other requests with the same idempotency key get."""
        if self._answer is not None and self._answer.overflown:
            return replies.error_answer(
                500, f"the answer to this idempotency key has {self._answer.size} bytes, and was "
                "not kept",
            )  # fmt: skip
        if not self._status:  # the handler raised, and the server answers for it
            return Response(500, list(PLAIN_TEXT), b"Internal Server Error")
        return response


def _is_bodiless(scope: Scope) -> bool:
    """Whether a request has no body, as its head says, so that nobody needs to read one."""
    if scope["method"] not in _BODILESS and not scope.get("http_version", "1.1").startswith("1"):
        return False  # from HTTP/2 on a body needs no header
    return not any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
