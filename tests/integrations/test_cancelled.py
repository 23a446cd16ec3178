"""A run that is cancelled while a call of it is open: no further step begins in that call."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI

import stephttp
from stephttp import Checkpointing, step
from stephttp._core.run import Run
from stephttp.sync import step as blocking
from tests.durable import Durable, durable

NAP = timedelta(minutes=1)
SECONDS = 30


class Orders:
    """An endpoint whose steps wait for the test, each for its own word.

    Args:
        kind: of application and handler.
        waits: whether the run waits first, so that its steps are those of a re-entry.
    """

    def __init__(self, kind: str, waits: bool, mode: Checkpointing | None = None) -> None:
        self.kind = kind
        self.waits = waits
        self.mode = mode
        self.begun: list[str] = []
        self.entered = {name: threading.Event() for name in ("one", "two", "three")}
        self.open = {name: threading.Event() for name in self.entered}

    def body(self, name: str) -> str:
        self.begun.append(name)
        self.entered[name].set()
        assert self.open[name].wait(SECONDS)
        return name

    async def async_body(self, name: str) -> str:
        return await asyncio.to_thread(self.body, name)

    def build(self, provider: Any) -> Any:
        async def handler() -> str:
            if self.mode is not None:
                stephttp.configure(checkpointing=self.mode)
            if self.waits:
                await step.sleep("nap", NAP)
            for name in self.entered:
                await step.run(name, self.async_body, name)
            return "done"

        def blocks() -> str:
            if self.mode is not None:
                stephttp.configure(checkpointing=self.mode)
            if self.waits:
                blocking.sleep("nap", NAP)
            for name in self.entered:
                blocking.run(name, self.body, name)
            return "done"

        if self.kind == "flask":
            app = flask.Flask("orders")
            app.add_url_rule("/", view_func=blocks)
            return provider.wsgi(app)
        api = FastAPI()
        api.get("/")(handler if self.kind == "async" else blocks)
        return provider.asgi(api)

    async def until_begun(self, name: str) -> None:
        assert await asyncio.to_thread(self.entered[name].wait, SECONDS)


KINDS = ["async", "def", "flask"]
MODES = [None, Checkpointing.safe, Checkpointing.performant]


async def cancel(world: Durable, run_id: str) -> None:
    assert (await world.api.delete(f"/v1/runs/{run_id}")).is_success


def heard(monkeypatch: pytest.MonkeyPatch, method: str) -> threading.Event:
    """An event that is set once a run knows that it is over, or taken over."""
    event = threading.Event()
    original: Callable[[Run], None] = getattr(Run, method)

    def noted(run: Run) -> None:
        original(run)
        event.set()

    monkeypatch.setattr(Run, method, noted)
    return event


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES, ids=["default", "safe", "performant"])
async def test_a_step_that_took_long_is_the_last(kind: str, mode: Checkpointing | None) -> None:
    orders = Orders(kind, waits=True, mode=mode)
    async with durable(orders.build, wsgi=kind == "flask") as world:
        first = await world.client.get("/")
        world.clock.advance(NAP.total_seconds())
        await orders.until_begun("one")
        await cancel(world, first.headers["x-run-id"])
        world.clock.advance(2)
        orders.open["one"].set()
        await world.engine.idle()
        assert orders.begun == ["one"]
        assert await world.status(first) == "Cancelled"
        assert len(world.reentries) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_step_that_took_long_is_not_the_last_of_a_run_that_continues(kind: str) -> None:
    orders = Orders(kind, waits=True)
    async with durable(orders.build, wsgi=kind == "flask") as world:
        first = await world.client.get("/")
        world.clock.advance(NAP.total_seconds())
        for name in orders.entered:
            await orders.until_begun(name)
            world.clock.advance(2)
            orders.open[name].set()
        await world.engine.idle()
        assert "done" in (await world.follow(first)).text
        assert orders.begun == ["one", "two", "three"]


@pytest.mark.parametrize("kind", KINDS)
async def test_no_step_begins_once_the_engine_has_refused_one(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Orders(kind, waits=True)
    over = heard(monkeypatch, "stop")
    async with durable(orders.build, wsgi=kind == "flask") as world:
        world.lacks("steps-with-result")  # each step is sent as soon as it has ended
        first = await world.client.get("/")
        world.clock.advance(NAP.total_seconds())
        await orders.until_begun("one")
        await cancel(world, first.headers["x-run-id"])
        orders.open["one"].set()
        await orders.until_begun("two")  # which begins meanwhile, and may end
        assert await asyncio.to_thread(over.wait, SECONDS)
        orders.open["two"].set()
        await world.engine.idle()
        assert orders.begun == ["one", "two"]
        assert await world.status(first) == "Cancelled"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("renewal", [False, True])
async def test_a_first_call_stops_and_its_caller_learns_why(
    kind: str, renewal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Orders(kind, waits=False, mode=Checkpointing.safe)
    over = heard(monkeypatch, "expire")
    async with durable(orders.build, wsgi=kind == "flask") as world:
        call = asyncio.ensure_future(world.client.get("/"))
        await orders.until_begun("one")
        runs: list[Any] = []
        while not runs:
            assert await world.provider.wait(SECONDS)
            runs = (await world.api.get("/v1/runs")).json()["data"]
        (run,) = runs
        await cancel(world, run["run_id"])
        last = "one"
        if renewal:
            await world.provider.runtime.renew_leases()
        else:
            orders.open["one"].set()
            await orders.until_begun("two")
            last = "two"
        assert await asyncio.to_thread(over.wait, SECONDS)
        orders.open[last].set()
        answer = await call
        assert orders.begun == ["one", "two"][: 1 if renewal else 2]
        assert answer.status_code == 303
        result = await world.api.get(answer.headers["location"])
        assert (result.status_code, result.json()["error"]["name"]) == (409, "CancelledError")


async def test_a_branch_that_asks_is_not_at_a_stop() -> None:
    ran: list[str] = []
    world: Durable

    def build(provider: Any) -> Any:
        def work(name: str) -> None:
            world.clock.advance(2)
            ran.append(name)

        async def chain() -> None:
            for name in ("one", "two", "three"):
                await step.run(name, work, name)

        async def handler() -> str:
            await step.sleep("nap", NAP)
            await asyncio.gather(step.sleep("long", 3 * NAP), chain())
            return "done"

        api = FastAPI()
        api.get("/")(handler)
        return provider.asgi(api)

    async with durable(build) as world:
        send = world.to_engine.handle_async_request

        async def slowly(request: httpx2.Request) -> httpx2.Response:
            for _ in range(100):
                await asyncio.sleep(0)
            return await send(request)

        world.to_engine.handle_async_request = slowly  # type: ignore[method-assign]
        first = await world.client.get("/")
        await world.turn()
        assert ran == ["one", "two", "three"]
        assert len(world.reentries) == 1
        assert (await world.follow(first)).json() == "done"
        assert len(world.reentries) == 2
