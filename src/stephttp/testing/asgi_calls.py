"""Requests to an ASGI application in the process of the test, and its lifespan.

A response is there with its head, as over the network: a caller who follows events gets them while
the application is at work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx2

from stephttp.errors import ConfigurationError

Message = MutableMapping[str, Any]


class ASGICaller(httpx2.AsyncBaseTransport):
    """Hands requests to an ASGI application.

    Args:
        app: the application.
        raises: whether what it raises is raised here; otherwise the answer is a 500, as from a
            server.
        state: what the lifespan of the application has left for its requests.
    """

    def __init__(self, app: Any, *, raises: bool = False, state: dict[str, Any]) -> None:
        self._app = app
        self._raises = raises
        self._state = state
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> bool:
        """Whether the application is at work on a request."""
        return bool(self._tasks)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Call the application, and return its response as soon as that has a head."""
        body = await request.aread()
        call = _AppCall(self._app, _scope_of(request, self._state), body, raises=self._raises)
        task = asyncio.create_task(call.run(), name="stephttp-testing-request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            status, headers = await asyncio.shield(call.head)
        except asyncio.CancelledError:
            await _end(task)
            raise
        except BaseException:
            await task
            raise
        has_body = request.method != "HEAD"
        stream = _ResponseBody(call, task, has_body=has_body)
        return httpx2.Response(status, headers=headers, stream=stream, request=request)

    async def aclose(self) -> None:
        """End the requests that are still under way."""
        for task in list(self._tasks):
            await _end(task)


class _AppCall:
    """One call of the application: a request and its response."""

    def __init__(self, app: Any, scope: Message, body: bytes, *, raises: bool) -> None:
        self._app = app
        self._scope = scope
        self._body: bytes | None = body
        self._raises = raises
        self.head: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = (
            asyncio.get_running_loop().create_future()
        )
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.over = asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
            if not self.head.done():
                raise AssertionError("the application returned without a response")
        except Exception as error:
            self._failed(error)
        finally:
            self.over.set()
            self.chunks.put_nowait(None)
            if not self.head.done():
                self.head.cancel()

    def _failed(self, error: Exception) -> None:
        if self._raises and not self.head.done():
            self.head.set_exception(error)
        elif self._raises:
            self.error = error
        elif not self.head.done():
            self.head.set_result((500, []))

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self.over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.head.set_result((message["status"], list(message.get("headers", []))))
        elif message["type"] == "http.response.body":
            self.chunks.put_nowait(message.get("body", b""))
            if not message.get("more_body", False):
                self.over.set()
                self.chunks.put_nowait(None)


class _ResponseBody(httpx2.AsyncByteStream):
    """The body of a response, as it comes."""

    def __init__(self, call: _AppCall, task: asyncio.Task[None], *, has_body: bool) -> None:
        self._call = call
        self._task = task
        self._has_body = has_body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._call.chunks.get()) is not None:
            if chunk and self._has_body:
                yield chunk
        await self._task  # background tasks of the response belong to the request
        if self._call.error is not None:
            raise self._call.error

    async def aclose(self) -> None:
        """Hang up, where the application is still at work."""
        self._call.over.set()
        if not self._task.done() and self._call.chunks.empty():
            await _end(self._task)


class Lifespan:
    """The start and the end of an ASGI application.

    Attributes:
        state: what its start has left for requests.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None

    async def start(self) -> None:
        """Start the application.

        Raises:
            Exception: what its start raises.
            ConfigurationError: it says that it could not start.
        """
        self._task = asyncio.create_task(self._run(), name="stephttp-testing-lifespan")
        await self._ask("startup")

    async def stop(self) -> None:
        """End the application.

        Raises:
            Exception: what its end raises.
            ConfigurationError: it says that it could not end.
        """
        if self._task is None or self._task.done():
            return
        await self._ask("shutdown")
        await self._task

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        try:
            await self._app(scope, self._to_app.get, self._from_app.put)
        except BaseException as error:
            self._error = error
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._from_app.put_nowait(None)

    async def _ask(self, what: str) -> None:
        await self._to_app.put({"type": f"lifespan.{what}"})
        answer = await self._from_app.get()
        if answer is None:
            # An application that knows no lifespan raises, or returns, before it has answered.
            if self._error is not None and self._answered:
                raise self._error
            return
        self._answered = True
        if answer["type"] == f"lifespan.{what}.failed":
            assert self._task is not None
            await self._task
            if self._error is not None:
                raise self._error
            raise ConfigurationError(f"the {what} of the application failed: {answer['message']}")

    _answered = False


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _scope_of(request: httpx2.Request, state: dict[str, Any]) -> Message:
    url = request.url
    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.split(b"?")[0],
        "query_string": url.query,
        "server": (url.host, url.port or (443 if url.scheme == "https" else 80)),
        "client": ("127.0.0.1", 50_000),
        "root_path": "",
        "state": state.copy(),
    }
    return scope
