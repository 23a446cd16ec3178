"""Connections of the asynchronous HTTP client: against real sockets, with asyncio and uvloop."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore2
import pytest
import uvloop

from stephttp._client.asyncio_connections import AsyncioBackend, Connection
from tests.engine.support import until
from tests.engine.test_exchange import certificate

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_LARGE = 8 * 1024 * 1024
"""More than the buffers of a loopback connection hold."""


def on_each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    def run(new_loop: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(test(**fixtures))

    new_loop = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    parameters = [new_loop, *inspect.signature(test).parameters.values()]
    known = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    run.__signature__ = inspect.Signature(known)  # type: ignore[attr-defined]
    run.__doc__ = test.__doc__
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    each: Callable[..., None]
    each = pytest.mark.parametrize("new_loop", loops, ids=["asyncio", "uvloop"])(run)
    return each


class Peer(asyncio.Protocol):
    """The other side of one connection."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.closed = False

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True


@asynccontextmanager
async def server(context: ssl.SSLContext | None = None) -> AsyncGenerator[tuple[list[Peer], int]]:
    peers: list[Peer] = []

    def accept() -> Peer:
        peers.append(Peer())
        return peers[-1]

    listening = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield peers, listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await until(lambda: all(peer.closed for peer in peers))


@asynccontextmanager
async def pair() -> AsyncGenerator[tuple[Connection, Peer]]:
    """Both ends of a connection."""
    async with server() as (peers, port):
        connection = await AsyncioBackend().connect_tcp("127.0.0.1", port, 5)
        await until(lambda: peers)
        try:
            yield connection, peers[0]
        finally:
            await connection.aclose()


@on_each_loop
async def test_head_and_body_are_sent_in_one_piece() -> None:
    async with pair() as (connection, peer):
        await connection.write(b"head ", 5)
        await connection.write(b"body", 5)
        reading = asyncio.create_task(connection.read(100, 5))
        await until(lambda: peer.pieces)
        assert peer.pieces == [b"head body"]
        peer.transport.write(b"answer")
        assert await reading == b"answer"


@on_each_loop
async def test_a_large_body_waits_for_the_other_side() -> None:
    async with pair() as (connection, peer):
        peer.transport.pause_reading()
        writing = asyncio.create_task(connection.write(b"x" * _LARGE, 5))
        await asyncio.wait([writing], timeout=0)
        assert not writing.done()
        peer.transport.resume_reading()
        await writing
        await until(lambda: sum(map(len, peer.pieces)) == _LARGE)


@on_each_loop
async def test_a_large_answer_waits_for_its_reader() -> None:
    async with pair() as (connection, peer):
        peer.transport.write(b"x" * _LARGE)
        size = 0
        while size < _LARGE:
            data = await connection.read(1000_000, 5)
            assert data
            size += len(data)
            assert len(connection._unread) < 1024 * 1024
        peer.transport.close()
        assert await connection.read(100, 5) == b""


@on_each_loop
async def test_what_takes_too_long_is_given_up() -> None:
    async with pair() as (connection, peer):
        with pytest.raises(httpcore2.ReadTimeout, match="nothing came for 0 s"):
            await connection.read(100, 0)
        peer.transport.pause_reading()
        with pytest.raises(httpcore2.WriteTimeout, match="nothing was taken for 0 s"):
            await connection.write(b"x" * _LARGE, 0)
        with pytest.raises(httpcore2.ConnectTimeout):
            await AsyncioBackend().connect_tcp("127.0.0.1", 1, 0)
        peer.transport.resume_reading()


@on_each_loop
async def test_what_came_before_a_connection_broke_is_read() -> None:
    async with pair() as (connection, peer):
        peer.transport.write(_ANSWER)
        assert await connection.read(1, 5) == b"H"
        connection.connection_lost(ConnectionResetError("reset by peer"))
        with pytest.raises(httpcore2.WriteError, match="reset by peer"):
            await connection.write(b"more", 5)
        assert await connection.read(1000, 5) == _ANSWER[1:]
        with pytest.raises(httpcore2.ReadError, match="reset by peer"):
            await connection.read(1000, 5)


