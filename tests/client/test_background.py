"""Work beside requests: in tasks and in threads, one after the other where that is asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from stephttp._client.background import Background, Schedule
from stephttp._client.blocking_driver import SyncDriver
from stephttp._client.drivers import AsyncDriver
from stephttp._client.flow import Flow, Invoke, Pause, Until
from stephttp._client.outbox import Item, Outbox
from stephttp._client.outbox_batch import Parcel
from stephttp._run.reentry_guard import KeyedLock
from stephttp.errors import APIConnectionError

URL = "http://server.test"
DEADLINE = 30.0


def background() -> Background:
    async def pause(seconds: float) -> None:
        await asyncio.sleep(0)

    driver = AsyncDriver(URL, pause=pause)
    return Background(driver, SyncDriver(URL, pause=lambda seconds: None))


def flow(result: int) -> Flow[int]:
    yield Pause(1)
    number: int = yield Invoke(lambda _: result, None)
    if number < 0:
        raise APIConnectionError("refused")
    return number


async def test_where_a_loop_runs_it_is_a_task() -> None:
    before = threading.active_count()
    job = background().start(flow(7), "name")
    assert job.alive()
    assert threading.active_count() == before
    assert await asyncio.wrap_future(job.outcome) == 7
    failing = background().start(flow(-1), "name")
    with pytest.raises(APIConnectionError):
        await asyncio.wrap_future(failing.outcome)
    cancelled = background().start(flow(7), "name")
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wrap_future(cancelled.outcome)


def test_elsewhere_it_is_a_thread() -> None:
    assert background().start(flow(7), "name").outcome.result(DEADLINE) == 7
    with pytest.raises(APIConnectionError):
        background().start(flow(-1), "name").outcome.result(DEADLINE)


def test_alarms_go_off_in_their_order_and_not_when_cancelled() -> None:
    schedule, done = Schedule(), threading.Event()
    rang: list[str] = []

    def ring(name: str) -> Callable[[], None]:
        def call() -> None:
            rang.append(name)
            if name == "bad":
                raise ValueError(name)

        return call

    with schedule._changed:  # all are set before the first goes off
        far = schedule.set(1000, ring("far"))
        schedule.set(0.002, ring("second"))
        cancelled = schedule.set(0.001, ring("cancelled"))
        schedule.set(0.001, ring("bad"))
        schedule.set(0.003, done.set)
        cancelled.cancel()
    assert done.wait(DEADLINE)
    assert rang == ["bad", "second"]
    thread = schedule._thread
    assert thread is not None
    far.cancel()
    schedule.set(0, ring("last"))  # it finds nothing else to wait for, and ends
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert rang[-1] == "last"


def test_threads_pass_one_at_a_time_and_in_their_order() -> None:
    keyed_lock, driver = KeyedLock(), SyncDriver(URL)
    inside = 0
    passed: list[int] = []

    def work(number: int) -> None:
        nonlocal inside
        for _ in range(50):
            driver.run(keyed_lock.acquire("a"))
            inside += 1
            assert inside == 1
            passed.append(number)
            inside -= 1
            keyed_lock.release("a")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(passed) == sorted([0, 1, 2, 3] * 50)
    assert keyed_lock._queues == {}


async def test_a_task_that_is_cancelled_while_it_waits_gives_up_its_place() -> None:
    keyed_lock, driver = KeyedLock(), AsyncDriver(URL)
    await driver.run(keyed_lock.acquire("a"))
    waiting = [asyncio.ensure_future(driver.run(keyed_lock.acquire("a"))) for _ in range(3)]
    await driver.run(keyed_lock.acquire("b"))  # another name is another queue
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    keyed_lock.release("a")
    waiting[1].cancel()  # just when its turn has come
    await asyncio.wait(waiting[1:2])
    if not waiting[1].cancelled():
        keyed_lock.release("a")
    await asyncio.wait_for(waiting[2], DEADLINE)
    keyed_lock.release("a")
    keyed_lock.release("b")
    assert keyed_lock._queues == {}


def test_a_name_is_given_on_although_the_loop_of_one_that_waits_has_ended() -> None:
    keyed_lock, driver = KeyedLock(), AsyncDriver(URL)

    def work() -> None:
        SyncDriver(URL).run(keyed_lock.acquire("a"))
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(driver.run(keyed_lock.acquire("a")))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        del waiting
        assert keyed_lock.contended("a")
        keyed_lock.release("a")  # which closes the one that waited, and that gives up its place

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert keyed_lock._queues == {}


def test_one_that_waited_before_a_fork_gives_up_nothing_behind_it() -> None:
    keyed_lock = KeyedLock()
    assert list(keyed_lock.acquire("a")) == []
    waiting = keyed_lock.acquire("a")
    next(waiting)
    keyed_lock.reset_after_fork()
    assert list(keyed_lock.acquire("a")) == []
    waiting.close()
    assert isinstance(next(keyed_lock.acquire("a")), Until), "it is still held"


def test_both_wait_for_what_another_thread_settles() -> None:
    from concurrent.futures import Future

    def waits(future: Future[None], timeout: float | None) -> Flow[bool]:
        done: bool = yield Until(future, timeout)
        return done

    async def in_a_task(future: Future[None], timeout: float | None) -> bool:
        return await AsyncDriver(URL).run(waits(future, timeout))

    future: Future[None] = Future()
    assert not asyncio.run(in_a_task(future, 0))
    assert not SyncDriver(URL).run(waits(future, 0))
    threading.Timer(0.01, future.set_result, (None,)).start()
    assert asyncio.run(in_a_task(future, None))
    assert SyncDriver(URL).run(waits(future, None))


def test_news_that_come_while_an_item_is_under_way_are_not_lost() -> None:
    """Put by one thread while another hands it over: it is asked again what it has to say."""
    sent: list[bytes] = []
    under_way, go_on = threading.Event(), threading.Event()

    class News(Item):
        __slots__ = ("bodies",)

        def __init__(self) -> None:
            super().__init__()
            self.bodies = [b"first"]

        def take(self) -> Parcel | None:
            return Parcel("/", self.bodies[0]) if self.bodies else None

        def delivered(self, error: Any) -> bool:
            self.bodies.pop(0)
            return False  # as far as it knew

    def deliver(batch: Any) -> Flow[Any]:
        under_way.set()
        assert go_on.wait(DEADLINE)
        sent.extend(parcel.body for _, parcel in batch)
        yield Pause(0)
        return [None] * len(batch)

    outbox = Outbox(deliver, background().start)
    item = News()
    assert outbox.put(item)
    assert under_way.wait(DEADLINE)
    item.bodies.append(b"second")
    assert outbox.put(item)
    go_on.set()
    assert outbox.wait_sync(DEADLINE)
    assert sent == [b"first", b"second"]
    assert outbox.depth == 0
