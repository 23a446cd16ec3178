"""Keeps HTTP connections to the server for further requests.

The library's own pool looks at all of its connections with each request and each answer, and asks
the system about every idle one. Measured in turns with this one, on the application of
benchmarks/bench_end_to_end.py (a sleep and a re-entry in each run): the library's pool costs the
application 1.6 times as much processor time with 64 callers at a time, 1.1 times with 8.
Checkpoints that travel in batches cost the same with either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any

import httpcore2

Connection = httpcore2.AsyncHTTPConnection


class ConnectionPool:
    """One connection for each request that is under way; idle ones are used again, newest first.

    Args:
        make: makes a connection to an origin.
        most_idle: how many are kept.
        keep_alive: for how many seconds.
    """

    def __init__(
        self,
        make: Callable[[httpcore2.Origin], Connection],
        most_idle: int,
        keep_alive: float,
    ) -> None:
        self._make = make
        self._most_idle = most_idle
        self._keep_alive = keep_alive
        self._idle: list[tuple[Connection, float]] = []
        """With the time since when; the one that has been idle longest comes first."""

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """Send a request. The connection is free again once the answer is closed."""
        connection = await self._take(request.url.origin)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await connection.aclose()
            raise
        done = partial(self._put, connection)
        response.stream = _Body(response.stream, done, connection.aclose)
        return response

    async def aclose(self) -> None:
        """Close what is idle; what is not is closed after its answer."""
        self._most_idle = 0
        while self._idle:
            await self._idle.pop()[0].aclose()

    async def __aenter__(self) -> ConnectionPool:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _take(self, origin: httpcore2.Origin) -> Connection:
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index][0].can_handle_request(origin):
                connection, _ = self._idle.pop(index)
                if not connection.has_expired():
                    return connection
                # Older ones are hardly any better.
                await connection.aclose()
                break
        return self._make(origin)

    async def _put(self, connection: Connection) -> None:
        if not connection.is_idle():
            await connection.aclose()
            return
        now = monotonic()
        self._idle.append((connection, now))
        # Only what is taken is asked whether the server has closed it: that is a system call.
        while self._idle and (
            len(self._idle) > self._most_idle or self._idle[0][1] <= now - self._keep_alive
        ):
            await self._idle.pop(0)[0].aclose()


class _Body:
    """The body of an answer, which has the connection to itself until it is closed."""

    def __init__(
        self,
        stream: Any,
        done: Callable[[], Awaitable[None]],
        broken: Callable[[], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._done = done
        self._broken = broken
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._stream.aclose()
        except BaseException:
            await self._broken()
            raise
        await self._done()
