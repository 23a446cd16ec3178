"""Races: the first that comes decides, now and when it is remembered; the losers are dropped."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask, jsonify

from stephttp import step
from stephttp.sync import step as sync_step
from tests.durable import Durable, durable
from tests.styles import serving

NAP = timedelta(minutes=1)
HOUR = timedelta(hours=1)
did: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()


def serve(handler: Callable[[], Awaitable[Any]]) -> Callable[[Any], Any]:
    app = FastAPI()
    app.get("/")(handler)
    return lambda provider: provider.asgi(app)


async def event_comes(world: Durable, first: httpx2.Response) -> httpx2.Response:
    """The final answer, without turning the clock; the event has come before."""
    assert first.status_code == 303
    answer = await world.api.post("/e/any", json={"name": "approved", "data": {}})
    assert answer.status_code == 200
    await world.engine.idle()
    assert await world.status(first) == "Completed"
    return await world.api.get(first.headers["location"])


async def for_approval() -> None:
    await step.wait_for_event("approval", event="approved", timeout=HOUR)


async def deadline() -> None:
    await step.sleep("deadline", NAP)


def racers() -> list[asyncio.Task[None]]:
    return [asyncio.create_task(for_approval()), asyncio.create_task(deadline())]


async def cancels_the_loser() -> str:
    tasks = racers()
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        loser.cancel()
    return "given up" if tasks[1].done() else "approved"


async def runs_a_step_after_that() -> str:
    word = await cancels_the_loser()
    await step.run("ship", did.update, ["ship"])
    return word


async def leaves_the_loser() -> str:
    tasks = racers()
    for first in asyncio.as_completed(tasks):
        await first
        break
    return "given up" if tasks[1].done() else "approved"


async def in_a_task_group() -> str:
    words: list[str] = []

    async def compete(wait: Callable[[], Awaitable[Any]], word: str) -> None:
        await wait()
        words.append(word)
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(compete(for_approval, "approved")),
            group.create_task(compete(deadline, "given up")),
        ]
    return words[0]


RACES = [cancels_the_loser, runs_a_step_after_that, leaves_the_loser, in_a_task_group]


@pytest.mark.parametrize("winner", ["approved", "given up"])
@pytest.mark.parametrize("handler", RACES, ids=lambda handler: handler.__name__)
async def test_a_handler_that_has_returned_has_ended_its_run(
    handler: Callable[[], Awaitable[str]], winner: str
) -> None:
    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        if winner == "approved":
            assert (await event_comes(world, first)).json() == winner
        else:
            assert (await world.follow(first)).json() == winner
        calls = len(world.reentries)
        await world.api.post("/e/any", json={"name": "approved", "data": {}})
        await world.engine.idle()
        assert len(world.reentries) == calls == 1, "what lost is dropped"
        assert did["ship"] == (handler is runs_a_step_after_that)


async def test_a_step_that_is_faster_than_a_wait_answers_in_the_first_call() -> None:
    async def handler() -> str:
        tasks = [
            asyncio.create_task(step.sleep("deadline", NAP)),
            asyncio.create_task(step.run("work", lambda: "done")),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        tasks[0].cancel()
        return str(tasks[1].result())

    async with durable(serve(handler)) as world:
        answer = await world.client.get("/")
        assert (answer.status_code, answer.json()) == (200, "done")
        assert await world.provider.wait()
        assert set(await world.steps(answer)) == {"work"}
        assert await world.status(answer) == "Completed"


async def test_a_wait_after_a_race_keeps_the_losers_timer_and_asks_again() -> None:
    async def handler() -> str:
        word = await cancels_the_loser()
        await step.sleep("nap", 3 * NAP)
        return word

    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        await world.api.post("/e/any", json={"name": "approved", "data": {}})
        assert (await world.follow(first)).json() == "approved"


async def test_an_event_that_comes_during_a_call_comes_after_what_that_call_has_done() -> None:
    calls: list[list[str]] = []

    async def work() -> str:
        did["work"] += 1
        await world.api.post("/e/any", json={"name": "approved", "data": {}})
        world.clock.advance(5)  # the event has come before the end of this step
        return "work"

    async def wait() -> str:
        await for_approval()
        return "approved"

    async def handler() -> list[str]:
        seen: list[str] = []
        calls.append(seen)
        approval = asyncio.create_task(wait())
        await step.sleep("nap", NAP)
        done = {asyncio.create_task(step.run("work", work)), approval}
        while done:
            ended, done = await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
            seen.append("+".join(sorted(task.result() for task in ended)))
        await step.sleep("another", NAP)
        return seen

    async with durable(serve(handler)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == ["work", "approved"]
        assert [seen for seen in calls if len(seen) == 2] == [["work", "approved"]] * 2
        assert did["work"] == 1


class Track:
    """Steps that finish in an order which the test decides, in the first call."""

    def __init__(self, *order: str) -> None:
        self.order = list(order)
        self.finished = asyncio.Condition()

    async def run(self, name: str) -> str:
        async with self.finished:
            await self.finished.wait_for(lambda: self.order[0] == name)
            for _ in range(20):  # so that the handler sees each end by itself
                await asyncio.sleep(0)
            self.order.pop(0)
            self.finished.notify_all()
        return name

    def start(self, *names: str) -> "list[asyncio.Task[str]]":
        return [asyncio.create_task(step.run(name, self.run, name)) for name in names]


async def with_gather(track: Track) -> list[str]:
    seen: list[str] = []

    async def branch(name: str) -> None:
        seen.append(await step.run(name, track.run, name))

    await asyncio.gather(*map(branch, "abc"))
    return seen


async def with_as_completed(track: Track) -> list[str]:
    return [await first for first in asyncio.as_completed(track.start("a", "b", "c"))]


async def with_wait(track: Track) -> list[str]:
    seen, left = [], set(track.start("a", "b", "c"))
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        seen.append("+".join(sorted(task.result() for task in done)))
    return seen


async def with_a_task_group(track: Track) -> list[str]:
    seen: list[str] = []

    async def branch(name: str) -> None:
        async with asyncio.timeout(3600):
            seen.append(await step.run(name, track.run, name))

    async with asyncio.TaskGroup() as outer:
        outer.create_task(branch("a"))
        async with asyncio.TaskGroup() as inner:
            inner.create_task(branch("b"))
            inner.create_task(branch("c"))
    return seen


@pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])
@pytest.mark.parametrize(
    "tool",
    [with_gather, with_as_completed, with_wait, with_a_task_group],
    ids=lambda tool: tool.__name__,
)
async def test_the_order_of_completion_is_the_same_in_each_call(
    tool: Callable[[Track], Awaitable[list[str]]], order: str
) -> None:
    track, calls = Track(*order), []

    async def handler() -> list[str]:
        seen = await tool(track)
        calls.append(seen)
        await step.sleep("nap", NAP)
        await step.run("after", did.update, ["after"])
        await step.sleep("another", NAP)
        return seen

    async with durable(serve(handler)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == list(order)
        assert calls == [list(order)] * 3
        assert did["after"] == 1


@pytest.mark.parametrize("order", ["acb", "cba"])
async def test_the_order_is_the_same_in_an_async_view_under_wsgi(order: str) -> None:
    track, calls = Track(*order), []

    async def view() -> Any:
        seen = await with_wait(track)
        calls.append(seen)
        await step.sleep("nap", NAP)
        await step.sleep("another", NAP)
        return jsonify(seen)

    flask = Flask("app")
    flask.get("/")(view)
    async with durable(lambda provider: provider.wsgi(flask), wsgi=True) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == list(order)
        assert calls == [list(order)] * 3


@pytest.mark.parametrize("style", ["blocking", "wsgi"])
@pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])
async def test_the_order_is_the_same_in_threads(style: str, order: str) -> None:
    turns, calls = list(order), list[list[str]]()
    moved = threading.Condition()

    def body(name: str) -> str:
        did[name] += 1
        with moved:
            assert moved.wait_for(lambda: turns[0] == name, 10)
        return name

    def handler() -> list[str]:
        seen: list[str] = []

        def branch(name: str) -> str:
            ended = sync_step.run(name, body, name)
            seen.append(ended)
            with moved:  # in the first call the next one ends after that
                turns[:] = turns[1:] or [""]
                moved.notify_all()
            return sync_step.run(f"{name} too", lambda: ended)

        sync_step.run("before", lambda: None)
        result = sync_step.parallel([partial(branch, name) for name in "abc"])
        assert result == ("a", "b", "c")
        calls.append(seen)
        sync_step.sleep("nap", NAP)
        sync_step.run("after", lambda: None)
        sync_step.sleep("another", NAP)
        return seen

    async with serving(style, handler, handler) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == list(order)
        assert calls == [list(order)] * 3
        assert did == dict.fromkeys("abc", 1)


async def test_a_thread_that_blocks_between_steps_holds_nobody_up_for_long() -> None:
    met = threading.Barrier(2)

    def handler() -> str:
        def branch(name: str) -> None:
            sync_step.run(name, lambda: None)
            met.wait(10)  # for the other branch, which has to get its step for that

        sync_step.parallel([partial(branch, "a"), partial(branch, "b")])
        sync_step.sleep("nap", NAP)
        return "done"

    async with serving("wsgi", handler, handler) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == "done"


async def test_an_order_that_the_handler_no_longer_has_does_not_hold_it_up() -> None:
    track = Track("b", "a")

    async def handler() -> list[str]:
        if not did["called"]:
            did["called"] += 1
            await asyncio.gather(*track.start("a", "b"))
        else:  # the code has changed
            assert await step.run("a", track.run, "a") == "a"
        await step.sleep("nap", NAP)
        return [await step.run("c", lambda: "c")]

    async with durable(serve(handler)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == ["c"]
