"""A pool of HTTP connections that costs the same however many there are.

The library's own pool looks at every connection that it has, with a system call each, before and
after each request: with 64 callers that was half of what a call of an endpoint cost. Here the one
that was used last is looked at, and the one that has been idle the longest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from functools import partial
from typing import Any, cast

import anyio
import httpcore2
import httpx2


class LeanTransport(httpx2.AsyncHTTPTransport):
    """`httpx2.AsyncHTTPTransport` (HTTP/1.1, no proxy) with such a pool.

    Args:
        keepalive_expiry: seconds for which an idle connection is kept; `None` for ever.
        max_idle: idle connections that are kept of each server.
        network_backend: makes connections; by default the library's.
    """

    def __init__(
        self,
        *,
        keepalive_expiry: float | None = 5.0,
        max_idle: int = 100,
        network_backend: httpcore2.AsyncNetworkBackend | None = None,
        trust_env: bool = True,
    ) -> None:
        super().__init__(trust_env=trust_env)
        # The transport has no argument for it. Tests go through here, so that a change of the
        # library does not go unnoticed.
        pool = Pool(
            partial(
                httpcore2.AsyncHTTPConnection,
                ssl_context=httpx2.create_ssl_context(trust_env=trust_env),
                keepalive_expiry=keepalive_expiry,
                network_backend=network_backend,
            ),
            max_idle,
        )
        self._pool = cast(httpcore2.AsyncConnectionPool, pool)


class Pool:
    """Connections to a few servers, used last in, first out.

    Args:
        connect: makes a connection to an origin, which is opened when it is first used.
        max_idle: connections to each origin that are kept.
    """

    def __init__(
        self, connect: Callable[[httpcore2.Origin], httpcore2.AsyncHTTPConnection], max_idle: int
    ) -> None:
        self._connect = connect
        self._max_idle = max_idle
        self._idle: dict[tuple[bytes, bytes, int], deque[httpcore2.AsyncHTTPConnection]] = {}

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                await connection.aclose()

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """Send a request; its connection is free again when the response is closed."""
        origin = request.url.origin
        key = (origin.scheme, origin.host, origin.port)
        while True:
            connection = await self._take(key) or self._connect(origin)
            try:
                response = await connection.handle_async_request(request)
            except httpcore2.ConnectionNotAvailable:
                continue  # its server closed it just now
            except BaseException:
                await connection.aclose()
                raise
            stream = cast(AsyncIterable[bytes], response.stream)
            response.stream = _Stream(stream, partial(self._give_back, key, connection))
            return response

    async def _take(self, key: tuple[bytes, bytes, int]) -> httpcore2.AsyncHTTPConnection | None:
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if connection.is_available() and not connection.has_expired():
                return connection
            await connection.aclose()
        return None

    async def _give_back(
        self, key: tuple[bytes, bytes, int], connection: httpcore2.AsyncHTTPConnection
    ) -> None:
        if not connection.is_idle() or connection.is_closed():
            await connection.aclose()
            return
        idle = self._idle.setdefault(key, deque())
        idle.append(connection)
        while idle and (len(idle) > self._max_idle or idle[0].has_expired()):
            await idle.popleft().aclose()


class _Stream:
    """The body of a response, which tells when it is closed."""

    def __init__(
        self, stream: AsyncIterable[bytes], closed: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._stream = stream
        self._closed: Callable[[], Coroutine[Any, Any, None]] | None = closed

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            with anyio.CancelScope(shield=True):
                await cast(Any, self._stream).aclose()
                await closed()
