"""Requests that have nothing to wait for pass through as if we were not there."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient

import stephttp
from stephttp import step
from stephttp._client.outbox import Item
from stephttp._client.outbox_batch import Parcel
from stephttp.options import resolve
from stephttp.provider import Provider
from tests.durable import durable

SDK = f"stephttp-py:v{stephttp.__version__}"


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/json")
    async def json() -> dict[str, str]:
        return {"a": "ü"}

    @app.get("/def")
    def plain() -> PlainTextResponse:
        return PlainTextResponse("x", 202, {"set-cookie": "a=1", "x-own": "1"})

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncGenerator[bytes]:
            for n in range(3):
                yield b"%d" % n * 5
                await asyncio.sleep(0)

        return StreamingResponse(chunks(), media_type="text/event-stream")

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(__file__)

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError("bug")

    return app


@asynccontextmanager
async def serving(app: Any) -> AsyncGenerator[int]:
    """A real uvicorn on a port that the kernel chose."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, lifespan="off", log_level="critical", date_header=False, ws="wsproto"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "line",
    [
        "GET /json",
        "GET /def",
        "GET /stream",
        "GET /file",
        "HEAD /json",
        "OPTIONS /json",
        "GET /missing",
        "GET /bug",
        "POST /echo",
        "GET /json?upgrade",
    ],
)
async def test_without_steps_the_bytes_differ_by_two_headers_and_nothing_is_called(
    line: str,
) -> None:
    called: list[httpx2.Request] = []

    def refuse(request: httpx2.Request) -> httpx2.Response:
        called.append(request)
        return httpx2.Response(500)

    settings = resolve("http://app.test", environ={"INNGEST_DEV": "1"})
    provider = Provider(settings, transport=httpx2.MockTransport(refuse))
    body = b'{"a": 1}' if line.startswith("POST") else b""
    upgrade = ", upgrade\r\nupgrade: h2c" if line.endswith("upgrade") else ""
    request = (
        f"{line} HTTP/1.1\r\nhost: app.test\r\nconnection: close{upgrade}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
    async with serving(application()) as bare, serving(provider.asgi(application())) as wrapped:
        expected, got = await exchange(bare, request), await exchange(wrapped, request)
    if line == "GET /bug":  # the server's own answer, made outside every middleware but Starlette's
        assert b" 500 Internal Server Error\r\n" in got
    lines = got.split(b"\r\n")
    ours = [line for line in lines if line.startswith((b"x-run-id: ", b"x-inngest-sdk: "))]
    assert len(ours) == 2
    assert ours[1] == b"x-inngest-sdk: " + SDK.encode()
    assert b"\r\n".join(line for line in lines if line not in ours) == expected
    await provider.aclose()
    assert called == []


async def test_with_steps_the_answer_is_sent_before_anything_is_recorded() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler() -> int:
        return await step.run("a", lambda: 1)

    async with durable(lambda provider: provider.asgi(app)) as world:
        answer = await world.client.get("/")
        assert answer.json() == 1
        assert answer.headers["x-inngest-sdk"] == SDK
        assert world.to_engine.requests == []
        assert await world.provider.wait()
        assert [r.url.path for r in world.to_engine.requests] == ["/v1/http/runs"]


def test_websockets_pass_through() -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    provider = stephttp.setup("http://testserver")
    with TestClient(provider.asgi(app)) as client, client.websocket_connect("/ws") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"


async def test_a_websocket_through_a_real_upgrade() -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    provider = stephttp.setup("http://app.test")
    async with serving(provider.asgi(app)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /ws HTTP/1.1\r\nhost: app.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        writer.write(b"\x81\x82\0\0\0\0hi")  # a text frame, masked with zeros (RFC 6455, 5.2)
        assert await reader.readexactly(4) == b"\x81\x02hi"
        writer.close()
        await writer.wait_closed()


def test_the_end_of_the_lifespan_delivers_what_is_left() -> None:
    app = FastAPI()
    arrived: list[bytes] = []

    @app.get("/")
    async def handler() -> int:
        return await step.run("a", lambda: 1)

    async def take(request: httpx2.Request) -> httpx2.Response:
        arrived.append(request.content)
        return httpx2.Response(200)

    settings = resolve("http://testserver", environ={"INNGEST_DEV": "1"})
    provider = Provider(settings, transport=httpx2.MockTransport(take))
    with TestClient(provider.asgi(app)) as client:
        for _ in range(20):
            assert client.get("/").json() == 1
    assert len(arrived) == 20


def test_an_application_starts_although_the_http_client_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With an error, a server would take the lifespan for unknown, and skip the application's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    started: list[bool] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        started.append(True)
        yield

    provider = Provider(resolve("http://testserver", environ={"INNGEST_DEV": "1"}))
    with TestClient(provider.asgi(FastAPI(lifespan=lifespan))):
        assert started == [True]


def test_an_application_may_name_a_proxy_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None:
            pass

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def handler() -> int:
        return await step.run("a", lambda: 1)

    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        settings = resolve("http://testserver", environ={"INNGEST_DEV": "http://far.example"})
        with TestClient(Provider(settings).asgi(app)) as client:
            assert client.get("/").json() == 1
        proxy.shutdown()
        thread.join()
    assert [path.split("?")[0] for path in asked] == ["http://far.example/v1/http/runs"]


async def test_the_end_of_the_lifespan_says_what_could_not_be_delivered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    never = asyncio.Event()

    async def stuck(request: httpx2.Request) -> httpx2.Response:
        await never.wait()
        return httpx2.Response(200)

    settings = resolve("http://testserver", environ={"INNGEST_DEV": "1"})
    provider = Provider(settings, transport=httpx2.MockTransport(stuck))
    provider.runtime.outbox.put(Item(Parcel("/", b"{}")))
    assert not await provider.aclose(0)
    assert provider.runtime.outbox.depth == 1
    never.set()
    assert await provider.aclose()


async def test_wrapping_twice_is_an_error_that_says_so() -> None:
    app = FastAPI()
    async with durable(lambda provider: provider.asgi(provider.asgi(app))) as world:
        with pytest.raises(stephttp.ConfigurationError, match="twice"):
            await world.client.get("/")


async def test_a_caller_that_leaves_while_sending_leaves_no_run() -> None:
    """An incomplete body cannot be sent again."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await step.sleep("nap", timedelta(seconds=1))

    messages = iter(
        [
            {"type": "http.request", "body": b"half", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with durable(lambda provider: provider.asgi(app)) as world:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        await world.to_app.app(scope, receive, send)
        assert sent == []
        assert world.to_engine.requests == []


EMPTY = {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize(
    ("method", "version", "headers", "messages"),
    [
        ("GET", "1.1", [], []),
        ("DELETE", "1.1", [], []),
        ("POST", "1.1", [(b"content-length", b"0")], []),
        ("GET", "2", [], []),
        ("DELETE", "2", [], [EMPTY]),  # whose end the server says only here
        ("POST", "1.1", [(b"transfer-encoding", b"chunked")], [EMPTY]),
    ],
)
@pytest.mark.parametrize("asks", [False, True])
async def test_a_caller_that_leaves_does_not_end_a_request_without_a_body(
    method: str, version: str, headers: Any, messages: list[Any], asks: bool
) -> None:
    """The request was complete: it waits and ships, as one whose body was read."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if asks:
            await receive()
        await step.sleep("nap", timedelta(seconds=1))

    left = iter(messages)

    async def receive() -> Any:
        return next(left, {"type": "http.disconnect"})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with durable(lambda provider: provider.asgi(app)) as world:
        scope = {
            "type": "http", "http_version": version, "method": method, "path": "/",
            "headers": headers, "query_string": b"",
        }  # fmt: skip
        await world.to_app.app(scope, receive, send)
        assert sent[0]["status"] == 303
        assert len(world.to_engine.requests) == 1


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_body_that_the_application_reads_in_a_task_of_its_own(leaves: bool) -> None:
    """Which reads on while we read the rest: neither may wait for what the other got."""
    last = {"type": "http.request", "body": b"end", "more_body": False}
    reading: list[asyncio.Task[None]] = []
    messages: asyncio.Queue[Any] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b"half ", "more_body": True})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def read() -> None:
            while (await receive()).get("more_body"):
                pass

        reading.append(asyncio.create_task(read()))
        try:
            await step.sleep("nap", timedelta(seconds=1))
        finally:
            rest = {"type": "http.disconnect"} if leaves else last
            asyncio.get_running_loop().call_later(0.01, messages.put_nowait, rest)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with durable(lambda provider: provider.asgi(app)) as world:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        await asyncio.wait_for(world.to_app.app(scope, messages.get, send), 60)
        await reading[0]
        if leaves:
            assert sent == []
        else:
            assert sent[0]["status"] == 303
            (checkpoint,) = world.to_engine.requests
            assert json.loads(checkpoint.content)["event"]["data"]["body"] == "aGFsZiBlbmQ="


Middleware = Callable[[Any, Any, Any], Awaitable[None]]


async def test_extensions_that_bypass_us_are_hidden_from_a_resumed_handler() -> None:
    seen: list[set[str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(set(scope["extensions"]))
        await step.sleep("nap", timedelta(seconds=1))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    def with_extensions(inner: Middleware) -> Middleware:
        async def outer(scope: Any, receive: Any, send: Any) -> None:
            extensions: dict[str, Any] = {"http.response.pathsend": {}, "tls": {}}
            await inner({**scope, "extensions": extensions}, receive, send)

        return outer

    async with durable(lambda provider: with_extensions(provider.asgi(app))) as world:
        assert (await world.follow(await world.client.get("/"))).text == "ok"
        assert seen == [{"http.response.pathsend", "tls"}, {"tls"}]
