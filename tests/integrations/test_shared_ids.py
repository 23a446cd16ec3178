"""Branches that use the same step id: their own results, or a warning."""

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request

from stephttp import step
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import KEY, durable

NAP = timedelta(minutes=1)
Handler = Callable[[], Any]


class Passes(BaseHTTPMiddleware):
    """Calls the handler in a task of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


def serve(handler: Handler, *, inside: bool = False) -> Callable[[Provider], Any]:
    if not inspect.iscoroutinefunction(handler):
        app = flask.Flask("orders")
        app.add_url_rule("/", view_func=handler)
        return lambda provider: provider.wsgi(app)
    api = FastAPI()
    api.get("/")(handler)
    if inside:
        api.add_middleware(Passes)
    return lambda provider: provider.asgi(api)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    return [text for text in found if "share the step id" in text]


async def own(turns: int) -> None:
    """Work outside of steps, which takes that many turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Race:
    """Two branches, of which the one made last comes first in the first call, and later last."""

    def __init__(self) -> None:
        self.calls = 0

    def turns(self) -> tuple[int, int]:
        self.calls += 1
        return (9, 3) if self.calls == 1 else (3, 9)


async def save(name: str, turns: int) -> str:
    await own(turns)
    return f"{name}: " + await step.run("save", lambda: f"saved {name}")


@pytest.mark.parametrize("named", [False, True])
async def test_tasks_that_overtake_each_other_are_warned_of_once(
    named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    race = Race()

    async def load_and_save(name: str, turns: int) -> str:
        if named:  # as anyio names tasks, so that only this step shows which was made first
            await step.run(f"load {name}", str)
        return await save(name, turns)

    async def handler() -> list[str]:
        turns = zip("ab", race.turns(), strict=True)
        tasks = [
            asyncio.create_task(load_and_save(*one), name="branch" if named else None)
            for one in turns
        ]
        both = await asyncio.gather(*tasks)
        await step.sleep("nap", NAP)
        return list(both)

    async with durable(serve(handler)) as world:
        for _ in range(2):
            await world.follow(await world.client.get("/"))
        (text,) = warnings(caplog)
        assert "'save'" in text
        assert f"{__file__}:" in text


async def test_nothing_is_said_in_production() -> None:
    settings = resolve("https://x.test", environ={"INNGEST_SIGNING_KEY": KEY})
    assert Provider(settings).runtime.warned_ids is None


async def side_by_side() -> None:
    await asyncio.gather(*(step.run("save", str, number) for number in range(5)))
    await asyncio.gather(*(save(str(number), 0) for number in range(5)))


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(save(str(number), number))


async def after_its_branches() -> None:
    await asyncio.gather(step.run("save", str), step.run("mail", str))
    await step.run("save", str)
    await step.run("mail", str)


async def each_in_a_task_of_its_own() -> None:
    for number in range(3):
        await asyncio.create_task(save(str(number), 3))


async def in_parallel() -> None:
    race = iter((9, 3, 1))
    await step.parallel([lambda: save("x", next(race)) for _ in range(3)])


@pytest.mark.parametrize(
    "work",
    [side_by_side, in_a_group, after_its_branches, each_in_a_task_of_its_own, in_parallel],
    ids=lambda work: work.__name__,
)
@pytest.mark.parametrize("inside", [False, True])
async def test_branches_in_their_order_are_not_warned_of(
    work: Handler, inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler() -> str:
        await work()
        await step.sleep("nap", NAP)
        return "done"

    async with durable(serve(handler, inside=inside)) as world:
        assert (await world.follow(await world.client.get("/"))).json() == "done"
        assert warnings(caplog) == []


class Gates:
    """Lets two branches come to the shared id in the order that the test says."""

    def __init__(self) -> None:
        self.calls = 0
        self.done = threading.Event()

    def branch(self, name: str, first: bool) -> list[str]:
        if not first:
            assert self.done.wait(10)
        saved = blocking.run("save", lambda: f"saved {name}")
        if first:
            self.done.set()
        return [name, saved]

    def handler(self) -> list[list[str]]:
        self.calls += 1
        self.done.clear()
        b_first = self.calls == 1
        pairs = blocking.parallel(
            [lambda: self.branch("a", not b_first), lambda: self.branch("b", b_first)]
        )
        blocking.sleep("nap", NAP)
        return list(pairs)


RIGHT = [["a", "saved a"], ["b", "saved b"]]


async def test_branches_in_threads_get_their_own_results(caplog: pytest.LogCaptureFixture) -> None:
    gates = Gates()
    async with durable(serve(gates.handler), wsgi=True) as world:
        result = await world.follow(await world.client.get("/"))
        assert (result.json(), gates.calls) == (RIGHT, 2)
        assert warnings(caplog) == []


async def test_branches_of_the_async_parallel_get_their_own_results() -> None:
    race = Race()

    async def handler() -> list[str]:
        one, two = race.turns()
        both = await step.parallel((lambda: save("a", one), lambda: save("b", two)))
        await step.sleep("nap", NAP)
        return list(both)

    async with durable(serve(handler)) as world:
        result = await world.follow(await world.client.get("/"))
        assert result.json() == ["a: saved a", "b: saved b"]
        assert race.calls == 2


async def test_another_server_does_not_keep_branches_so_threads_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gates = Gates()
    async with durable(serve(gates.handler), wsgi=True) as world:
        world.lacks("step-names")
        await world.client.get("/")  # from which the SDK learns the server's extras
        gates.calls = 0
        await world.client.get("/")
        (text,) = warnings(caplog)
        assert "'save'" in text
        assert f"{__file__}:" in text
