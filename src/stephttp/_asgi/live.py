"""A request from outside, under ASGI. What the handler sends goes out at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from stephttp._asgi.common import (
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    end_call,
    neutral,
    reply_with,
    told_apart,
)
from stephttp._asgi.incoming import Incoming
from stephttp._asgi.scope import LoopScope
from stephttp._calls.common import MARK, RUN_ID_HEADER, SDK_HEADER, Body, marks
from stephttp._calls.live import RESPONSE_HAS_BEGUN, LiveCall
from stephttp._context import RunScope
from stephttp._core.messages import Request, Response
from stephttp._core.middleware import CallEnd
from stephttp._core.run import Run
from stephttp._current import current_call, enter
from stephttp._hooks import drive
from stephttp._routes import asgi_route
from stephttp.provider import Provider

logger = logging.getLogger("stephttp")


class Live(LiveCall):
    """One request from outside: the sync phase of a run."""

    __slots__ = (
        "_app",
        "_cancelling",
        "_incoming",
        "_loop",
        "_receive",
        "_scope",
        "_send",
        "_task",
    )

    def __init__(
        self, app: ASGIApp, provider: Provider, scope: Scope, receive: Receive, send: Send
    ) -> None:
        LiveCall.__init__(self, provider)
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._incoming: Incoming | None = None
        self._task = task = asyncio.current_task()
        self._loop = asyncio.get_running_loop() if task is None else None
        self._cancelling = 0 if task is None else task.cancelling()

    async def respond(self, prepare: bool) -> None:
        """Call the application, and see to what comes of it.

        Args:
            prepare: whether something is to be done first; see `Provider.opens_at_once`.
        """
        if prepare and not await self._prepare():
            return
        scope, token = self._scope, None
        error: BaseException | None = None
        try:
            token = enter(self)
            scope[MARK] = self.run_id
            if prepare and (hooks := self.open().hooks) is not None:
                await drive(hooks.open())
            await self._app(scope, self._in, self._out)
        except BaseException as raised:
            error = raised
        finally:
            if token is not None:
                current_call.reset(token)
                del scope[MARK]
            self._left = True
            if self._incoming is not None:
                self._incoming.let_go()
        if self._run_scope is not None:
            error = await self._end(self._run_scope, error)
        if self._run_scope is None or self._journal is None:
            # Whoever copied the context keeps us: a server's timers, tasks that go on.
            self._incoming = self._task = None
            self._loop = asyncio.get_running_loop()
            self._app = self._receive = self._send = _gone
            self._scope = {}
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
        goes_on = True
        try:
            if provider.has_keys:
                goes_on = await provider.drive(self._claim_at_once())
                if goes_on and self._stored_answer is not None:
                    goes_on = False
                    await reply_with(self._send, self._stored_answer, marks(self._answers_as))
        except BaseException:
            goes_on = False
            raise
        finally:
            if not goes_on:
                self._let_go(scope)
        return goes_on

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
        if run.suspended and self._stored_answer is None and not await self._drain():
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
            loop=self._loop,
            cancelling=self._cancelling,
            started_ns=self.started_ns,
        )
        scope.hang_up = self._hang_up
        return scope

    def _hang_up(self) -> bool:
        return self._incoming is not None and self._incoming.hang_up()

    def _reading(self) -> Incoming:
        if self._incoming is None:
            limit = self.provider.settings.max_body_bytes
            self._incoming = Incoming(self._scope, self._receive, limit)
        return self._incoming

    async def _in(self) -> Message:
        """`receive`, as the application sees it. Most requests have no body to be read."""
        return await self._reading().receive()

    @property
    def _asked(self) -> Body:
        return self._reading().body

    def _request(self, body: bytes) -> Request:
        return neutral(self._scope, body)

    def _route(self) -> str:
        return asgi_route(self._app, self._scope)

    def _has_all(self) -> bool:
        return self._reading().has_all()

    def _read_ahead(self, _: Any = None) -> Awaitable[bool]:
        return self._reading().read_ahead()

    def _give_up(self) -> BaseException:
        return asyncio.CancelledError()

    async def _out(self, message: Message) -> None:
        """`send`, as the application sees it."""
        if message["type"] == "http.response.start":
            self._begun = True  # before we look for a scope: see `_open`
        scope = self._run_scope
        if message["type"] == "http.response.start":
            if scope is None:
                self._status = message["status"]
                self._headers = list(message.get("headers", ()))
            elif not await self._begin(message, scope):
                return
            own = [*self._headers, (RUN_ID_HEADER, self.run_id.encode()), SDK_HEADER]
            message = {**message, "status": self._status, "headers": own}
        elif scope is not None:
            if scope.run.suspended:
                return
            if self._answer is not None and message["type"] == "http.response.body":
                self._answer.add(message.get("body", b""), message.get("more_body", False))
        await self._send(message)

    async def _begin(self, message: Message, scope: RunScope) -> bool:
        """The response of a run begins. Whether that is to be sent."""
        with scope._lock:
            if scope.run.suspended:
                return False
            scope.run.cannot_wait = RESPONSE_HAS_BEGUN
        head = Response(message["status"], list(message.get("headers", ())))
        if scope.hooks is not None:
            await drive(scope.hooks.before_response(head))
        self._status, self._headers = head.status, head.headers
        self._keep_answer()
        return True

    async def _drain(self) -> bool:
        if await self._reading().drain():
            return True
        logger.info("stephttp: run %s: the caller left before its request was complete",
                    self.run_id)  # fmt: skip
        return False


async def _gone(*_: Any) -> Any:
    """In place of what only the request itself needed."""
    raise RuntimeError("the request is over")
