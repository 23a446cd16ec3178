"""Carries out flows over HTTP. The only module that names the HTTP client."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from stephttp._client.flow import Answer, Call, Invoke, Pause, Until
from stephttp.errors import APIConnectionError, APITimeoutError

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    import httpx2

T = TypeVar("T")
Flow = Generator[Call | Pause | Invoke | Until, Any, T]

KEEP_ALIVE = 5.0
"""Seconds for which an idle connection is kept."""
MOST_IDLE = 100
TIMEOUT = 15.0
"""Seconds for one attempt; connecting alone gets a third of it."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer whose body is still to come, as it is on the wire."""

    status: int
    headers: list[tuple[bytes, bytes]]
    chunks: Any
    """Bytes; an async iterator from `AsyncDriver`, a plain one from `SyncDriver`."""


_under_way: ContextVar[Call | None] = ContextVar("stephttp_call", default=None)


@contextmanager
def _logged_as(call: Call) -> Generator[None]:
    """The HTTP client logs each URL, and in some of ours there are keys and tokens."""
    token = _under_way.set(call)
    try:
        yield
    finally:
        _under_way.reset(token)


def _without_secrets(record: logging.LogRecord) -> bool:
    import httpx2

    call = _under_way.get()
    if call is not None and isinstance(record.args, tuple):
        record.args = tuple(
            call.shown if isinstance(arg, httpx2.URL) else arg for arg in record.args
        )
    return True


logging.getLogger("httpx2").addFilter(_without_secrets)


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
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
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
        try:
            wanted = next(flow)
            while True:
                if isinstance(wanted, Pause):
                    await self._pause(wanted.seconds)
                    wanted = next(flow)
                    continue
                try:
                    answer = await self._do(wanted)
                except Exception as error:
                    wanted = flow.throw(error)
                else:
                    wanted = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    async def _do(self, wanted: Call | Invoke | Until) -> Any:
        if isinstance(wanted, Call):
            return await self._send(wanted)
        if isinstance(wanted, Until):
            return await settled(wanted.future, wanted.timeout)
        value = wanted.function(wanted.argument)
        return await value if inspect.isawaitable(value) else value

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncGenerator[Streamed]:
        """Make one call, and read its answer as it comes.

        Raises:
            APIConnectionError: no answer.
        """
        import httpx2

        client = self._client()
        request = _request(client, call)
        try:
            with _logged_as(call):
                response = await client.send(request, stream=True)
        except httpx2.RequestError as error:
            raise _failed(call, self._base_url, error) from error
        try:
            yield Streamed(response.status_code, _raw(response), response.aiter_raw())
        except httpx2.RequestError as error:
            raise _failed(call, self._base_url, error) from error
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx2.AsyncClient:
        import httpx2  # here, because importing it takes longer than all of stephttp

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = httpx2.AsyncClient(
                base_url=self._base_url,
                transport=self._transport or _lean_transport(),
                headers=self._headers,
                cookies=_no_cookies(),
                timeout=_timeout(TIMEOUT),
            )
        return client

    async def _send(self, call: Call) -> Answer:
        import httpx2

        client = self._client()
        try:
            with _logged_as(call):
                response = await client.send(_request(client, call))
        except httpx2.RequestError as error:
            raise _failed(call, self._base_url, error) from error
        return _answer(response)


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
        self.forget()

    def forget(self) -> None:
        """Make new connections, in a process that was forked: the open ones are its parent's."""
        self._lock = threading.Lock()
        self._made: httpx2.Client | None = None

    def run(self, flow: Flow[T]) -> T:
        """Drive `flow` to its end and return what it returns; raises what it raises."""
        try:
            wanted = next(flow)
            while True:
                if isinstance(wanted, Pause):
                    self._pause(wanted.seconds)
                    wanted = next(flow)
                    continue
                try:
                    answer = self._do(wanted)
                except Exception as error:
                    wanted = flow.throw(error)
                else:
                    wanted = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    def _do(self, wanted: Call | Invoke | Until) -> Any:
        if isinstance(wanted, Call):
            return self._send(wanted)
        if isinstance(wanted, Until):
            return bool(wait_for_futures((wanted.future,), wanted.timeout).done)
        value = wanted.function(wanted.argument)
        return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value

    @contextmanager
    def stream(self, call: Call) -> Generator[Streamed]:
        """Make one call, and read its answer as it comes.

        Raises:
            APIConnectionError: no answer.
        """
        import httpx2

        client = self._client()
        request = _request(client, call)
        try:
            with _logged_as(call):
                response = client.send(request, stream=True)
        except httpx2.RequestError as error:
            raise _failed(call, self._base_url, error) from error
        try:
            yield Streamed(response.status_code, _raw(response), response.iter_raw())
        except httpx2.RequestError as error:
            raise _failed(call, self._base_url, error) from error
        finally:
            response.close()

    def close(self) -> None:
        """Close the connections. They are made again when needed."""
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.close()

    def load(self) -> None:
        """Import the HTTP client and what it needs for a call now."""
        "host".encode("idna")  # the codec by which sockets look up names
        self._client()

    def _client(self) -> httpx2.Client:
        import httpx2

        with self._lock:
            if self._made is None:
                self._made = httpx2.Client(
                    base_url=self._base_url,
                    transport=self._transport,
                    headers=self._headers,
                    cookies=_no_cookies(),
                    timeout=_timeout(TIMEOUT),
                )
            return self._made

    def _send(self, call: Call) -> Answer:
        import httpx2

        client = self._client()
        try:
            with _logged_as(call):
                response = client.send(_request(client, call))
        except httpx2.RequestError as error:
            raise _failed(call, self._base_url, error) from error
        return _answer(response)


