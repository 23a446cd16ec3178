"""Carries out requests to the server (flows), on event loops and in threads; the same text
for async and blocking code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from concurrent.futures import wait as wait_for_futures
from contextlib import asynccontextmanager, contextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from msgspec import Struct

from stephttp._client.event_loop import settled, sleep
from stephttp._client.flow import (
    Answer,
    APICall,
    Flow,
    Invoke,
    Pause,
    T,
    Until,
    carry_out,
    carry_out_blocking,
)
from stephttp._client.transport import (
    as_api_error,
    async_client,
    request_of,
    sync_client,
    under_way,
)
from stephttp._wire.http import joined

if TYPE_CHECKING:
    import asyncio

    import httpx2


class Streamed(Struct, frozen=True):
    """An answer whose body is still to come, as it is on the wire."""

    status: int
    headers: list[tuple[bytes, bytes]]
    chunks: Any
    """Bytes; an async iterator from `AsyncDriver`, a plain one from `SyncDriver`."""


class AsyncDriver:
    """Runs flows on the running event loop, with one connection pool per loop.

    Args:
        base_url: the engine's or server's origin.
        transport: what carries requests instead of the network, for tests.
        pause: how to wait for so many seconds; an argument so that tests need not.
        headers: of every request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[Any]] = sleep,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base_url = base_url
        self._transport = transport
        self._pause = pause
        self._headers = dict(headers or {})
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient]
        self._clients = WeakKeyDictionary()

    async def run(self, flow: Flow[T]) -> T:
        """Drive `flow` to its end and return what it returns; raises what it raises."""
        return await carry_out(flow, self._do)

    async def _do(self, wanted: APICall | Pause | Invoke | Until) -> Any:
        if isinstance(wanted, APICall):
            return await self._send(wanted)
        if isinstance(wanted, Pause):
            await self._pause(wanted.seconds)
            return None
        if isinstance(wanted, Until):
            return await settled(wanted.future, wanted.timeout)
        value = wanted.function(wanted.argument)
        return await value if isawaitable(value) else value

    @asynccontextmanager
    async def stream(self, call: APICall) -> AsyncGenerator[Streamed]:
        """Make one call, and read its answer as it comes.

        Raises:
            APIConnectionError: no answer.
        """
        client = self._client()
        with _Sending(call, self._base_url):
            response = await client.send(request_of(client, self._base_url, call), stream=True)
        try:
            with _Receiving(call, self._base_url):
                yield Streamed(response.status_code, _raw_headers(response), response.aiter_raw())
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        import asyncio

        try:
            client = self._clients.pop(asyncio.get_running_loop(), None)
        except RuntimeError:  # it is trio's, which sends nothing
            return
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx2.AsyncClient:
        import asyncio

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = async_client(self._base_url, self._transport, self._headers)
            self._clients[loop] = client
        return client

    async def _send(self, call: APICall) -> Answer:
        client = self._client()
        with _Sending(call, self._base_url):
            response = await client.send(request_of(client, self._base_url, call))
        return _answer_of(response)


class SyncDriver:
    """Runs flows on the calling thread, with one connection pool for all threads.

    Args:
        base_url: the engine's or server's origin.
        transport: what carries requests instead of the network, for tests.
        pause: how to wait for so many seconds.
        headers: of every request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], Any] = time.sleep,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base_url = base_url
        self._transport = transport
        self._pause = pause
        self._headers = dict(headers or {})
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Make new connections in a forked process: the open ones are its parent's."""
        self._lock = threading.Lock()
        self._made: httpx2.Client | None = None
        self._maker = 0
        """The thread that makes it now."""

    def run(self, flow: Flow[T]) -> T:
        """Drive `flow` to its end and return what it returns; raises what it raises."""
        return carry_out_blocking(flow, self._do)

    def _do(self, wanted: APICall | Pause | Invoke | Until) -> Any:
        if isinstance(wanted, APICall):
            return self._send(wanted)
        if isinstance(wanted, Pause):
            self._pause(wanted.seconds)
            return None
        if isinstance(wanted, Until):
            return bool(wait_for_futures((wanted.future,), wanted.timeout).done)
        value = wanted.function(wanted.argument)
        if not isawaitable(value):
            return value
        import asyncio

        return asyncio.run(_awaited(value))

    @contextmanager
    def stream(self, call: APICall) -> Generator[Streamed]:
        """Make one call, and read its answer as it comes.

        Raises:
            APIConnectionError: no answer.
        """
        client = self._client()
        with _Sending(call, self._base_url):
            response = client.send(request_of(client, self._base_url, call), stream=True)
        try:
            with _Receiving(call, self._base_url):
                yield Streamed(response.status_code, _raw_headers(response), response.iter_raw())
        finally:
            response.close()

    def close(self) -> None:
        """Close the connections. They are made again when needed."""
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.close()

    def preload_before_fork(self) -> None:
        """Import the HTTP client and what it needs for a call now."""
        if self._maker == threading.get_ident():
            return  # it is these imports that fork: trio looks for a library, by a command
        "host".encode("idna")  # the codec by which sockets look up names
        self._client()

    def _client(self) -> httpx2.Client:
        with self._lock:
            if self._made is None:
                self._maker = threading.get_ident()
                try:
                    self._made = sync_client(self._base_url, self._transport, self._headers)
                finally:
                    self._maker = 0
            return self._made

    def _send(self, call: APICall) -> Answer:
        client = self._client()
        with _Sending(call, self._base_url):
            response = client.send(request_of(client, self._base_url, call))
        return _answer_of(response)


async def _awaited(value: Awaitable[T]) -> T:
    return await value


class _Receiving:
    """Turns failures into an `APIError` while the answer to `call` is read: `APIConnectionError`
    if it ends too early. (A generator would take three times the instructions.)"""

    __slots__ = ("_base_url", "_call")

    def __init__(self, call: APICall, base_url: str) -> None:
        self._call = call
        self._base_url = base_url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception):
            known = as_api_error(error, self._call, self._base_url)
            if known is not error:
                raise known from error


class _Sending(_Receiving):
    """Keeps secrets out of the log while a call is made, too."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = under_way.set(self._call)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        under_way.reset(self._token)
        _Receiving.__exit__(self, kind, error, traceback)


def _answer_of(response: httpx2.Response) -> Answer:
    """Return a response that was read as an `Answer`."""
    encoding, raw = response.headers.encoding, _raw_headers(response)
    headers = joined((name.decode(encoding), value.decode(encoding)) for name, value in raw)
    return Answer(response.status_code, headers, response.content, tuple(raw))


def _raw_headers(response: httpx2.Response) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer, with repeated ones kept apart."""
    return [(name.lower(), value) for name, value in response.headers.raw]
