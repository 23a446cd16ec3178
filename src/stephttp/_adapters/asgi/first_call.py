"""A first call under ASGI: what the handler sends goes out at once; callers who leave, and
code behind the response.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stephttp._adapters.asgi.messages import (
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    ends_response,
    reply_with,
)
from stephttp._adapters.asgi.request import BODILESS, ReceivedCall
from stephttp._adapters.asgi.scope import LoopScope, TaskContext
from stephttp._run.current import MARK, CurrentCall, enter, restore, run_headers
from stephttp._run.hooks import Hooks, drive
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.http import Response
from stephttp.middleware import CallEnd

if TYPE_CHECKING:
    from stephttp._adapters.asgi.event_answer import EventAnswer

logger = logging.getLogger("stephttp")

_HELD_TYPES = frozenset({"http.response.start", "http.response.body"})
"""Messages that can be kept, for others to get them as well."""

_init = ReceivedCall.__init__  # `super`, or to look it up each time, takes more instructions


class ASGIFirstCall(ReceivedCall):
    """One request from outside: the sync phase of a run."""

    __slots__ = (
        "_events",
        "_has_trailers",
        "_held",
        "_last",
        "_send",
    )

    def __init__(
        self,
        app: ASGIApp,
        runtime: Runtime,
        scope: Scope,
        receive: Receive,
        send: Send,
        context: TaskContext,
    ) -> None:
        _init(self, runtime, app, scope, receive)
        self._send = send
        self.current = CurrentCall(self, LoopScope, context)

    async def respond(self, run_at_once: bool) -> None:
        """Call the application, and see to what comes of it.

        Args:
            run_at_once: whether the request has a run before that; see `Settings`.
        """
        scope, token = self._scope, None
        error: BaseException | None = None
        try:
            if run_at_once and not await self._prepare():
                return
            try:
                token = enter(self.current)
                scope[MARK] = self.run_id
                if run_at_once and (hooks := self.current.scope().hooks) is not None:
                    await drive(hooks.open())
                app = self._app  # called as an attribute, it takes more instructions
                await app(scope, self._receive_for_app, self._send_for_app)
            except BaseException as raised:
                error = raised
            finally:
                if token is not None:
                    restore(token)
                    scope.pop(MARK, None)
                run_scope = self.current.leave()
                if self._input is not None:
                    self._input.release()
            try:
                if run_scope is not None:
                    error = await self._end(run_scope, error)
            finally:
                if run_scope is not None and self._last is not None:
                    await self._send(self._last)
            if error is not None:
                raise error
        finally:
            if self._input is not None:
                self._input.close()

    def run_made(self, scope: RunScope) -> None:
        """Prepare a run that was just made; see `HandlerCall`."""
        ReceivedCall.run_made(self, scope)
        assert isinstance(scope, LoopScope), "made by `current`"
        scope.disconnect = self._disconnect
        self._held: list[Message] | None = None
        """What the application has sent, as long as that is held back."""
        self._last: Message | None = None
        """The end of the response, as long as that is held back."""
        self._events: EventAnswer | None = None
        """The answer to a caller who gets events."""
        given = self._input
        if self._sent["method"] not in BODILESS and not (given and given.body.complete):
            scope.dispatch(self._read_small)

    async def _prepare(self) -> bool:
        """Do what is configured to be done before the application is called.

        Returns:
            Whether it is to be called.
        """
        runtime, scope = self.runtime, self.current.scope()
        if runtime.settings.middleware:
            scope.hooks = Hooks.of(scope, self._request(b""))
        if not runtime.settings.has_keys or await runtime.drive(self._claim_at_once()):
            return True
        if self._stored_answer is not None:
            await reply_with(self._send, self._stored_answer, run_headers(self._answered_run))
        return False

    async def _end(self, scope: RunScope, error: BaseException | None) -> BaseException | None:
        """Conclude the run of an application that has returned, or raised `error`.

        Returns:
            What is to be raised.
        """
        assert isinstance(scope, LoopScope), "made by `current`"
        try:
            error = await scope.end(error)
        except BaseException as raised:
            await self._give_up(scope, raised)
            raise
        if scope.run.suspended and self._stored_answer is None and not await self._drain():
            await self._give_up(scope, None)
            return None
        try:
            flow = self._conclude(scope, error)
            reply = None if flow is None else await self.runtime.drive(flow)
        except BaseException:
            if self._events is not None:
                self._events.abort()
            raise
        if self._events is not None:
            await self._events.finish(self._last_of_events(reply, error))
        elif reply is None and self._held is not None:
            await self._let_out()
        if reply is None:
            return error
        self._held = None
        if error is not None:
            self.log_hidden(error)
        if self._events is None:
            await reply_with(self._send, reply, run_headers(self._answered_run))
        return None

    def _has_begun(self) -> bool:
        return self._status != 0

    def _begin_events(self, scope: RunScope) -> EventAnswer:
        """Make events the answer of this call, and what the handler answers their end."""
        from stephttp._adapters.asgi.event_answer import EventAnswer

        self._held = []
        self._events = EventAnswer(self._send, run_headers(self.run_id), scope.dispatch)
        return self._events

    async def _let_out(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, None
        for message in held or ():
            await self._send(message)

    async def _hold(self, message: Message) -> None:
        """Hold back a part of an answer that has to be stored before it is sent."""
        assert self._held is not None
        answer, kind = self._answer, message["type"]
        if self._events is not None:
            if kind not in _HELD_TYPES and answer is not None:
                answer.refuse(answer.size)
            return
        self._held.append(message)
        if kind not in _HELD_TYPES or (answer is not None and answer.overflown):
            if answer is not None:
                answer.refuse(answer.size)
            await self._let_out()
        # What failed is reported with the error, which the application may raise yet.
        elif answer is not None and answer.complete and self._status < 500:
            reply = await self.runtime.drive(self._store(None))
            if reply is None:
                await self._let_out()
            else:
                self._held = []
                await reply_with(self._send, reply, run_headers(self.run_id))

    async def _give_up(self, scope: RunScope, error: BaseException | None) -> None:
        """Leave the run as it is, and tell the middleware that this call has no result."""
        if self._journal is not None:
            self._journal.abandon()
        if self._events is not None:
            self._events.abort()
        scope.stream = None  # it leads back to the scope
        if scope.hooks is not None:
            await drive(scope.hooks.over(CallEnd(None, error, False)))

    async def _receive_for_app(self) -> Message:
        """`receive`, as the application sees it."""
        return await self._reading().receive()

    async def _send_for_app(self, message: Message) -> None:
        """`send`, as the application sees it."""
        if message["type"] == "http.response.start":
            scope = self.current.begin_response()
            status, headers = message["status"], [*message.get("headers", ())]
            if scope is not None:
                if not self._may_begin(scope):
                    return
                if scope.hooks is not None:
                    head = Response(status, headers)
                    await drive(scope.hooks.before_response(head))
                    status, headers = head.status, head.headers
                self._keep_answer()
                if self._keyed:
                    self._held = []
            self._status, self._headers = status, headers
            if "trailers" in message:
                self._has_trailers = message["trailers"]
            message = dict(message)
            message["status"] = status
            message["headers"] = run_headers(self.run_id, headers)
        elif (scope := self.current.so_far) is not None:
            if scope.run.suspended:
                if not message.get("more_body", False):
                    # Nothing more happens on this connection, for which Quart waits.
                    self._reading().hang_up()
                return
            if self._answer is not None and message["type"] == "http.response.body":
                self._answer.add(message.get("body", b""), message.get("more_body", False))
                if self._answer.complete:
                    self._note_end_of_answer()
            elif ends_response(message, trailers=False):
                self._note_end_of_answer()
            if self.delivers_first() and self._ends_with(message, scope):
                return
        if scope is None or self._held is None:
            send = self._send
            await send(message)
        else:
            await self._hold(message)

    def _ends_with(self, message: Message, scope: RunScope) -> bool:
        """Hold back the end of a response that has to wait until its run is delivered."""
        if self._held is not None:
            return False
        # Few responses have trailers, so the attribute is set only there.
        if not ends_response(message, trailers=getattr(self, "_has_trailers", False)):
            return False
        if not scope.run.used and self._journal is None:
            return False
        self._last = message
        self._reading().hang_up()  # nothing follows, for which an application may wait
        return True

    def _may_begin(self, scope: RunScope) -> bool:
        """Let the response of a run begin. Returns whether it is to be sent."""
        assert isinstance(scope, LoopScope), "made by `current`"
        if scope.run.suspended and scope.still_waits():
            return False
        if not self._keyed and scope.leaves_end():
            return False
        return scope.begin_response()