async def settled(future: Future[Any], timeout: float | None) -> bool:
    """Wait for a future that another thread may settle, without cancelling it.

    Args:
        timeout: seconds; `None` waits for as long as it takes.

    Returns:
        Whether it has an outcome.
    """
    if not future.done():
        done = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: _tell(done))
        if timeout is None:
            await done
        else:
            await asyncio.wait((done,), timeout=timeout)
    return future.done()


def _tell(waiter: asyncio.Future[None]) -> None:
    """Called in any thread."""
    loop = waiter.get_loop()
    try:
        at_home = asyncio.get_running_loop() is loop
    except RuntimeError:
        at_home = False
    if at_home:
        _set(waiter)
    else:
        with suppress(RuntimeError):  # its loop may be closed
            loop.call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _awaited(value: Awaitable[T]) -> T:
    return await value


def _lean_transport() -> httpx2.AsyncBaseTransport | None:
    """Without the library's pool (see `Connections`), of which 64 callers at a time are too much
    asked; `None` where the environment names a proxy, which is that pool's business."""
    from urllib.request import getproxies  # slow to import

    import httpcore2
    import httpx2

    from stephttp._connections import Connections

    if getproxies():
        return None
    context = httpx2.create_ssl_context()
    transport = httpx2.AsyncHTTPTransport(verify=context)
    make = partial(
        httpcore2.AsyncHTTPConnection,
        ssl_context=context,
        keepalive_expiry=KEEP_ALIVE,
    )
    pool: Any = Connections(make, MOST_IDLE)
    transport._pool = pool
    return transport


def _no_cookies() -> CookieJar:
    """Takes none: the result of a run has those of somebody who called this application."""
    from http.cookiejar import CookieJar, DefaultCookiePolicy  # slow to import

    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def _timeout(seconds: float) -> httpx2.Timeout:
    import httpx2

    return httpx2.Timeout(seconds, connect=min(seconds, TIMEOUT / 3))


def _request(client: httpx2.AsyncClient | httpx2.Client, call: Call) -> httpx2.Request:
    if call.timeout is None:
        return client.build_request(call.method, call.path, content=call.body, headers=call.headers)
    return client.build_request(
        call.method,
        call.path,
        content=call.body,
        headers=call.headers,
        timeout=_timeout(call.timeout),
    )


def _answer(response: httpx2.Response) -> Answer:
    headers = dict(response.headers.items())
    return Answer(response.status_code, headers, response.content, tuple(_raw(response)))


def _raw(response: httpx2.Response) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in response.headers.raw]


def _failed(call: Call, base_url: str, error: Exception) -> APIConnectionError:
    import httpx2

    late = isinstance(error, httpx2.ReadTimeout)
    kind = APITimeoutError if late else APIConnectionError
    return kind(f"{call} ({base_url}): {type(error).__name__}: {error}")
