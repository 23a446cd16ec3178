"""What both responders need: the types of ASGI, and what the end of the application means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from stephttp._run.passing import on_the_line, own_error
from stephttp._run.scope import RunScope
from stephttp._wire.http import Headers, Request, Response

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[..., Awaitable[None]]
"""Called with scope, receive and send, for which every framework has types of its own."""


class Line:
    """`receive` as the application has it, which we can end.

    Args:
        receive: what it stands for.
    """

    __slots__ = ("_ended", "_listener", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._listener: asyncio.Task[Any] | None = None
        self._ended = False

    async def __call__(self) -> Message:
        if self._ended:
            return {"type": "http.disconnect"}
        task = self._listener = asyncio.current_task()
        assert task is not None, "an event loop runs coroutines in tasks"
        others = task.cancelling()
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not self._takes_back(task, others):
                raise
            return {"type": "http.disconnect"}
        finally:
            self._listener = None

    def _takes_back(self, task: asyncio.Task[Any], others: int) -> bool:
        """Whether a cancellation was ours alone, and not somebody else's at the same time."""
        return self._ended and task.uncancel() <= others

    def hang_up(self) -> bool:
        """Let the application know that the connection has ended. Whether it is listening."""
        if self._ended or self._listener is None:
            return False
        self._ended = True
        return self._listener.cancel()


async def end_call(run_scope: RunScope, error: BaseException | None) -> BaseException | None:
    """The application has returned, or raised `error`.

    Returns:
        The exception that ended it, if it is the application's own: not when it is the echo of a
        suspension, in whatever wrapping.

    Raises:
        CancelledError: somebody else cancelled this request.
    """
    run = run_scope.run
    cancelled = run_scope.close(error)
    if cancelled or (error is not None and isinstance(error, KeyboardInterrupt | SystemExit)):
        run.end()
        raise error or asyncio.CancelledError
    if run.suspended:
        await run_scope.drive(run_scope.quiet())
    return own_error(run_scope, error)


def told_apart(scope: Scope) -> tuple[Any, ...]:
    """What tells a request from others."""
    return scope["method"], scope["path"], scope.get("query_string"), scope["headers"]


def neutral(scope: Scope, body: bytes) -> Request:
    """A request as the rest of the package knows it."""
    raw_path = scope.get("raw_path")
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=on_the_line(raw_path) if raw_path else quote(scope["path"]),
        query=on_the_line(scope.get("query_string", b"")),
        headers=list(scope["headers"]),
        client=(client[0], client[1]) if client else None,
        scheme=scope.get("scheme", "http"),
        body=body,
    )


async def reply_with(send: Send, reply: Response, own: Headers) -> None:
    """Send a whole response of ours."""
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": reply.headers + own}
    )
    await send({"type": "http.response.body", "body": reply.body})
