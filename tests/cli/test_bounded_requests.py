"""What the engine's server does about requests that are too large, too slow, or never end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from stephttp.cli.bounded_requests import MAX_HEAD, BoundedProtocol
from stephttp.cli.serving import Server
from stephttp.engine import Settings, create_app
from tests import virtual_loop


class Connection:
    """A connection to an application that answers with the length of the body that it read."""

    def __init__(self, app: Any = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.written = bytearray()
        self.closed_at: float | None = None
        self.paused = False
        self.left = 0
        config = uvicorn.Config(
            app or self._app, interface="asgi3", lifespan="off", log_config=None
        )
        self.protocol = BoundedProtocol(config, ServerState(), {})
        self.protocol.connection_made(self)  # type: ignore[arg-type]

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, scope["path"] != "/unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            size, more = size + len(message["body"]), message["more_body"]
        text = str(size).encode()
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        if self.closed_at is None:
            self.closed_at = self.loop.time()
            self.loop.call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed_at is not None

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    async def send(self, data: bytes, wait: float = 0.0) -> None:
        """Let data arrive, if the connection is still there, and some time pass."""
        if self.closed_at is None:
            self.protocol.data_received(data)
        await asyncio.sleep(wait)

    @property
    def statuses(self) -> list[int]:
        lines = bytes(self.written).split(b"HTTP/1.1 ")[1:]
        return [int(line[:3]) for line in lines]


Story = Callable[[Connection], Coroutine[Any, Any, None]]


def told(story: Story) -> tuple[list[int], float | None]:
    """The statuses that were answered, and when the connection was closed."""

    async def main() -> tuple[list[int], float | None]:
        connection = Connection()
        await story(connection)
        await asyncio.sleep(3600)
        return connection.statuses, connection.closed_at

    return virtual_loop.run(main())


HEAD = b"POST / HTTP/1.1\r\nhost: a\r\n"
LAST = b"connection: close\r\n\r\n"


async def nothing(connection: Connection) -> None:
    """Says nothing at all."""


async def drips_a_head(connection: Connection) -> None:
    for number in range(1000):
        await connection.send(b"GET /abcdefghijklmnopqrstuvwxyz"[number : number + 1] or b"x", 1)


async def drips_headers(connection: Connection) -> None:
    await connection.send(b"GET / HTTP/1.1\r\n")
    for number in range(1000):
        await connection.send(b"x-%d: 1\r\n" % number, 1)


async def drips_empty_lines(connection: Connection) -> None:
    for _ in range(1000):
        await connection.send(b"\r\n", 1)


async def drips_a_second_head(connection: Connection) -> None:
    await connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 4)
    for number in range(1000):
        await connection.send(b"GET /abcdefghijklmnopqrstuvwxyz"[number : number + 1] or b"x", 3)


async def drips_empty_lines_after_a_request(connection: Connection) -> None:
    await connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 4)
    for _ in range(1000):
        await connection.send(b"\r\n", 3)


async def sends_a_long_header(connection: Connection) -> None:
    await connection.send(HEAD + b"x: ")
    for _ in range(200):
        await connection.send(b"x" * 1024)


async def sends_many_headers_at_once(connection: Connection) -> None:
    headers = b"".join(b"x-%d: 1\r\n" % number for number in range(MAX_HEAD // 8))
    await connection.send(HEAD + headers + LAST)


async def sends_a_long_line(connection: Connection) -> None:
    await connection.send(b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\nhost: a\r\n" + LAST)


async def sends_garbage(connection: Connection) -> None:
    await connection.send(b"\x16\x03\x01\x02\x00")


async def sends_a_head_of_the_largest_size(connection: Connection) -> None:
    filling = b"x: " + b"y" * (MAX_HEAD - 200) + b"\r\n"
    await connection.send(HEAD + filling)
    await connection.send(LAST)


async def sends_no_body(connection: Connection) -> None:
    await connection.send(HEAD + b"content-length: 5\r\n\r\n")


async def drips_a_body(connection: Connection) -> None:
    await connection.send(HEAD + b"content-length: 100000\r\n\r\n")
    for _ in range(1000):
        await connection.send(b"x", 1)


async def drips_chunks(connection: Connection) -> None:
    await connection.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for _ in range(1000):
        await connection.send(b"1\r\nx\r\n", 1)


async def sends_a_body_at_a_pace_that_holds(connection: Connection) -> None:
    await connection.send(HEAD + b"connection: close\r\ncontent-length: 3276800\r\n\r\n")
    for _ in range(200):
        await connection.send(b"x" * 16384, 1)


async def is_answered_early_and_drips_on(connection: Connection) -> None:
    await connection.send(b"POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
    for _ in range(1000):
        await connection.send(b"x", 1)


async def is_answered_early_and_ends_soon(connection: Connection) -> None:
    await connection.send(b"POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", 4)
    await connection.send(b"xyz", 4)
    await connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 2)


async def streams_what_it_publishes(connection: Connection) -> None:
    path = b"POST /v1/realtime/publish/tee HTTP/1.1\r\nhost: a\r\n"
    await connection.send(path + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(20):
        await connection.send(b"1\r\nx\r\n", 10)
    await connection.send(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("story", "statuses", "closed_at"),
    [
        (nothing, [], 10),
        (drips_a_head, [408], 10),
        (drips_headers, [408], 10),
        (drips_empty_lines, [408], 10),
        (drips_a_second_head, [200, 408], 14),
        (drips_empty_lines_after_a_request, [200, 408], 14),
        (sends_a_long_header, [431], 0),
        (sends_many_headers_at_once, [431], 0),
        (sends_a_long_line, [431], 0),
        (sends_garbage, [400], 0),
        (sends_a_head_of_the_largest_size, [200], 0),
        (sends_no_body, [408], 30),
        (drips_a_body, [408], 30),
        (drips_chunks, [408], 30),
        (sends_a_body_at_a_pace_that_holds, [200], 199),
        (is_answered_early_and_drips_on, [200], 5),
        (is_answered_early_and_ends_soon, [200, 200], 13),
        (streams_what_it_publishes, [200], 200),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_requests(story: Story, statuses: list[int], closed_at: float | None) -> None:
    answered, closed = told(story)
    assert answered == statuses
    if closed_at is None:
        assert closed is not None
    else:
        assert closed == pytest.approx(closed_at, abs=0.2)


def test_a_handler_learns_that_a_slow_client_is_gone() -> None:
    async def main() -> int:
        connection = Connection()
        await drips_a_body(connection)
        return connection.left

    assert virtual_loop.run(main()) == 1


def test_a_body_that_we_do_not_read_is_not_late() -> None:
    async def main() -> list[int]:
        read = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await read.wait()
            await connection._app(scope, receive, send)

        connection = Connection(app)
        size = 200_000
        await connection.send(HEAD + b"content-length: %d\r\n\r\n" % size)
        await connection.send(b"x" * (size - 1), 3000)
        assert connection.paused
        read.set()
        await connection.send(b"", 1)
        paused: bool = connection.paused
        assert not paused
        await connection.send(b"x", 1)
        return connection.statuses

    assert virtual_loop.run(main()) == [200]


async def test_a_real_server_bounds_heads_and_looks_for_dead_peers() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(Settings(db_path=":memory:"))
    server = Server(app, listener, grace=1, leaving=app.state.engine.drain)
    serving = asyncio.create_task(server.run_until_exit())
    await server.ready
    try:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 ")
        (accepted,) = server.server_state.connections
        made: Any = accepted.transport.get_extra_info("socket")
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        writer.close()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET /health HTTP/1.1\r\nx: " + b"x" * (MAX_HEAD + 1))
        assert (await reader.readline()).startswith(b"HTTP/1.1 431")
        writer.close()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(
            b"GET /v1/realtime/connect HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n"
            b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        # Without a token it is refused, but by the protocol of websockets.
        assert (await reader.readline()).startswith(b"HTTP/1.1 403")
        writer.close()
    finally:
        server.should_exit = True
        await serving
