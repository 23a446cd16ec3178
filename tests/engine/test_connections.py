"""Connections to endpoints: used again while they are good, and never more kept than wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stephttp.engine.outbound import client as client_module
from stephttp.engine.outbound.client import Client
from stephttp.engine.outbound.connection import (
    ConnectError,
    HTTPRequest,
    RemoteProtocolError,
    Unanswered,
)
from stephttp.engine.outbound.egress import Egress
from stephttp.engine.rules.answers import HTTPResponse

from .support import until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LIMIT = 1000


class Peer:
    """Somebody on a loopback port who answers each request of a connection when told to.

    Attributes:
        answer: what is said; the connection is closed after it if `close` is set.
        seen: the heads of the requests.
    """

    def __init__(self, answer: bytes = OK, *, close: bool = False) -> None:
        self.connections: list[asyncio.StreamWriter] = []
        self.seen: list[bytes] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.answer = answer
        self.close = close

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                self.seen.append(await reader.readuntil(b"\r\n\r\n"))
                await self.go_on.wait()
                writer.write(self.answer)
                await writer.drain()
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def open(self) -> int:
        return sum(not writer.is_closing() for writer in self.connections)


class Asker:
    """Asks one peer."""

    def __init__(self, client: Client, origin: str) -> None:
        self.client = client
        self.origin = origin

    async def ask(self, method: str = "GET", target: str = "/", **more: Any) -> HTTPResponse:
        request = HTTPRequest(method, self.origin, target, **{"headers": {}, **more})
        return await self.client.send(request, LIMIT)


@asynccontextmanager
async def peers(
    peer: Peer | None = None,
    *,
    most_idle: int = 8,
    keep_alive: float = 60.0,
    host: str = "127.0.0.1",
    **server: Any,
) -> AsyncGenerator[tuple[Peer, Asker]]:
    peer = peer or Peer()
    listening = await asyncio.start_server(peer.serve, host, 0, **server)
    scheme = "https" if server else "http"
    shown = f"[{host}]" if ":" in host else host
    origin = f"{scheme}://{shown}:{listening.sockets[0].getsockname()[1]}"
    client = Client(Egress([], private=True), 5, most_idle, keep_alive)
    try:
        yield peer, Asker(client, origin)
        await client.close()
        # Whatever happened, nothing stays open.
        await until(lambda: peer.open == 0)
    finally:
        listening.close()
        await listening.wait_closed()


async def test_a_connection_is_used_again() -> None:
    async with peers() as (peer, asker):
        for _ in range(3):
            assert (await asker.ask()).body == b"ok"
        assert len(peer.connections) == 1


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async with peers(most_idle=2) as (peer, asker):
        peer.go_on.clear()
        calls = [asyncio.create_task(asker.ask()) for _ in range(5)]
        await until(lambda: len(peer.seen) == 5)
        peer.go_on.set()
        assert {(await call).body for call in calls} == {b"ok"}
        assert len(peer.connections) == 5
        await until(lambda: peer.open == 2)


async def test_one_that_the_other_side_has_closed_is_not_used_again() -> None:
    async with peers() as (peer, asker):
        await asker.ask()
        peer.connections[0].close()
        await peer.connections[0].wait_closed()
        assert (await asker.ask()).body == b"ok"
        assert len(peer.connections) == 2


@pytest.mark.parametrize(("keep_alive", "made"), [(60.0, 1), (0.0, 2)])
async def test_one_that_was_idle_for_too_long_is_not_used_again(
    keep_alive: float, made: int
) -> None:
    async with peers(keep_alive=keep_alive) as (peer, asker):
        for _ in range(2):
            await asker.ask()
        assert len(peer.connections) == made


async def test_one_that_is_idle_for_too_long_is_closed() -> None:
    async with peers(keep_alive=0.01) as (peer, asker):
        await asker.ask()
        await until(lambda: peer.open == 0)


async def test_connections_go_to_the_origin_that_they_were_made_for() -> None:
    async with peers() as (peer, asker), peers() as (other, second):
        both = Asker(asker.client, second.origin)
        for _ in range(2):
            await asker.ask()
            await both.ask()
        assert (len(peer.connections), len(other.connections)) == (1, 1)
        await asker.client.close()


async def test_one_that_closed_just_as_it_was_asked_is_replaced() -> None:
    async with peers() as (peer, asker):
        await asker.ask()
        peer.answer, peer.close = b"", True
        call = asyncio.create_task(asker.ask())
        await until(lambda: len(peer.seen) == 2)
        peer.answer, peer.close = OK, False
        assert (await call).body == b"ok"
        assert (len(peer.seen), len(peer.connections)) == (3, 2)


async def test_what_is_sent_a_second_time_can_be_another_request() -> None:
    async with peers() as (peer, asker):
        await asker.ask()
        peer.answer, peer.close = b"", True

        async def again() -> HTTPRequest:
            return HTTPRequest("GET", asker.origin, "/again", {})

        call = asyncio.create_task(asker.ask("GET", "/first", again=again))
        await until(lambda: len(peer.seen) == 2)
        peer.answer, peer.close = OK, False
        assert (await call).body == b"ok"
        assert [head.split()[1] for head in peer.seen[1:]] == [b"/first", b"/again"]


async def test_it_is_tried_once_more_only() -> None:
    async with peers() as (peer, asker):
        await asker.ask()
        peer.answer, peer.close = b"", True
        with pytest.raises(Unanswered):
            await asker.ask()
        assert len(peer.seen) == 3
        # The first request of a connection is not repeated.
        with pytest.raises(Unanswered):
            await asker.ask()
        assert len(peer.seen) == 4


async def test_a_call_that_may_have_been_answered_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with peers() as (peer, asker):
        await asker.ask()
        peer.answer, peer.close = b"HTTP/1.1 2", True
        with pytest.raises(RemoteProtocolError, match="amid the answer"):
            await asker.ask()
        assert len(peer.seen) == 2
    # One that the other side thought about for a while was no race either.
    monkeypatch.setattr(client_module, "_RACE", -1.0)
    async with peers() as (peer, asker):
        await asker.ask()
        peer.answer, peer.close = b"", True
        with pytest.raises(Unanswered):
            await asker.ask()
        assert len(peer.seen) == 2


async def test_one_whose_answer_was_not_waited_for_is_closed() -> None:
    async with peers() as (peer, asker):
        peer.go_on.clear()
        call = asyncio.create_task(asker.ask())
        await until(lambda: peer.seen)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        peer.go_on.set()
        await until(lambda: peer.open == 0)


async def test_one_that_says_more_than_it_was_asked_for_is_closed() -> None:
    async with peers(Peer(OK + OK)) as (peer, asker):
        assert (await asker.ask()).body == b"ok"
        await until(lambda: peer.open == 0)
    async with peers() as (peer, asker):
        await asker.ask()
        peer.connections[0].write(OK)
        await until(lambda: peer.open == 0)
        assert (await asker.ask()).body == b"ok"


async def test_one_that_answers_before_it_has_read_is_closed() -> None:
    class Hasty(Peer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            self.connections.append(writer)
            writer.write(b"HTTP/1.1 413 \r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            await self.go_on.wait()
            writer.transport.abort()

    peer = Hasty()
    peer.go_on.clear()
    async with peers(peer) as (_, asker):
        answer = await asker.ask("POST", body=b"x" * 8_000_000)
        assert answer.status == 413
        assert not asker.client._idle
        peer.go_on.set()


async def test_nobody_is_there() -> None:
    async with peers() as (_, asker):
        pass
    with pytest.raises(ConnectError, match=r"refused|Connect call failed"):
        await asker.ask()


async def test_ipv6() -> None:
    async with peers(host="::1") as (peer, asker):
        assert (await asker.ask()).body == b"ok"
        assert f"host: {asker.origin[7:]}\r\n".encode() in peer.seen[0]
