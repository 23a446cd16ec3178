"""A re-entry under ASGI: restores the first request, calls the application, and keeps its
response as the run's result.
"""

from __future__ import annotations

from typing import Any

from stephttp._adapters.asgi.messages import (
    ASGIApp,
    InterruptibleReceive,
    Message,
    Receive,
    ReentryReceive,
    Scope,
    Send,
    reply_with,
)
from stephttp._adapters.asgi.request import identity, neutral
from stephttp._adapters.asgi.scope import LoopScope, task_context
from stephttp._core.run import Run
from stephttp._run.current import MARK, CurrentCall, enter, restore
from stephttp._run.hooks import drive
from stephttp._run.reentry import Reentry
from stephttp._run.reentry_guard import body_of, own_headers
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Headers, Request, Response
from stephttp.middleware import CallEnd

_BYPASSING = ("http.response.pathsend", "http.response.zerocopysend", "http.response.trailers")
"""Extensions by which a response's body would reach the server without passing us."""


async def reenter(
    app: ASGIApp, runtime: Runtime, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a call of the server: verify it, and continue the handler from where it stood."""
    request = neutral(scope, b"", receive)
    body = body_of(runtime, request)
    while not body.complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body.add(message.get("body", b""), message.get("more_body", False))
    reentry = Reentry(runtime, request, body)
    answer = _Answer(reentry, send, own_headers(runtime, request))
    error: BaseException | None = None
    try:
        opened = await runtime.drive(reentry.open())
        if isinstance(opened, Response):
            await answer.send(opened)
        else:
            try:
                error = await _run_handler(reentry, opened, app, scope, receive, answer)
            except BaseException as raised:
                if reentry.hooks is not None and not answer.sent:
                    await drive(reentry.hooks.over(CallEnd(None, raised, False)))
                raise
            if not answer.sent:
                await answer.conclude(error)
    finally:
        reentry.close()
    if error is not None:
        raise error  # so that what watches over the application sees it as it does without us


class _Answer:
    """The answer to a call, which is sent once: when the application has responded, so that its
    background tasks come after that, or when it has ended.

    Args:
        send: the server's.
        own: headers of the SDK.
    """

    __slots__ = ("_own", "_reentry", "_send", "sent")

    def __init__(self, reentry: Reentry, send: Send, own: Headers) -> None:
        self._reentry = reentry
        self._send = send
        self._own = own
        self.sent = False

    async def conclude(self, error: BaseException | None) -> None:
        """Answer for a handler that has ended."""
        self.sent = True
        reply = await self._reentry.runtime.drive(self._reentry.conclude(error))
        await self.send(reply)

    async def send(self, reply: Response) -> None:
        """Let the next call of the run in, and answer this one."""
        self._reentry.close()
        await reply_with(self._send, reply, self._own)


async def _run_handler(
    reentry: Reentry, run: Run, app: ASGIApp, scope: Scope, receive: Receive, answer: _Answer
) -> BaseException | None:
    """Run the handler. Returns what it raised."""
    context = task_context()
    run_scope = LoopScope(reentry.runtime, run, context, on_record=reentry.flush_soon)
    restored_scope = restored(scope, reentry.request)
    restored_scope[MARK] = run.run_id
    reentry.identity = identity(restored_scope)
    reentry.surroundings = restored_scope
    reentry.run_made(run_scope)
    from_start = ReentryReceive(reentry.request.body, receive)
    receive_for_app = InterruptibleReceive(from_start)
    run_scope.disconnect = receive_for_app.disconnect

    async def send_for_app(message: Message) -> None:
        start = message["type"] == "http.response.start"
        if run.suspended and not (start and not run_scope.still_waits()):
            if not start and not message.get("more_body", False):
                receive_for_app.end()
            return
        if start:
            run.response_began()
            # Django's names are not in lower case, as ASGI wants them.
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            reentry.response = Response(message["status"], headers)
        elif message["type"] == "http.response.body":
            reentry.body.add(message.get("body", b""), message.get("more_body", False))
            if reentry.body.complete:
                if reentry.is_answered(run_scope, current):
                    current.leave()
                    await run_scope.end(None)
                    await answer.conclude(None)
                from_start.ended = True
                # Quart returns once its listener sees the end of the connection.
                receive_for_app.disconnect()

    current = CurrentCall(reentry, LoopScope, context, run_scope)
    token = enter(current)
    error: BaseException | None = None
    try:
        if run_scope.hooks is not None:
            await drive(run_scope.hooks.open())
        await app(restored_scope, receive_for_app, send_for_app)
    except BaseException as raised:
        error = raised
    finally:
        restore(token)
        current.leave()
    return error if answer.sent else await run_scope.end(error)


def restored(scope: Scope, request: Request) -> Scope:
    """Return the scope of a re-entry as it was of the original request."""
    extensions = scope.get("extensions") or {}
    again = {
        **scope,
        "method": request.method,
        "headers": list(request.headers),
        "client": _as_given(request.client, scope.get("client")),
        "scheme": request.scheme,
        "extensions": {k: v for k, v in extensions.items() if k not in _BYPASSING},
    }
    if request.seen_at is not None:
        again["root_path"], again["path"] = request.seen_at.root_path, request.seen_at.path
        if request.seen_at.raw_path:
            again["raw_path"] = request.seen_at.raw_path.encode()
    return again


def _as_given(address: tuple[str, int] | None, own: Any) -> tuple[str, Any] | None:
    """Return an address of the original request in the form that its server gives.

    Args:
        own: the address of the server's own call.
    """
    port = own[1] if own and len(own) > 1 else 0
    if address is None or isinstance(port, int):
        return address
    return address[0], (str(address[1]) if isinstance(port, str) else address[1] or None)
