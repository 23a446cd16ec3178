"""What both responders need: the types of ASGI, bodies that pass by, calling the application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from stephttp._client.endpoints import SDK
from stephttp._context import RunScope, current_run, enter
from stephttp._core.messages import Headers, Request, Response
from stephttp._core.middleware import CallEnd
from stephttp._hooks import drive
from stephttp.errors import Suspended

logger = logging.getLogger("stephttp")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[..., Awaitable[None]]
"""Called with scope, receive and send, for which every framework has types of its own."""

MARK = "stephttp.run_id"
"""Key of a scope that passes through us."""

PLAIN_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
_SDK_HEADER = (b"x-inngest-sdk", SDK.encode())


class Body:
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


async def call_app(
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
    scope[MARK] = run.run_id
    request = (scope["method"], scope["path"], scope.get("query_string"), scope["headers"])
    token = enter(run_scope, request)
    error: BaseException | None = None
    hooks = run_scope.hooks
    try:
        if hooks is not None:
            await drive(hooks.open())
        await app(scope, receive, send)
    except BaseException as raised:
        error = raised
    finally:
        current_run.reset(token)
        del scope[MARK]
        cancelled = run_scope.close(error)
    if cancelled or isinstance(error, KeyboardInterrupt | SystemExit):
        run.end()
        if hooks is not None:
            await drive(hooks.over(CallEnd(None, error or asyncio.CancelledError(), False)))
        raise error or asyncio.CancelledError
    if run.suspended:
        await run_scope.quiet()
    run.end()
    if hooks is not None:
        await drive(hooks.close(None if run.suspended else error))
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


def neutral(scope: Scope, body: bytes) -> Request:
    """A request as the rest of the package knows it."""
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


def marks(run_id: str) -> Headers:
    """The two headers that every response of a durable application carries."""
    return [(b"x-run-id", run_id.encode("latin-1")), _SDK_HEADER]


async def reply_with(
    send: Send, reply: Response, own: Headers, run_scope: RunScope | None = None
) -> None:
    """Send a whole response of ours, as the middleware of `run_scope` wants it."""
    if run_scope is not None and run_scope.hooks is not None:
        await drive(run_scope.hooks.before_response(reply))
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": reply.headers + own}
    )
    await send({"type": "http.response.body", "body": reply.body})
