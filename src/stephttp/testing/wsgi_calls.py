"""Requests to a WSGI application in the process of the test, and the ways of its threads to
the engine.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import httpx2

from stephttp._client.flow import T
from stephttp.errors import Suspended


class InThread(Protocol):
    """Calls a function in a thread where an application of WSGI may block."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class WSGICaller(httpx2.AsyncBaseTransport):
    """Hands requests to a WSGI application.

    Args:
        app: the application.
        in_thread: calls it.
        raises: whether what it raises is raised here; otherwise the answer is a 500, as from a
            server.
    """

    def __init__(self, app: Any, in_thread: InThread, *, raises: bool = False) -> None:
        self._app = app
        self._in_thread = in_thread
        self._raises = raises

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Call the application, and return its response once that is complete."""
        body = await request.aread()
        return await self._in_thread(lambda: self._serve(request, body))

    def _serve(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        heads: list[tuple[int, list[tuple[str, str]]]] = []
        written: list[bytes] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], Any]:
            heads.append((int(status.split(" ", 1)[0]), headers))
            return written.append

        try:
            chunks = self._app(environ_of(request, body), start_response)
            try:
                written.extend(chunks)
            finally:
                close = getattr(chunks, "close", None)
                if close is not None:
                    with suppress(Suspended):  # the response is complete
                        close()
        except Exception:
            if self._raises:
                raise
            return httpx2.Response(500, request=request)
        if not heads:
            raise AssertionError("the application returned without a response")
        status, headers = heads[-1]
        content = b"" if request.method == "HEAD" else b"".join(written)
        stream = _Whole(content)
        return httpx2.Response(status, headers=headers, stream=stream, request=request)


class FromThreads(httpx2.BaseTransport):
    """An async transport for threads.

    Args:
        transport: the async one.
        loop: on which it works.
        wait: waits for a future, in a thread.
    """

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport,
        loop: asyncio.AbstractEventLoop,
        wait: Callable[[Future[httpx2.Response]], httpx2.Response],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._wait = wait

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Carry out a request, and read its response."""
        request.read()
        return self._wait(asyncio.run_coroutine_threadsafe(self._answer(request), self._loop))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        copy = httpx2.Request(
            request.method, request.url, headers=request.headers.raw, content=request.content
        )
        response = await self._transport.handle_async_request(copy)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        stream = _Whole(b"".join([chunk async for chunk in response.stream]))
        await response.aclose()
        return httpx2.Response(response.status_code, headers=response.headers.raw, stream=stream)


class _Whole(httpx2.AsyncByteStream, httpx2.SyncByteStream):
    """A body that is here already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


def environ_of(request: httpx2.Request, body: bytes) -> dict[str, Any]:
    """Return the environ that a server makes of a request."""
    url = request.url
    path = url.raw_path.partition(b"?")[0]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "RAW_URI": url.raw_path.decode("latin-1"),
        "QUERY_STRING": url.query.decode("latin-1"),
        "SERVER_NAME": url.host,
        "SERVER_PORT": str(url.port or (443 if url.scheme == "https" else 80)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in request.headers.raw:
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        value = raw_value.decode("latin-1")
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            name = f"HTTP_{name}"
        glue = "; " if name == "HTTP_COOKIE" else ","
        environ[name] = f"{environ[name]}{glue}{value}" if name in environ else value
    return environ
