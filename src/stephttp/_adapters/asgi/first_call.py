"""A request from outside, under ASGI. What the handler sends goes out at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from stephttp._adapters.asgi.body import Incoming
from stephttp._adapters.asgi.handle import Handle
from stephttp._adapters.asgi.messages import (
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
from stephttp._adapters.asgi.scope import LoopScope, here
from stephttp._adapters.routes import asgi_route
from stephttp._core.run import Run
from stephttp._run.current import current_call, enter
from stephttp._run.first_call import LiveCall
from stephttp._run.hooks import drive
from stephttp._run.passing import MARK, Body, marks
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.http import Request, Response
from stephttp.middleware import CallEnd

logger = logging.getLogger("stephttp")


class Live(LiveCall):
    """One request from outside: the sync phase of a run."""

    __slots__ = ("_app", "_home", "_incoming", "_receive", "_scope", "_send")

    def __init__(
        self, app: ASGIApp, runtime: Runtime, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(runtime)
        self._app = app
        self._scope = scope
        self._receive = receive
        self._send = send
        self._incoming: Incoming | None = None
        self._home = here()

    async def respond(self, prepare: bool) -> None:
        """Call the application, and see to what comes of it.

        Args:
            prepare: whether something is to be done first; see `Runtime.opens_at_once`.
        """
        if prepare and not await self._prepare():
            return
        scope, token = self._scope, None
        handle = Handle(self, self._home)
        error: BaseException | None = None
        try:
            token = enter(handle)
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
            self._left = True  # before we look for a scope: see `_open`
            run_scope = self._run_scope
            handle.leave(run_scope)
            if self._incoming is not None:
                self._incoming.let_go()
        if run_scope is not None:
            error = await self._end(run_scope, error)
        if error is not None:
            raise error

    async def _prepare(self) -> bool:
        """Do what is configured to be done before the application is called.

        Returns:
            Whether it is to be called.
        """
        scope, runtime = self.open(), self.runtime
        if runtime.settings.middleware:
            scope.use_middleware(self._request(b""))
        if not runtime.has_keys or await runtime.drive(self._claim_at_once()):
            return True
        if self._stored_answer is not None:
            await reply_with(self._send, self._stored_answer, marks(self._answers_as))
        return False

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
        response = None if reply is None else await self.runtime.drive(reply)
        if response is not None:
            await reply_with(self._send, response, marks(self._answers_as))
        return error

    @property
    def told_apart(self) -> tuple[Any, ...]:
        """What tells the request from others."""
        return told_apart(self._scope)

    def _method(self) -> str:
        method: str = self._scope["method"]
        return method

    def _new_scope(self, run: Run) -> LoopScope:
        scope = LoopScope(self.runtime, run, home=self._home, started_ns=self.started_ns)
        scope.hang_up = self._hang_up
        return scope

    def _hang_up(self) -> bool:
        return self._incoming is not None and self._incoming.hang_up()

    def _reading(self) -> Incoming:
        if self._incoming is None:
            limit = self.runtime.settings.max_body_bytes
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
            if scope is None:
                self._status = message["status"]
                self._headers = list(message.get("headers", ()))
            elif not await self._begin(message, scope):
                return
            own = [*self._headers, *marks(self.run_id)]
            message = {**message, "status": self._status, "headers": own}
        elif self._run_scope is not None:
            if self._run.suspended:
                return
            if self._answer is not None and message["type"] == "http.response.body":
                self._answer.add(message.get("body", b""), message.get("more_body", False))
        await self._send(message)

    async def _begin(self, message: Message, scope: RunScope) -> bool:
        """The response of a run begins. Whether that is to be sent."""
        with scope._lock:
            if scope.run.suspended:
                return False
            scope.run.response_began()
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
