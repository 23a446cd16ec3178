"""Connections to the server: used again while they are good, and never more kept than wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpcore2
import httpx2
import pytest

from stephttp._client.asyncio_connections import AsyncioBackend
from stephttp._client.connection_pool import ConnectionPool
from tests.engine.support import until

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """A server on a loopback port that answers each request of a connection when it may."""

    def __init__(self) -> None:
        self.connections: list[asyncio.StreamWriter] = []
        self.asked = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.answer = _ANSWER

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                await self.go_on.wait()
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def open(self) -> int:
        return sum(not writer.is_closing() for writer in self.connections)


@asynccontextmanager
async def peers(
    most_idle: int = 8, keep_alive: float = 60.0
) -> AsyncGenerator[tuple[Peer, str, httpx2.AsyncClient]]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    make = partial(
        httpcore2.AsyncHTTPConnection,
        keepalive_expiry=keep_alive,
        network_backend=AsyncioBackend(),
    )
    transport = httpx2.AsyncHTTPTransport()
    pool: Any = ConnectionPool(make, most_idle, keep_alive)
    transport._pool = pool
    async with httpx2.AsyncClient(transport=transport) as client:
        yield peer, url, client
    # Whatever happened, nothing stays open.
    await until(lambda: peer.open == 0)
    server.close()
    await server.wait_closed()


async def test_a_connection_is_used_again() -> None:
    async with peers() as (peer, url, client):
        for _ in range(3):
            assert (await client.get(url)).text == "ok"
        assert len(peer.connections) == 1


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async with peers(most_idle=2) as (peer, url, client):
        peer.go_on.clear()
        calls = [asyncio.create_task(client.get(url)) for _ in range(5)]
        await until(lambda: peer.asked == 5)
        peer.go_on.set()
        assert {(await call).text for call in calls} == {"ok"}
        assert len(peer.connections) == 5
        await until(lambda: peer.open == 2)


async def test_one_that_the_other_side_has_closed_is_not_used_again() -> None:
    async with peers() as (peer, url, client):
        await client.get(url)
        peer.connections[0].close()
        await peer.connections[0].wait_closed()
        assert (await client.get(url)).text == "ok"
        assert len(peer.connections) == 2


async def test_one_that_was_idle_for_too_long_is_not_used_again() -> None:
    async with peers(keep_alive=0.0) as (peer, url, client):
        for _ in range(2):
            await client.get(url)
        assert len(peer.connections) == 2


async def test_connections_go_to_the_origin_that_they_were_made_for() -> None:
    async with peers() as (peer, url, client), peers() as (other, other_url, _):
        for _ in range(2):
            await client.get(url)
            await client.get(other_url)
        assert (len(peer.connections), len(other.connections)) == (1, 1)
        await client.aclose()


@pytest.mark.parametrize(
    "answer",
    [b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nok"],
)
async def test_one_that_is_broken_is_closed(answer: bytes) -> None:
    async with peers() as (peer, url, client):
        peer.answer = answer
        call = asyncio.create_task(client.get(url))
        await until(lambda: peer.asked)
        if b"close" in answer:
            await until(lambda: peer.connections[0].transport.get_write_buffer_size() == 0)
            peer.connections[0].close()
        with pytest.raises(httpx2.RemoteProtocolError):
            await call
        await until(lambda: peer.open == 0)


async def test_one_whose_answer_was_not_waited_for_is_closed() -> None:
    async with peers() as (peer, url, client):
        peer.go_on.clear()
        call = asyncio.create_task(client.get(url))
        await until(lambda: peer.asked)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        peer.go_on.set()
        await until(lambda: peer.open == 0)


async def test_one_whose_answer_was_not_read_is_closed() -> None:
    async with peers() as (peer, url, client):
        async with client.stream("GET", url) as response:
            assert response.status_code == 200
        await client.get(url)
        assert len(peer.connections) == 2


def test_the_library_still_has_what_is_used_of_it() -> None:
    names = ("can_handle_request", "handle_async_request", "has_expired", "is_idle", "aclose")
    assert all(hasattr(httpcore2.AsyncHTTPConnection, name) for name in names)