@on_each_loop
async def test_the_end_of_an_idle_connection_is_seen() -> None:
    async with pair() as (connection, peer):
        assert not connection.get_extra_info("is_readable")
        peer.transport.close()
        await until(lambda: connection.get_extra_info("is_readable"))
        assert await connection.read(100, 5) == b""


@on_each_loop
async def test_it_is_seen_before_the_event_loop_has_seen_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connecting = AsyncioBackend().connect_tcp("127.0.0.1", listening.getsockname()[1], 5)
        connection = await connecting
        accepted, _ = listening.accept()
        assert not connection.get_extra_info("is_readable")
        accepted.close()
        assert connection.get_extra_info("is_readable")
        await connection.aclose()


@on_each_loop
async def test_a_refused_connection_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(httpcore2.ConnectError, match="Errno 111"):
            await AsyncioBackend().connect_tcp("127.0.0.1", free.getsockname()[1], 5)


@on_each_loop
async def test_a_name_that_cannot_be_looked_up_is_a_failed_connection() -> None:
    with pytest.raises(httpcore2.ConnectError, match="too long"):
        await AsyncioBackend().connect_tcp("x" * 64 + ".localhost", 80, 5)


@pytest.fixture
def silent() -> Any:
    """An address that does not answer: its queue of connections is full."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield listening.getsockname()


async def connect_to(*places: tuple[int, tuple[Any, ...]], timeout: float = 5) -> Connection:
    """Connect to a host that has these addresses."""
    loop = asyncio.get_running_loop()
    known = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        if host != "app.example.com":
            return await known(host, port, **options)
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in places]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "getaddrinfo", getaddrinfo)
        return await AsyncioBackend().connect_tcp("app.example.com", 80, timeout)


@on_each_loop
async def test_the_next_address_is_tried_where_one_refuses_or_does_not_answer(silent: Any) -> None:
    async with server() as (_, port):
        for other in ((socket.AF_INET6, ("::1", 1, 0, 0)), (socket.AF_INET, silent)):
            good = (socket.AF_INET, ("127.0.0.1", port))
            connection = await connect_to(other, good)
            assert connection.get_extra_info("server_addr") == ("127.0.0.1", port)
            await connection.aclose()


@on_each_loop
async def test_if_all_fail_all_reasons_are_given() -> None:
    places = [(socket.AF_INET6, ("::1", 1, 0, 0)), (socket.AF_INET, ("127.0.0.1", 1))]
    with pytest.raises(httpcore2.ConnectError, match=r"::1.*; .*127\.0\.0\.1"):
        await connect_to(*places)


@on_each_loop
async def test_an_attempt_that_is_given_up_leaves_nothing_open(silent: Any) -> None:
    async with server() as (peers, port):
        good = (socket.AF_INET, ("127.0.0.1", port))
        with pytest.raises(httpcore2.ConnectTimeout):
            await connect_to((socket.AF_INET, silent), timeout=0)
        first = await connect_to(good, (socket.AF_INET, silent))
        await first.aclose()
        await until(lambda: len(peers) == 1 and peers[0].closed)


@on_each_loop
async def test_tls(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    trusting = ssl.create_default_context(cafile=path)
    async with server(context) as (peers, port):
        for trusted in (ssl.create_default_context(), trusting):
            plain = await AsyncioBackend().connect_tcp("127.0.0.1", port, 5)
            if trusted is not trusting:
                with pytest.raises(httpcore2.ConnectError, match="certificate verify failed"):
                    await plain.start_tls(trusted, "localhost", 5)
                continue
            secure = await plain.start_tls(trusted, "localhost", 5)
            assert secure.get_extra_info("ssl_object") is not None
            await secure.write(b"x" * _LARGE, 5)
            await secure.write(b"end", 5)
            reading = asyncio.create_task(secure.read(100, 5))
            await until(lambda: peers[-1].pieces[-1:] and peers[-1].pieces[-1].endswith(b"end"))
            assert sum(map(len, peers[-1].pieces)) == _LARGE + 3
            peers[-1].transport.write(b"answer")
            assert await reading == b"answer"
            await secure.aclose()
