"""The messages of ASGI: `receive` as the application sees it (body, disconnect), and whole
replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stephttp._wire.http import Body, Headers, Response

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[..., Awaitable[None]]
"""Called with scope, receive and send, for which every framework has types of its own."""


_BODIES = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})


def ends_response(message: Message, *, trailers: bool) -> bool:
    """Return whether a message is the last one of a response.

    Args:
        trailers: whether the start of the response has announced trailers.
    """
    if trailers:
        return message["type"] == "http.response.trailers" and not message.get("more_trailers")
    return message["type"] in _BODIES and not message.get("more_body")


class InterruptibleReceive:
    """`receive` as the application has it, which the SDK can end with a disconnect.

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

    def disconnect(self) -> bool:
        """Let the application know that the connection has ended.

        Returns:
            Whether it was listening.
        """
        if self._ended or self._listener is None:
            return False
        self._ended = True
        return self._listener.cancel()

    def end(self) -> None:
        """Let the application know, now or when it listens again, that the connection has ended."""
        if not self.disconnect():
            self._ended = True

    def _takes_back(self, task: asyncio.Task[Any], others: int) -> bool:
        """Whether only the SDK wanted a cancellation, and nothing else at the same time."""
        return self._ended and task.uncancel() <= others


def _ends() -> bool:
    return False


class Input:
    """The body of a request from outside, as it comes in by `receive`. The part that the
    application reads is kept; the rest is read ahead, or to its end, where that is needed.

    Args:
        receive: the server's.
        limit: bytes of the body that are kept.
        goes_on: returns whether the request continues without its caller, until `close`.
    """

    __slots__ = (
        "_ahead", "_goes_on", "_gone", "_interruptible", "_reading", "_receive", "_soon", "_turn",
        "body",
    )  # fmt: skip

    def __init__(self, receive: Receive, limit: int, goes_on: Callable[[], bool] = _ends) -> None:
        self._receive = receive
        self._goes_on = goes_on
        self._soon: asyncio.Future[bool] | None = None
        self.body = Body(limit)
        self._ahead: list[Message] = []
        self._gone = False
        # Quart and Django read in a task of their own, which continues while we read what is left.
        # Reading takes turns, or one reader would wait forever for what the other got.
        self._turn = asyncio.Lock()
        self._interruptible: InterruptibleReceive | None = None
        self._reading: asyncio.Future[Message] | None = None
        """What reads a message of the body where that must come to its end; see `_next_message`."""

    async def receive(self) -> Message:
        """`receive`, as the application sees it."""
        if self._interruptible is None:
            self._interruptible = InterruptibleReceive(self._next)
        return await self._interruptible()

    def disconnect(self) -> bool:
        """Let the application know that the connection has ended.

        Returns:
            Whether it was listening.
        """
        return self._interruptible is not None and self._interruptible.disconnect()

    def hang_up(self) -> None:
        """Let the application know that the connection has ended, also if it listens later."""
        if self._interruptible is None:
            self._interruptible = InterruptibleReceive(self._next)
        self._interruptible.end()

    def release(self) -> None:
        """Let go of what the application listened with, which leads back to here."""
        self._interruptible = None

    def read_soon(self) -> None:
        """Read the rest of the body before the application does, as it comes."""
        self._soon = asyncio.ensure_future(self.read_ahead())

    def close(self) -> None:
        """Stop reading: nothing more of the body is needed."""
        self._goes_on = _ends  # it leads back to here
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    async def read_ahead(self) -> bool:
        """Read the rest of the body before the application does; False if the caller left."""
        while not self.body.complete:
            async with self._turn:
                if self._gone:
                    return False
                if not self.body.complete:
                    message = await self._read()
                    if not self.body.overflown:
                        self._ahead.append(message)
        return True

    async def drain(self) -> bool:
        """Read what the application left of the body; False if the caller left."""
        while not self.body.complete:
            async with self._turn:
                if self._gone:
                    return False
                if not self.body.complete:
                    await self._read()
        return True

    async def _next(self) -> Message:
        async with self._turn:
            message = self._ahead.pop(0) if self._ahead else await self._read()
        if message["type"] == "http.disconnect" and _ends_handlers() and self._goes_on():
            await asyncio.Event().wait()  # until the framework, or the SDK, ends that
        return message

    async def _read(self) -> Message:
        message = await self._next_message()
        if message["type"] == "http.request":
            self.body.add(message.get("body", b""), message.get("more_body", False))
        else:
            self._gone = True
        return message

    async def _next_message(self) -> Message:
        """Return the next message, which is not lost if the application gives up waiting for it.

        `BaseHTTPMiddleware` around us passes the body on from a generator, which a cancellation
        ends: `request.is_disconnected()` would take the body away.
        """
        if self.body.complete or not _passes_on(self._receive):
            return await self._receive()
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._receive())
        message = await asyncio.shield(self._reading)
        self._reading = None
        return message


_LISTENERS = frozenset(
    {
        ("django.core.handlers.asgi", "ASGIHandler.listen_for_disconnect"),
        ("quart.asgi", "ASGIHTTPConnection.handle_messages"),
    }
)
"""What frameworks listen with for a caller who leaves, in order to cancel its handler."""


def _ends_handlers() -> bool:
    """Return whether this task is one of `_LISTENERS`."""
    task = asyncio.current_task()
    coroutine = None if task is None else task.get_coro()
    frame = getattr(coroutine, "cr_frame", None)
    where = "" if frame is None else frame.f_globals.get("__name__", "")
    return (where, getattr(coroutine, "__qualname__", "")) in _LISTENERS


def _passes_on(receive: Any) -> bool:
    """Return whether `receive` is that of Starlette's `BaseHTTPMiddleware`."""
    return getattr(receive, "__module__", "") == "starlette.middleware.base"


class ReentryReceive:
    """`receive` of a re-entry: the body at once, then what the server's connection does, which for
    the application ends when its answer is delivered.

    Django cancels what still sends its answer once the connection has ended.

    Args:
        body: of the original request.
        receive: the server's.
    """

    __slots__ = ("_message", "_receive", "ended")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._receive = receive
        self.ended = False
        """Whether the connection has ended for the application."""

    async def __call__(self) -> Message:
        message, self._message = self._message, None
        if message is not None:
            return message
        return {"type": "http.disconnect"} if self.ended else await self._receive()


async def reply_with(send: Send, reply: Response, own: Headers) -> None:
    """Send a whole response of the SDK."""
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": reply.headers + own}
    )
    await send({"type": "http.response.body", "body": reply.body})
