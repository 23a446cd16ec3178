"""A call of the server, under ASGI: the handler's response is the run's result."""

from __future__ import annotations

from stephttp._adapters.asgi.messages import (
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
from stephttp._adapters.asgi.scope import LoopScope, here
from stephttp._core.run import Run
from stephttp._run.current import current_call, enter
from stephttp._run.hooks import drive
from stephttp._run.passing import MARK, Body, marks
from stephttp._run.reentry import VERSION_HEADER, Reentry, body_of
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Request, Response
from stephttp.middleware import CallEnd

_BYPASSING = ("http.response.pathsend", "http.response.zerocopysend", "http.response.trailers")
"""Extensions by which a response's body would reach the server without passing us."""


async def reenter(
    app: ASGIApp, runtime: Runtime, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a call of the server: verify it, run the handler on from where it stood."""
    request = neutral(scope, b"")
    body = body_of(runtime, request)
    while not body.complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body.add(message.get("body", b""), message.get("more_body", False))
    own = [*marks(request.header(b"x-run-id")), VERSION_HEADER]
    reentry = Reentry(runtime, request, body)
    error: BaseException | None = None
    try:
        opened = await runtime.drive(reentry.open())
        if isinstance(opened, Response):
            reply = opened
        else:
            try:
                error = await _go_on(reentry, opened, app, runtime, scope, receive)
            except BaseException as raised:
                if reentry.hooks is not None:
                    await drive(reentry.hooks.over(CallEnd(None, raised, False)))
                raise
            reply = await runtime.drive(reentry.conclude(error))
    finally:
        reentry.close()
    await reply_with(send, reply, own)
    if error is not None:
        raise error  # so that what watches over the application sees it as it does without us


async def _go_on(
    reentry: Reentry, run: Run, app: ASGIApp, runtime: Runtime, scope: Scope, receive: Receive
) -> BaseException | None:
    """Run the handler. Returns what it raised."""

    async def keep(message: Message) -> None:
        if run.suspended:
            return
        if message["type"] == "http.response.start":
            run.response_began()
            reentry.response = Response(message["status"], list(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            reentry.body.add(message.get("body", b""), message.get("more_body", False))
            if reentry.body.complete:
                # The server hears of it only once the application has returned, for which Quart
                # waits until its listener hears of the end.
                run_scope.hang_up()

    run_scope = LoopScope(runtime, run, reentry.flush_soon, home=here())
    reentry.begin(run_scope)
    request = reentry.request
    line = Line(_Replay(request.body, receive, reentry.body))
    run_scope.hang_up = line.hang_up
    again = _restored(scope, request)
    again[MARK] = run.run_id
    run_scope.request = told_apart(again)
    token = enter(run_scope)
    error: BaseException | None = None
    try:
        if run_scope.hooks is not None:
            await drive(run_scope.hooks.open())
        await app(again, line, keep)
    except BaseException as raised:
        error = raised
    finally:
        current_call.reset(token)
    return await end_call(run_scope, error)


def _restored(scope: Scope, request: Request) -> Scope:
    extensions = scope.get("extensions") or {}
    return {
        **scope,
        "headers": request.headers,
        "client": request.client,
        "scheme": request.scheme,
        "extensions": {k: v for k, v in extensions.items() if k not in _BYPASSING},
    }


class _Replay:
    """`receive` of a re-entry: the body at once, then whatever the server's connection does, which
    for the application ends with its own answer."""

    __slots__ = ("_answer", "_message", "_receive")

    def __init__(self, body: bytes, receive: Receive, answer: Body) -> None:
        self._message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._receive = receive
        self._answer = answer

    async def __call__(self) -> Message:
        message, self._message = self._message, None
        if message is not None:
            return message
        return {"type": "http.disconnect"} if self._answer.complete else await self._receive()
