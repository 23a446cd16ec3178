import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from stephttp._client.background import Background, Job
from stephttp._client.blocking_driver import SyncDriver
from stephttp._client.drivers import AsyncDriver
from stephttp._client.flow import Flow, Invoke
from stephttp._client.outbox import WORKERS, Item, Outbox
from stephttp._client.outbox_batch import BATCH_BYTES, BATCH_ITEMS, Parcel
from stephttp._client.outbox_worker import AWAY_PAUSE, LINGER
from stephttp._run.delivered_first import deliver_first
from stephttp.errors import APIConnectionError, APIError, APIStatusError


def item(body: bytes = b"a") -> Item:
    return Item(Parcel("/", body))


class Server:
    """Takes deliveries; can be away, refuse, or hold them."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.sizes: list[int] = []
        self.problem: APIError | None = None
        self.bad: dict[bytes, APIStatusError] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.pauses: list[float] = []
        self.busy = self.most = 0

    async def deliver(
        self, batch: Sequence[tuple[Item, Parcel]]
    ) -> Sequence[APIStatusError | None]:
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(0)
            await self.open.wait()
        finally:
            self.busy -= 1
        self.sizes.append(len(batch))
        if self.problem is not None:
            raise self.problem
        bodies = [parcel.body for _, parcel in batch]
        if len(bodies) == 1 and bodies[0] in self.bad:
            raise self.bad[bodies[0]]
        self.taken += [body for body in bodies if body not in self.bad]
        return [self.bad.get(body) for body in bodies]

    async def pause(self, seconds: float) -> None:
        if seconds != LINGER:
            self.pauses.append(seconds)
        if len(self.pauses) == 3:
            self.problem = None  # back again
        await asyncio.sleep(0)


def box(
    server: Server,
    *,
    deliver: Callable[[Any], Any] | None = None,
    batches: Callable[[], bool | None] = lambda: False,
    pause: Callable[[float], Any] | None = None,
    jobs: list[Job[None]] | None = None,
    **limits: int,
) -> Outbox:
    def flow(batch: Sequence[tuple[Item, Parcel]]) -> Flow[Sequence[APIStatusError | None]]:
        results: Sequence[APIStatusError | None] = yield Invoke(deliver or server.deliver, batch)
        return results

    driver = AsyncDriver("http://server.test", pause=pause or server.pause)
    background = Background(driver, SyncDriver("http://server.test"))

    def start(work: Flow[None], name: str) -> Job[None]:
        job = background.start(work, name)
        if jobs is not None:
            jobs.append(job)
        return job

    return Outbox(flow, start, batches=batches, **limits)


def batching(server: Server, **more: Any) -> Outbox:
    return box(server, batches=lambda: True, **more)


async def test_a_plain_server_gets_single_items_from_a_few_tasks() -> None:
    server = Server()
    outbox = box(server)
    items = [str(n).encode() for n in range(100)]
    assert [outbox.put(item(body)) for body in items] == [True] * 100
    assert outbox.depth == 100
    assert await outbox.wait()
    assert sorted(server.taken) == sorted(items)
    assert set(server.sizes) == {1}
    assert 1 < server.most <= WORKERS
    assert outbox.depth == 0


async def test_a_server_that_takes_batches_gets_them_in_order_from_one_task() -> None:
    server = Server()
    outbox = batching(server)
    bodies = [str(n).encode() for n in range(BATCH_ITEMS + 10)]
    for body in bodies:
        outbox.put(item(body))
    assert await outbox.wait()
    assert server.taken == bodies
    assert server.sizes == [BATCH_ITEMS, 10]
    assert server.most == 1


async def test_the_first_delivery_is_a_single_one_and_batches_follow_what_it_told() -> None:
    server = Server()
    known: list[bool | None] = [None]

    async def deliver(
        batch: Sequence[tuple[Item, Parcel]],
    ) -> Sequence[APIStatusError | None]:
        known[0] = True
        return await server.deliver(batch)

    outbox = box(server, deliver=deliver, batches=lambda: known[0])
    for n in range(10):
        outbox.put(item(str(n).encode()))
    assert await outbox.wait()
    assert server.sizes == [1, 9]


async def test_a_batch_is_bounded_in_bytes() -> None:
    server = Server()
    outbox = batching(server)
    third = b"x" * (BATCH_BYTES // 3)
    for _ in range(5):
        outbox.put(item(third))
    too_large = b"y" * (BATCH_BYTES + 1)
    outbox.put(item(too_large))
    assert await outbox.wait()
    assert server.sizes == [2, 2, 1, 1]
    assert server.taken[-1] == too_large  # alone; the server says what it thinks of that


async def test_nothing_is_left_behind_when_there_is_nothing_to_do() -> None:
    before = asyncio.all_tasks()
    server = Server()
    outbox = batching(server)
    outbox.put(item())
    assert await outbox.wait()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("batches", [True, False])
async def test_nothing_is_lost_while_the_server_is_away(batches: bool) -> None:
    server = Server()
    server.problem = APIConnectionError("refused")
    outbox = box(server, batches=lambda: batches)
    outbox.put(item(b"a"))
    outbox.put(item(b"b"))
    assert await outbox.wait()
    assert sorted(server.taken) == [b"a", b"b"]
    assert set(server.pauses) == {AWAY_PAUSE}


async def test_one_bad_item_does_not_spoil_the_others(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.bad[b"bad"] = APIStatusError("no such op", 400)
    outbox = batching(server)
    for body in (b"a", b"bad", b"b"):
        outbox.put(item(body))
    assert await outbox.wait()
    assert server.taken == [b"a", b"b"]
    assert "refused a finished run: no such op" in caplog.text


async def test_an_item_that_is_to_come_later_is_sent_again_before_those_after_it() -> None:
    server = Server()
    server.bad[b"later"] = APIStatusError("full", 503)

    async def again(seconds: float) -> None:
        if server.sizes:
            server.bad.clear()
        await asyncio.sleep(0)

    outbox = batching(server, pause=again)
    for body in (b"a", b"later"):
        outbox.put(item(body))
    assert await outbox.wait()
    assert server.taken == [b"a", b"later"]


async def test_a_batch_refused_as_a_whole_is_sent_item_by_item() -> None:
    server = Server()
    server.bad[b"huge"] = APIStatusError("too large", 413)

    async def deliver(
        batch: Sequence[tuple[Item, Parcel]],
    ) -> Sequence[APIStatusError | None]:
        if len(batch) > 1 and any(parcel.body == b"huge" for _, parcel in batch):
            server.sizes.append(len(batch))
            raise APIStatusError("too large", 413)
        return await server.deliver(batch)

    outbox = batching(server, deliver=deliver)
    for body in (b"a", b"huge", b"b"):
        outbox.put(item(body))
    assert await outbox.wait()
    assert server.taken == [b"a", b"b"]
    assert server.sizes == [3, 1, 1, 1]
    assert server.pauses == []


async def test_what_the_server_refuses_for_good_is_dropped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.problem = APIStatusError("no such op", 400)
    outbox = box(server)
    outbox.put(item())
    assert await outbox.wait()
    assert server.taken == []
    assert "refused a finished run: no such op" in caplog.text


@pytest.mark.parametrize(("limits", "fits"), [({"max_items": 2}, 2), ({"max_bytes": 5}, 2)])
async def test_a_full_box_refuses_and_says_so_now_and_then(
    limits: Any, fits: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    server.open.clear()
    outbox = box(server, **limits)
    with caplog.at_level(logging.WARNING):
        accepted = [outbox.put(item(b"xx")) for _ in range(10)]
    assert accepted == [True] * fits + [False] * (10 - fits)
    fields = [vars(record) for record in caplog.records]
    assert [field["outbox_dropped"] for field in fields] == [1, 2, 4, 8]
    assert {(field["outbox_depth"], field["outbox_bytes"]) for field in fields} == {
        (fits, 2 * fits)
    }
    server.open.set()
    assert await outbox.wait()
    assert len(server.taken) == fits


async def test_waiting_gives_up_at_the_timeout_and_keeps_the_item() -> None:
    server = Server()
    server.open.clear()
    outbox = box(server)
    outbox.put(item())
    assert not await outbox.wait(0)
    assert outbox.depth == 1
    server.open.set()
    assert await outbox.wait()
    assert server.taken == [b"a"]


class News(Item):
    """Something that has more to say when it was delivered."""

    __slots__ = ("bodies",)

    def __init__(self, *bodies: bytes) -> None:
        super().__init__()
        self.bodies = list(bodies)

    def size(self) -> int:
        return sum(map(len, self.bodies))

    def take(self) -> Parcel | None:
        return Parcel("/", self.bodies[0]) if self.bodies else None

    def delivered(self, error: APIError | None) -> bool:
        del self.bodies[0]
        return bool(self.bodies)


@pytest.mark.parametrize("batches", [True, False])
async def test_what_has_more_to_say_is_sent_in_its_order(batches: bool) -> None:
    server = Server()
    outbox = box(server, batches=lambda: batches)
    news = News(b"1", b"2", b"3")
    outbox.put(news)
    assert outbox.put(news)  # it is there already
    outbox.put(item())
    assert outbox.depth == 2
    assert await outbox.wait()
    assert [body for body in server.taken if body != b"a"] == [b"1", b"2", b"3"]
    assert (outbox.depth, outbox.kept_bytes) == (0, 0)
    outbox.put(News())  # nothing to say after all
    assert await outbox.wait()


def test_what_a_closed_loop_left_is_delivered_by_the_next() -> None:
    async def first(outbox: Outbox) -> None:
        outbox.put(item())
        await asyncio.sleep(0)

    async def second(server: Server, outbox: Outbox) -> None:
        server.open = asyncio.Event()
        server.open.set()
        assert await outbox.wait()

    async def make() -> Server:
        return Server()

    server = asyncio.run(make())
    server.open.clear()
    outbox = box(server)
    asyncio.run(first(outbox))
    assert server.taken == []
    asyncio.run(second(server, outbox))
    assert server.taken == [b"a"]


async def test_the_box_works_as_well_the_tenth_time_as_the_first() -> None:
    server = Server()
    outbox = box(server)
    for _ in range(10):
        for n in range(20):
            assert outbox.put(item(str(n).encode()))
        assert await outbox.wait()
    assert len(server.taken) == 200


def test_work_may_begin_at_once_as_with_eager_tasks() -> None:
    taken: list[bytes] = []

    def deliver(batch: Sequence[tuple[Item, Parcel]]) -> Flow[Sequence[None]]:
        yield from ()
        taken.extend(parcel.body for _, parcel in batch)
        return [None] * len(batch)

    driver = SyncDriver("http://server.test")

    def at_once(flow: Flow[None], name: str) -> Job[None]:
        driver.run(flow)
        return Job(Future(), lambda: False, lambda: None)

    outbox = Outbox(deliver, at_once)
    # In a thread, so that a deadlock fails the test and does not stop it.
    thread = threading.Thread(target=outbox.put, args=[item()], daemon=True)
    thread.start()
    thread.join(30)
    assert taken == [b"a"]
    assert outbox.wait_sync(0)


async def test_what_no_worker_can_be_started_for_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    outbox = box(server)
    start = outbox._start

    def refuse(flow: Flow[None], name: str) -> Job[None]:
        raise RuntimeError("can't start new thread")

    outbox._start = refuse
    assert outbox.put(item())
    assert "1 finished runs wait: can't start new thread" in caplog.text
    outbox._start = start
    assert await outbox.wait()
    assert server.taken == [b"a"]


async def test_what_cannot_be_encoded_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Item):
        def take(self) -> Parcel | None:
            raise TypeError("no JSON form")

    server = Server()
    outbox = batching(server)
    for one in (item(b"a"), Broken(), item(b"b")):
        outbox.put(one)
    assert await outbox.wait(30)
    assert server.taken == [b"a", b"b"]
    assert "no JSON form" in caplog.text


async def test_while_one_worker_pauses_another_tries_what_is_awaited() -> None:
    server = Server()
    server.problem = APIConnectionError("refused")
    paused, over = asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        assert seconds == AWAY_PAUSE
        paused.set()
        await over.wait()

    outbox = box(server, pause=pause)
    outbox.put(item(b"a"))
    await paused.wait()
    for result in (False, False, True):
        awaited = item(b"b")
        awaited.awaited, awaited.tried = True, Future()
        if result:
            server.problem = None
        outbox.put(awaited)
        assert await asyncio.wrap_future(awaited.tried) is result
        assert len(outbox.workers) <= 2
    assert await outbox.wait()
    assert server.taken == [b"a", b"b", b"b", b"b"]


def test_what_is_under_way_on_a_loop_that_stands_still_is_sent_by_a_thread() -> None:
    taken: list[bytes] = []
    asked: list[asyncio.Event] = []

    def deliver(batch: Sequence[tuple[Item, Parcel]]) -> Any:
        taken.extend(parcel.body for _, parcel in batch)
        results: Sequence[None] = [None] * len(batch)
        if asked:
            return results
        asked.append(asyncio.Event())
        return answered(asked[0], results)

    async def answered(event: asyncio.Event, results: Sequence[None]) -> Sequence[None]:
        await event.wait()
        return results

    async def request(outbox: Outbox) -> None:
        outbox.put(item())
        await asyncio.sleep(0)
        assert asked

    loop = asyncio.new_event_loop()
    outbox = box(Server(), deliver=deliver)
    loop.run_until_complete(request(outbox))
    assert outbox.depth == 1
    assert outbox.wait_sync(60)
    assert taken == [b"a", b"a"]
    asked[0].set()  # the first worker is answered when the loop runs again, and ends
    loop.run_until_complete(request(outbox))
    assert outbox.wait_sync(60)
    assert taken == [b"a"] * 3
    loop.run_until_complete(asyncio.sleep(0))
    assert not asyncio.all_tasks(loop)
    loop.close()


def test_two_workers_may_say_at_once_that_an_item_was_tried() -> None:
    class Overtaken(Future[bool]):
        def done(self) -> bool:
            was = super().done()
            if not was:
                self.set_result(True)  # by the other one, in this moment
            return was

    one = item()
    one.tried = Overtaken()
    one.was_tried(False)
    one.was_tried(True)
    assert one.tried.done()


def test_what_a_full_outbox_refused_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    outbox, one = box(Server(), max_items=0), item()
    assert list(deliver_first(one, lambda: outbox.put(one), "R")) == []
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "stephttp: the outbox is full"
    ]


@pytest.mark.parametrize("alive", [True, False])
async def test_what_is_to_follow_counts_as_accepted_while_that_is_under_way(alive: bool) -> None:
    server = Server()
    outbox, before = box(server), Future[None]()
    outbox.after(before, lambda: outbox.put(item()), lambda: alive)
    assert outbox.depth == 1
    waiting = asyncio.ensure_future(outbox.wait())
    for _ in range(10):
        await asyncio.sleep(0)
    assert waiting.done() is not alive, "what stands still is not waited for"
    assert server.taken == ([] if alive else [b"a"])
    before.set_result(None)
    assert await waiting
    assert (server.taken, outbox.depth) == ([b"a"], 0), "once"
    outbox.after(before, lambda: outbox.put(item(b"b")), lambda: False)
    assert await outbox.wait()
    assert server.taken == [b"a", b"b"], "and at once where it is done already"


async def test_what_is_to_follow_stays_with_the_parent_of_a_fork() -> None:
    server = Server()
    outbox, before = box(server), Future[None]()
    outbox.after(before, lambda: outbox.put(item()), lambda: True)
    outbox.reset_after_fork()
    before.set_result(None)
    assert outbox.depth == 0
    assert await outbox.wait(0)
    assert server.taken == [], "the report is the parent's"


async def test_a_worker_from_before_a_reset_gives_nothing_back() -> None:
    server = Server()

    class Dead(BaseException):
        pass

    async def deliver(batch: Any) -> Any:
        if jobs[1:]:
            return await server.deliver(batch)
        outbox.reset_after_fork()
        raise Dead

    jobs: list[Job[None]] = []
    outbox = box(server, deliver=deliver, jobs=jobs)
    outbox.put(item(b"before"))
    with pytest.raises(Dead):
        await asyncio.wrap_future(jobs[0].outcome)
    outbox.put(item(b"after"))
    assert await outbox.wait(5.0)
    assert (server.taken, outbox.depth) == ([b"after"], 0)
