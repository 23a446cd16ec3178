import asyncio
import logging
from typing import Any

import pytest

from stephttp._client.outbox import AWAY_PAUSE, WORKERS, Outbox
from stephttp.errors import APIConnectionError, APIError, APIStatusError


class Server:
    """Takes deliveries; can be away, refuse, or hold them until told."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.problem: APIError | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.pauses: list[float] = []
        self.busy = self.most = 0

    async def deliver(self, item: bytes) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await self.open.wait()
        finally:
            self.busy -= 1
        if self.problem is not None:
            raise self.problem
        self.taken.append(item)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == 3:
            self.problem = None  # back again
        await asyncio.sleep(0)


async def test_everything_is_delivered_by_a_few_workers() -> None:
    server = Server()
    outbox = Outbox(server.deliver)
    items = [str(n).encode() for n in range(100)]
    assert [outbox.put(item) for item in items] == [True] * 100
    assert outbox.depth == 100
    assert await outbox.wait()
    assert sorted(server.taken) == sorted(items)
    assert server.most <= WORKERS
    assert outbox.depth == 0


async def test_nothing_is_lost_while_the_server_is_away() -> None:
    server = Server()
    server.problem = APIConnectionError("refused")
    outbox = Outbox(server.deliver, pause=server.pause)
    outbox.put(b"a")
    outbox.put(b"b")
    assert await outbox.wait()
    assert sorted(server.taken) == [b"a", b"b"]
    assert set(server.pauses) == {AWAY_PAUSE}


async def test_what_the_server_refuses_for_good_is_dropped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.problem = APIStatusError("no such op", 400)
    outbox = Outbox(server.deliver)
    outbox.put(b"a")
    assert await outbox.wait()
    assert server.taken == []
    assert "refused a finished run: no such op" in caplog.text


@pytest.mark.parametrize(("limits", "fits"), [({"max_items": 2}, 2), ({"max_bytes": 5}, 2)])
async def test_a_full_box_refuses_and_says_so_now_and_then(
    limits: Any, fits: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    server.open.clear()
    outbox = Outbox(server.deliver, **limits)
    with caplog.at_level(logging.WARNING):
        accepted = [outbox.put(b"xx") for _ in range(10)]
    assert accepted == [True] * fits + [False] * (10 - fits)
    assert len(caplog.records) == 4  # the 1st, 2nd, 4th and 8th loss
    server.open.set()
    assert await outbox.wait()
    assert len(server.taken) == fits


async def test_waiting_gives_up_at_the_timeout_and_keeps_the_item() -> None:
    server = Server()
    server.open.clear()
    outbox = Outbox(server.deliver)
    outbox.put(b"a")
    assert not await outbox.wait(0)
    assert outbox.depth == 1
    server.open.set()
    assert await outbox.wait()
    assert server.taken == [b"a"]


def test_what_a_closed_loop_left_is_delivered_by_the_next() -> None:
    async def first(outbox: Outbox) -> None:
        outbox.put(b"a")
        await asyncio.sleep(0)

    async def second(server: Server, outbox: Outbox) -> None:
        server.open = asyncio.Event()
        server.open.set()
        assert await outbox.wait()

    async def make() -> Server:
        return Server()

    server = asyncio.run(make())
    server.open.clear()
    outbox = Outbox(server.deliver)
    asyncio.run(first(outbox))
    assert server.taken == []
    asyncio.run(second(server, outbox))
    assert server.taken == [b"a"]


async def test_the_box_works_as_well_the_tenth_time_as_the_first() -> None:
    server = Server()
    outbox = Outbox(server.deliver)
    for _ in range(10):
        for n in range(20):
            assert outbox.put(str(n).encode())
        assert await outbox.wait()
    assert len(server.taken) == 200
