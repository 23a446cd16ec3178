"""Hosts that stop a process between requests: what is finished is delivered before that, and an
application without an engine ends at once."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from fastapi import BackgroundTasks, FastAPI, Response
from fastapi.responses import StreamingResponse
from mangum import Mangum

from stephttp import Checkpointing, Middleware, step
from stephttp._adapters.wsgi.messages import close
from stephttp.options import resolve
from stephttp.sync import step as blocking
from tests.realserver import APP, RealServer
from tests.wsgi import THREADS, environ_of

PATHS = ["/plain", "/streams", "/raises", "/later", "/fails"]


def fastapi() -> FastAPI:
    app = FastAPI()

    @app.get("/plain")
    async def plain() -> str:
        return await step.run("work", lambda: "plain")

    @app.get("/streams")
    async def streams() -> StreamingResponse:
        await step.run("work", lambda: "streams")
        return StreamingResponse(iter(["a", "b"]))

    @app.get("/raises")
    async def raises() -> None:
        await step.run("work", lambda: "raises")
        raise ZeroDivisionError

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(lambda: None)
        return await step.run("work", lambda: "later")

    @app.get("/fails")
    async def fails() -> Response:
        await step.run("work", lambda: "fails")
        return Response(status_code=503)

    return app


def of_flask() -> flask.Flask:
    app = flask.Flask("serverless")

    @app.get("/plain")
    def plain() -> str:
        return blocking.run("work", lambda: "plain")

    @app.get("/streams")
    def streams() -> Iterator[str]:
        def chunks() -> Iterator[str]:
            yield "a"
            yield blocking.run("work", lambda: "b")

        return chunks()

    @app.get("/raises")
    def raises() -> str:
        blocking.run("work", lambda: "raises")
        raise ZeroDivisionError

    @app.get("/later")
    def later() -> flask.Response:
        response = flask.Response(blocking.run("work", lambda: "later"))
        response.call_on_close(lambda: None)
        return response

    @app.get("/fails")
    def fails() -> tuple[str, int]:
        return blocking.run("work", lambda: "fails"), 503

    return app


def event(path: str) -> Any:
    """What AWS calls a function with, for a request that came by its HTTP API."""
    http = {"method": "GET", "path": path, "sourceIp": "127.0.0.1"}
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"host": "app.test"}, "requestContext": {"http": http},
        "isBase64Encoded": False,
    }  # fmt: skip


def lambda_handler(server: RealServer, **options: Any) -> Any:
    server.app = server.provider(background=False, **options).asgi(fastapi())
    return Mangum(server.app, lifespan="off")


def statuses(server: RealServer) -> list[str]:
    return [run.status for run in server.runs.values()]


@pytest.fixture(autouse=True)
def _own_loop() -> Iterator[None]:
    """The loop of the thread, which Mangum lets run for each request."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    asyncio.set_event_loop(None)


@pytest.mark.parametrize(
    "options",
    [{}, {"checkpointing": Checkpointing.safe}, {"middleware": [Middleware]}],
    ids=["plain", "safe", "middleware"],
)
def test_a_run_is_delivered_when_the_function_returns(options: Any) -> None:
    server = RealServer()
    handler = lambda_handler(server, **options)
    for number, path in enumerate(PATHS, 1):
        handler(event(path), None)
        assert statuses(server) == ["Completed"] * number, path


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/raises"])
async def test_a_response_of_asgi_ends_after_its_run_is_delivered(path: str) -> None:
    server = RealServer()
    app = server.provider(background=False).asgi(fastapi())
    seen: list[tuple[bool, list[str]]] = []

    messages: asyncio.Queue[Any] = asyncio.Queue()
    messages.put_nowait({"type": "http.request"})  # and then the caller stays

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            seen.append((message.get("more_body", False), statuses(server)))

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    await app(scope, messages.get, send)
    assert seen[-1] == (False, ["Completed"])
    assert all(more and not runs for more, runs in seen[:-1])


START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
NO_CONTENT = {**START, "status": 204}
BODY = {"type": "http.response.body", "body": b"a"}
MORE = {**BODY, "more_body": True}
EMPTY = {"type": "http.response.body"}
FILE = {"type": "http.response.pathsend", "path": __file__}
TRAILERS: dict[str, Any] = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
NO_HEADERS: dict[str, Any] = {"headers": None}
WITH_TRAILERS = {**START, "trailers": True}
ENDINGS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "HEAD": ("HEAD", [START, EMPTY]),
    "HEAD with a body": ("HEAD", [START, BODY]),
    "204": ("GET", [NO_CONTENT, EMPTY]),
    "a file": ("GET", [START, FILE]),
    "a file after headers alone": ("HEAD", [START, FILE]),
    "trailers": ("GET", [WITH_TRAILERS, MORE, BODY, TRAILERS]),
    "trailers in two parts": (
        "GET",
        [WITH_TRAILERS, BODY, {**TRAILERS, "more_trailers": True}, TRAILERS],
    ),
    "a file with trailers": ("GET", [WITH_TRAILERS, FILE, TRAILERS]),
    "an early hint": (
        "GET",
        [{"type": "http.response.early_hint", "links": []}, START, MORE, EMPTY],
    ),
}


