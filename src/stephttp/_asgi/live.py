"""A request from outside, under ASGI. What the handler sends goes out at once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from stephttp._asgi.common import (
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    call_app,
    neutral,
    reply_with,
)
from stephttp._asgi.scope import LoopScope
from stephttp._calls.common import marks
from stephttp._calls.live import LiveCall
from stephttp._core.messages import Request, Response
from stephttp._core.middleware import CallEnd
from stephttp._hooks import drive
from stephttp._routes import asgi_route
from stephttp.provider import Provider

logger = logging.getLogger("stephttp")

_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Live(LiveCall):
    """One request from outside: the sync phase of a run."""

    __slots__ = ("_ahead", "_app", "_gone", "_reading", "_receive", "_scope", "_send")

    def __init__(
        self, app: ASGIApp, provider: Provider, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(provider, scope["method"])
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._ahead: list[Message] = []
        self._gone = False
        self._reading = asyncio.Lock()

    async def respond(self) -> None:
        """Call the application, and see to what comes of it."""
        run, provider = self._run, self._provider
        scope = LoopScope(provider, run)
        self._begin(scope)
        if provider.has_keys:
            if not await provider.drive(self._claim_at_once()):
                return
            if self._stored_answer is not None:
                await reply_with(self._send, self._stored_answer, marks(self._answers_as))
                return
        scope.on_first_step = self._first_step
        try:
            error = await call_app(
                self._app, self._scope, self._recording_receive, self._out, scope
            )
        except BaseException as raised:
            if self._journal is not None:
                self._journal.abandon()
            if scope.hooks is not None:
                await drive(scope.hooks.over(CallEnd(None, raised, False)))
            raise
        if run.suspended and self._stored_answer is None and not await self._drained():
            if scope.hooks is not None:
                await drive(scope.hooks.over(CallEnd(None, None, False)))
            return
        reply = self._conclude(error)
        response = None if reply is None else await provider.drive(reply)
        if response is not None:
            await reply_with(self._send, response, marks(self._answers_as))
        if error is not None:
            raise error

    def _request(self, body: bytes) -> Request:
        return neutral(self._scope, body)

    def _route(self) -> str:
        return asgi_route(self._app, self._scope)

    def _has_all(self) -> bool:
        return self._asked.complete or _is_bodiless(self._scope)

    async def _read_ahead(self, _: Any = None) -> bool:
        while not self._has_all():
            async with self._reading:
                if self._gone:
                    return False
                if not self._has_all():
                    message = await self._read()
                    if not self._asked.overflown:
                        self._ahead.append(message)
        return True

    def _give_up(self) -> BaseException:
        return asyncio.CancelledError()

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
            hooks = self._run_scope.hooks
            if hooks is not None:
                head = Response(self._status, self._headers)
                await drive(hooks.before_response(head))
                self._status, self._headers = head.status, head.headers
                message = {**message, "status": head.status}
            message = {**message, "headers": [*self._headers, *marks(run.run_id)]}
            self._keep_answer()
        elif message["type"] == "http.response.body" and self._answer is not None:
            self._answer.add(message.get("body", b""), message.get("more_body", False))
        await self._send(message)

    async def _drained(self) -> bool:
        """Read what the handler left of the body; False if the caller left."""
        while not self._asked.complete:
            async with self._reading:
                if self._gone:
                    logger.info("stephttp: run %s: the caller left before its request was complete",
                                self._run.run_id)  # fmt: skip
                    return False
                if not self._asked.complete:
                    await self._read()
        return True


def _is_bodiless(scope: Scope) -> bool:
    """Whether a request has no body, as its head says, so that nobody needs to read one."""
    if scope["method"] not in _BODILESS and not scope.get("http_version", "1.1").startswith("1"):
        return False  # from HTTP/2 on a body needs no header
    return not any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
