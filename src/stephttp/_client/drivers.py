"""Carries out requests to the server (flows) on event loops. The driver for threads, which makes
and reads requests in the same way, is in `blocking_driver`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
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
)
from stephttp._client.transport import (
    as_api_error,
    async_client,
    timeout,
    under_way,
)
from stephttp._wire.http import joined

if TYPE_CHECKING:
    import asyncio

    import httpx2

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


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
        with Sending(call, self._base_url):
            response = await client.send(request_of(client, self._base_url, call), stream=True)
        try:
            with Receiving(call, self._base_url):
                yield Streamed(response.status_code, raw_headers(response), response.aiter_raw())
        finally:
            await response.aclose()

    def preload(self) -> None:
        """Import the HTTP client, and make that of the running loop, where that is possible."""
        # What fails here fails in the first call again, which says so. Trio's loop sends nothing.
        with suppress(Exception):
            self._client()

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
        with Sending(call, self._base_url):
            response = await client.send(request_of(client, self._base_url, call))
        return answer_of(response)


class Receiving:
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


class Sending(Receiving):
    """Keeps secrets out of the log while a call is made, too."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = under_way.set(self._call)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        under_way.reset(self._token)
        Receiving.__exit__(self, kind, error, traceback)


def answer_of(response: httpx2.Response) -> Answer:
    """Return a response that was read as an `Answer`."""
    encoding, raw = response.headers.encoding, raw_headers(response)
    headers = joined((name.decode(encoding), value.decode(encoding)) for name, value in raw)
    return Answer(response.status_code, headers, response.content, tuple(raw))


def raw_headers(response: httpx2.Response) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer, with repeated ones kept apart."""
    return [(name.lower(), value) for name, value in response.headers.raw]


def request_of(
    client: httpx2.AsyncClient | httpx2.Client, base_url: str, call: APICall
) -> httpx2.Request:
    """Return a call as a request of the client.

    `client.build_request` takes three times the instructions: it parses the address twice, and
    looks whether there are cookies, parameters and forms, which no call has.
    """
    import httpx2

    patience = client.timeout if call.timeout is None else timeout(call.timeout)
    url = _url(base_url, call.path)
    headers = {name.lower(): value for name, value in client.headers.raw}
    headers[b"host"] = url.netloc
    for name, text in call.headers.items():
        headers[name.lower().encode("ascii")] = text.encode("ascii")
    body = call.body or b""
    if body or call.method in _WITH_BODY:
        headers[b"content-length"] = b"%d" % len(body)
    request = httpx2.Request(
        call.method,
        url,
        headers=[*headers.items()],
        stream=httpx2.ByteStream(body),
        extensions={"timeout": patience.as_dict()},
    )
    request.read()
    return request


@lru_cache(maxsize=16)  # most calls go to a few paths
def _url(base_url: str, path: str) -> httpx2.URL:
    """Return the address of a call: below `base_url`, if it is only a path."""
    import httpx2

    return httpx2.URL(base_url.rstrip("/") + path if path.startswith("/") else path)