@pytest.mark.parametrize(("method", "messages"), ENDINGS.values(), ids=list(ENDINGS))
@pytest.mark.parametrize("first", [True, False], ids=["step first", "step inside"])
async def test_every_kind_of_response_ends_after_its_run_is_delivered(
    method: str, messages: list[dict[str, Any]], first: bool
) -> None:
    server, asked = RealServer(), asyncio.Queue[Any]()
    asked.put_nowait({"type": "http.request"})
    seen: list[tuple[Any, list[str]]] = []

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        if first:
            await step.run("work", lambda: 1)
        for message in messages[:-1]:
            await send(message.copy())
        if not first:
            await step.run("work", lambda: 1)
        await send(messages[-1].copy())

    async def send(message: Any) -> None:
        seen.append((message, statuses(server)))

    scope = {
        "type": "http", "method": method, "path": "/", "raw_path": b"/", "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http",
        "extensions": {"http.response.pathsend": {}, "http.response.trailers": {}},
    }  # fmt: skip
    await server.provider(background=False).asgi(handler)(scope, asked.get, send)
    assert [{**message, **NO_HEADERS} for message, _ in seen] == [
        {**message, **NO_HEADERS} for message in messages
    ]
    assert seen[-1][1] == ["Completed"]
    assert not any(runs for _, runs in seen[:-1])


@pytest.mark.parametrize("path", PATHS)
async def test_a_response_of_wsgi_ends_after_its_run_is_delivered(path: str) -> None:
    server = RealServer(wsgi=True)
    app = server.provider(background=False).wsgi(of_flask())
    client = server.client()

    def start_response(*_: Any) -> Any:
        return io.BytesIO().write

    def call() -> tuple[bytes, list[str]]:
        environ = environ_of(client.build_request("GET", path), b"")
        chunks = app(environ, start_response)
        body = b"".join(chunks)
        seen = statuses(server)
        close(chunks)
        return body, seen

    body, seen = await asyncio.get_running_loop().run_in_executor(THREADS, call)
    assert seen == ["Completed"]
    assert {"/streams": b"ab", "/later": b"later"}.get(path, body) == body


def test_what_a_server_that_is_away_did_not_get_is_delivered_with_the_next_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = RealServer()
    handler = lambda_handler(server)
    server.down = lambda request: True
    answer = handler(event("/plain"), None)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, "plain")
    assert "is not delivered yet, because the server gives no answer" in caplog.text
    server.down = lambda request: False
    handler(event("/plain"), None)
    asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))
    assert statuses(server) == ["Completed", "Completed"]


def test_on_lambda_it_is_the_default() -> None:
    environ = {"INNGEST_DEV": "1", "AWS_LAMBDA_FUNCTION_NAME": "shop"}
    assert not resolve(APP, environ=environ).background
    assert resolve(APP, environ=environ, background=True).background
    assert resolve(APP, environ={"INNGEST_DEV": "1"}).background


async def test_an_application_without_a_server_ends_at_once() -> None:
    server = RealServer()
    server.down = lambda request: True
    provider = server.provider()
    server.app = provider.asgi(fastapi())
    for _ in range(3):
        assert (await server.client().get("/plain")).json() == "plain"
        assert not await provider.aclose(1000)
    assert not await asyncio.to_thread(provider.close, 1000)
    server.down = lambda request: False
    assert await provider.aclose(1000)
    assert statuses(server) == ["Completed"] * 3


async def test_a_server_that_has_answered_is_waited_for() -> None:
    server = RealServer()
    provider = server.provider()
    server.app = provider.asgi(fastapi())
    await server.client().get("/plain")
    assert await provider.aclose(1000)
    refusals = iter([True] * 7)
    server.down = lambda request: next(refusals, False)
    await server.client().get("/plain")
    assert await provider.aclose(1000)
    assert statuses(server) == ["Completed"] * 2


def test_wait_sync_delivers_while_a_loop_stands_still() -> None:
    server = RealServer()
    provider = server.provider()
    held: list[asyncio.Event] = []
    server.app = provider.asgi(fastapi())
    take = server.handle_async_request

    async def slow(request: Any) -> Any:
        if not held:
            held.append(asyncio.Event())
            await held[0].wait()
        return await take(request)

    async def request() -> None:
        await server.client().get("/plain")

    server.handle_async_request = slow  # type: ignore[method-assign]
    loop = asyncio.get_event_loop()
    for number in (1, 2):
        loop.run_until_complete(request())
        assert provider.wait_sync(60)
        assert statuses(server) == ["Completed"] * number
    held[0].set()  # the loop runs again, and its worker finds that nothing is left
    loop.run_until_complete(request())
    assert provider.wait_sync(60)
    assert statuses(server) == ["Completed"] * 3
