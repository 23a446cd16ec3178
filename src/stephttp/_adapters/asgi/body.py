"""The body of a request from outside: kept as the application reads it, and read ahead or to its
end where that is needed."""

from __future__ import annotations

import asyncio

from stephttp._adapters.asgi.messages import Line, Message, Receive, Scope
from stephttp._run.passing import Body

_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})


class Incoming:
    """What comes in by `receive`.

    Args:
        scope: of the request.
        receive: the server's.
        limit: bytes of the body that are kept.
    """

    __slots__ = ("_ahead", "_gone", "_line", "_receive", "_scope", "_turn", "body")

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        self._scope = scope
        self._receive = receive
        self.body = Body(limit)
        self._ahead: list[Message] = []
        self._gone = False
        # Quart and Django read in a task of their own, which goes on while we read what is left:
        # one at a time, or the one would wait for ever for what the other got.
        self._turn = asyncio.Lock()
        self._line: Line | None = None

    async def receive(self) -> Message:
        """`receive`, as the application sees it."""
        if self._line is None:
            self._line = Line(self._next)
        return await self._line()

    def hang_up(self) -> bool:
        """Let the application know that the connection has ended. Whether it is listening."""
        return self._line is not None and self._line.hang_up()

    def let_go(self) -> None:
        """The application has ended: what it listened with leads back to us."""
        self._line = None

    def has_all(self) -> bool:
        """Whether the whole body was read, as far as anybody can know."""
        return self.body.complete or _is_bodiless(self._scope)

    async def read_ahead(self) -> bool:
        """Read the rest of the body before the application does; False if the caller left."""
        while not self.has_all():
            async with self._turn:
                if self._gone:
                    return False
                if not self.has_all():
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
            return self._ahead.pop(0) if self._ahead else await self._read()

    async def _read(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.body.add(message.get("body", b""), message.get("more_body", False))
        else:
            self._gone = True
        return message


def _is_bodiless(scope: Scope) -> bool:
    """Whether a request has no body, as its head says, so that nobody needs to read one."""
    if scope["method"] not in _BODILESS and not scope.get("http_version", "1.1").startswith("1"):
        return False  # from HTTP/2 on a body needs no header
    return not any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
