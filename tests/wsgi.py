"""Calls WSGI applications in worker threads, and lets their threads reach an async server."""

from __future__ import annotations

import asyncio
import io
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from wsgiref.validate import validator

import httpx2

from stephttp.testing import wsgi_calls

THREADS = ThreadPoolExecutor(64, "wsgi")
"""Of the server; more than any test needs at once."""


class WSGITransport(httpx2.AsyncBaseTransport):
    """Hands requests to a WSGI application as a strict server does (`wsgiref.validate`).

    Args:
        app: the application.
        start: begins a thread, where a test chooses which of them works.
    """

    def __init__(self, app: Any, start: Callable[..., Future[Any]] | None = None) -> None:
        self._app = app
        self._start = start

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        if self._start is not None:
            answer: httpx2.Response = await asyncio.wrap_future(
                self._start(self._serve, request, body)
            )
            return answer
        return await asyncio.get_running_loop().run_in_executor(THREADS, self._serve, request, body)

    def _serve(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        try:
            answer = call(self._app, environ_of(request, body))
        except SystemExit:
            raise httpx2.ReadError("the process has ended", request=request) from None
        except Exception:
            return httpx2.Response(500, text=traceback.format_exc(), request=request)
        headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers]
        return httpx2.Response(answer.status, headers=headers, content=answer.body, request=request)


class Answer:
    """What a server got from an application."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""


def environ_of(request: httpx2.Request, body: bytes) -> dict[str, Any]:
    """The environ that a server makes of a request."""
    own = {"REMOTE_PORT": "123", "wsgi.errors": io.StringIO()}
    return wsgi_calls.environ_of(request, body) | own


def call(app: Any, environ: dict[str, Any]) -> Answer:
    """Call an application once, as a server does, with a validator around it."""
    answer = Answer()

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        answer.status, answer.headers = int(status[:3]), headers
        return write

    def write(data: bytes) -> None:
        answer.body += data

    chunks = validator(app)(environ, start_response)
    try:
        for chunk in chunks:
            answer.body += chunk
    finally:
        chunks.close()  # type: ignore[attr-defined]
    return answer


class Blocking(httpx2.BaseTransport):
    """An async transport for threads: on the event loop that it belongs to, while that runs."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport
        self.loop: asyncio.AbstractEventLoop | None = None
        self.wait: Callable[[Future[httpx2.Response]], httpx2.Response] = Future.result
        """How a thread waits for an answer."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        if self.loop is not None and self.loop.is_running():
            return self.wait(asyncio.run_coroutine_threadsafe(self._answer(request), self.loop))
        return asyncio.run(self._answer(request))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        copy = httpx2.Request(
            request.method, request.url, headers=request.headers.raw, content=request.content
        )
        response = await self._transport.handle_async_request(copy)
        await response.aread()
        headers = [pair for pair in response.headers.raw if pair[0] != b"content-encoding"]
        stream = Stream(response.content)
        return httpx2.Response(response.status_code, headers=headers, stream=stream)


class Stream(httpx2.SyncByteStream):
    """A body that is not read yet."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body
