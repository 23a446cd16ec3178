"""A request from outside, under ASGI. What the handler sends goes out at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from stephttp._asgi.common import (
    ASGIApp,
    Line,
    Message,
    Receive,
    Scope,
    Send,
    end_call,
    neutral,
    reply_with,
    told_apart,
)
from stephttp._asgi.scope import LoopScope
from stephttp._calls.common import MARK, RUN_ID_HEADER, SDK_HEADER, marks
from stephttp._calls.live import RESPONSE_HAS_BEGUN, LiveCall
from stephttp._context import RunScope
from stephttp._core.messages import Headers, Request, Response
from stephttp._core.middleware import CallEnd
from stephttp._core.run import Run
from stephttp._current import current_call, enter
from stephttp._hooks import Hooks, drive
from stephttp._routes import asgi_route
from stephttp.provider import Provider

logger = logging.getLogger("stephttp")

_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Live(LiveCall):
    """One request from outside: the sync phase of a run."""

    __slots__ = (
        "_ahead",
        "_app",
        "_cancelling",
        "_gone",
        "_line",
        "_reading",
        "_receive",
        "_scope",
        "_send",
        "_task",
    )

    def __init__(
        self, app: ASGIApp, provider: Provider, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(provider)
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._ahead: list[Message] = []
        self._gone = False
        self._reading: asyncio.Lock | None = None
        self._line: Line | None = None
        self._task = task = asyncio.current_task()
        self._cancelling = 0 if task is None else task.cancelling()

    async def respond(self) -> None:
        """Call the application, and see to what comes of it."""
        if self.provider.opens_at_once and not await self._prepare():
            return
        scope, prepared = self._scope, self._run_scope
        scope[MARK] = self.run_id
        token = enter(self)
        error: BaseException | None = None
        try:
            if prepared is not None and prepared.hooks is not None:
                await drive(prepared.hooks.open())
            await self._app(scope, self._in, self._out)
        except BaseException as raised:
            error = raised
        finally:
            current_call.reset(token)
            del scope[MARK]
            self._left = True
            self._line = None
        run_scope = self._run_scope
        if run_scope is not None:
            error = await self._end(run_scope, error)
        if error is not None:
            raise error

    async def _prepare(self) -> bool:
        """Do what is configured to be done before the application is called.

        Returns:
            Whether it is to be called.
        """
        scope, provider = self.open(), self.provider
        if provider.settings.middleware:
            scope.use_middleware(self._request(b""))
        if provider.has_keys:
            if not await provider.drive(self._claim_at_once()):
                return False
            if self._stored_answer is not None:
                await reply_with(self._send, self._stored_answer, marks(self._answers_as))
                return False
        return True

    async def _end(self, scope: RunScope, error: BaseException | None) -> BaseException | None:
        """The application has returned, or raised `error`. Returns what is to be raised."""
        run, hooks = scope.run, scope.hooks
        try:
            error = await end_call(scope, error)
        except BaseException as raised:
            if self._journal is not None:
                self._journal.abandon()
            if hooks is not None:
                await drive(hooks.over(CallEnd(None, raised, False)))
            raise
        if run.suspended and self._stored_answer is None and not await self._drained():
            if hooks is not None:
                await drive(hooks.over(CallEnd(None, None, False)))
            return None
        reply = self._conclude(error)
        response = None if reply is None else await self.provider.drive(reply)
        if response is not None:
            await reply_with(self._send, response, marks(self._answers_as))
        return error

    @property
    def request(self) -> tuple[Any, ...]:
        """What tells the request from others."""
        return told_apart(self._scope)

    def _method(self) -> str:
        method: str = self._scope["method"]
        return method

    def _new_scope(self, run: Run) -> LoopScope:
        scope = LoopScope(
            self.provider,
            run,
            task=self._task,
            cancelling=self._cancelling,
            started_ns=self.started_ns,
        )
        scope.hang_up = self._hang_up
        return scope

    def _hang_up(self) -> bool:
        return self._line is not None and self._line.hang_up()

    def _in(self) -> Awaitable[Message]:
        """`receive`, as the application sees it. Most requests have no body to be read."""
        if self._line is None:
            self._line = Line(self._recording_receive)
        return self._line()

    def _turn(self) -> asyncio.Lock:
        """Held while a message is read: Quart and Django read in a task of their own, which goes
        on while we read what is left; else the one would wait for ever for what the other got."""
        if self._reading is None:
            self._reading = asyncio.Lock()
        return self._reading

    def _request(self, body: bytes) -> Request:
        return neutral(self._scope, body)

    def _route(self) -> str:
        return asgi_route(self._app, self._scope)

    def _has_all(self) -> bool:
        return self._asked.complete or _is_bodiless(self._scope)

    async def _read_ahead(self, _: Any = None) -> bool:
        while not self._has_all():
            async with self._turn():
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
        async with self._turn():
            return self._ahead.pop(0) if self._ahead else await self._read()

    async def _read(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._asked.add(message.get("body", b""), message.get("more_body", False))
        else:
            self._gone = True
        return message

    def _out(self, message: Message) -> Awaitable[None]:
        """`send`, as the application sees it."""
        kind = message["type"]
        if kind == "http.response.start":
            self._begun = True
            scope = self._run_scope
            if scope is not None:
                with scope._lock:
                    if scope.run.suspended:
                        return _nothing()
                    scope.run.cannot_wait = RESPONSE_HAS_BEGUN
                if scope.hooks is not None:
                    return self._start_told(message, scope.hooks)
            return self._pass_head(message, message["status"], list(message.get("headers", ())))
        if self._run_scope is not None:
            if self._run.suspended:
                return _nothing()
            if self._answer is not None and kind == "http.response.body":
                self._answer.add(message.get("body", b""), message.get("more_body", False))
        return self._send(message)

    async def _start_told(self, message: Message, hooks: Hooks) -> None:
        head = Response(message["status"], list(message.get("headers", ())))
        await drive(hooks.before_response(head))
        await self._pass_head(message, head.status, head.headers)

    def _pass_head(self, message: Message, status: int, headers: Headers) -> Awaitable[None]:
        self._status, self._headers = status, headers
        if self._run_scope is not None:
            self._keep_answer()
        own = [*headers, (RUN_ID_HEADER, self.run_id.encode()), SDK_HEADER]
        return self._send({**message, "status": status, "headers": own})

    async def _drained(self) -> bool:
        """Read what the handler left of the body; False if the caller left."""
        while not self._asked.complete:
            async with self._turn():
                if self._gone:
                    logger.info("stephttp: run %s: the caller left before its request was complete",
                                self.run_id)  # fmt: skip
                    return False
                if not self._asked.complete:
                    await self._read()
        return True


async def _nothing() -> None:
    pass


def _is_bodiless(scope: Scope) -> bool:
    """Whether a request has no body, as its head says, so that nobody needs to read one."""
    if scope["method"] not in _BODILESS and not scope.get("http_version", "1.1").startswith("1"):
        return False  # from HTTP/2 on a body needs no header
    return not any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
