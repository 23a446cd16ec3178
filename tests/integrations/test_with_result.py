"""Finished steps that travel with the answer of a re-entry, and when they are sent before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import pytest
from fastapi import FastAPI

import stephttp
from stephttp import Checkpointing, step
from stephttp._adapters.asgi.scope import LoopScope
from stephttp._adapters.wsgi.scope import ThreadScope
from stephttp._run.reentry import FLUSH_AFTER, HEARD_WITHIN
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import Durable, durable

NAP = timedelta(minutes=1)
STEPS = ("one", "two", "three", "four")


class App:
    """A sleep, and four steps after it; `between` is called with the name of each that ended."""

    wsgi = False

    def __init__(self, mode: Checkpointing = Checkpointing.performant) -> None:
        self.mode = mode
        self.ran: list[str] = []
        self.between: Callable[[str], None] = lambda name: None
        self.fails = 0

    def end(self) -> dict[str, Any]:
        if self.fails:
            self.fails -= 1
            raise ZeroDivisionError
        return {"ran": len(self.ran)}

    def build(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/")
        async def handler() -> dict[str, Any]:
            stephttp.configure(checkpointing=self.mode, retries=1)
            await step.sleep("nap", NAP)
            for name in STEPS:
                await step.run(name, self.ran.append, name)
                self.between(name)
            return self.end()

        return provider.asgi(app)


class BlockingApp(App):
    wsgi = True

    def build(self, provider: Provider) -> Any:
        app = flask.Flask("with-result")

        @app.post("/")
        def handler() -> dict[str, Any]:
            stephttp.configure(checkpointing=self.mode, retries=1)
            blocking.sleep("nap", NAP)
            for name in STEPS:
                blocking.run(name, self.ran.append, name)
                self.between(name)
            return self.end()

        return provider.wsgi(app)


@pytest.fixture(params=[App, BlockingApp], ids=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> Callable[..., App]:
    made: Callable[..., App] = request.param
    return made


class Timers:
    """Stands for the timers of runs: `fire` lets the time of all that are set be over."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Timers.One]] = []

    class One:
        def __init__(self, call: Callable[[], None]) -> None:
            self.call: Callable[[], None] | None = call

        def cancel(self) -> None:
            self.call = None

    def later(self, seconds: float, call: Callable[[], None]) -> One:
        one = self.One(call)
        self.set.append((seconds, one))
        return one

    def fire(self) -> None:
        for _, one in self.set:
            if one.call is not None:
                one.call()


@pytest.fixture(autouse=True)
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    made = Timers()
    for kind in (LoopScope, ThreadScope):
        monkeypatch.setattr(kind, "later", lambda _, seconds, call: made.later(seconds, call))
    return made


async def begun(world: Durable) -> Any:
    """A run that sleeps, in an application that knows its engine."""
    await world.provider.runtime.drive(world.provider.runtime.checkpoints.renew([], 1000))
    first = await world.client.post("/")
    world.to_engine.requests.clear()
    return first


def posted(world: Durable) -> list[list[str]]:
    """The steps of each further checkpoint."""
    bodies = [json.loads(request.content) for request in world.to_engine.requests]
    return [[op["name"] for op in body["steps"]] for body in bodies]


@pytest.mark.parametrize("mode", [Checkpointing.performant, Checkpointing(max_interval=NAP)])
async def test_a_wake_up_makes_no_request_of_its_own(
    timers: Timers, kind: Callable[..., App], mode: Checkpointing
) -> None:
    app = kind(mode)
    async with durable(app.build, wsgi=app.wsgi) as world:
        first = await begun(world)
        assert (await world.follow(first)).json() == {"ran": 4}
        assert world.to_engine.requests == []
        assert [seconds for seconds, _ in timers.set] == [FLUSH_AFTER]
        assert timers.set[0][1].call is None, "the answer took it off"
        assert set(await world.steps(first)) >= set(STEPS)
        assert app.ran == list(STEPS)


async def test_what_would_be_unsaved_for_long_is_sent_before(
    timers: Timers, kind: Callable[..., App]
) -> None:
    app = kind()
    async with durable(app.build, wsgi=app.wsgi) as world:
        first = await begun(world)
        app.between = lambda name: timers.fire() if name == "two" else None
        assert (await world.follow(first)).json() == {"ran": 4}
        sent = [name for names in posted(world) for name in names]
        assert sent[:2] == ["one", "two"]
        # What ends while that is under way goes after it; the rest is in the answer.
        assert sent == list(STEPS)[: len(sent)]
        assert app.ran == list(STEPS)


async def test_safe_sends_each_step_when_it_ends(timers: Timers, kind: Callable[..., App]) -> None:
    app = kind(Checkpointing.safe)
    async with durable(app.build, wsgi=app.wsgi) as world:
        first = await begun(world)
        assert (await world.follow(first)).json() == {"ran": 4}
        assert timers.set == []
        assert posted(world)[0][0] == "one"


async def test_blended_sends_its_portions(kind: Callable[..., App]) -> None:
    app = kind(Checkpointing.blended)
    async with durable(app.build, wsgi=app.wsgi) as world:
        first = await begun(world)
        assert (await world.follow(first)).json() == {"ran": 4}
        assert posted(world)[0][:3] == ["one", "two", "three"]


async def test_steps_of_a_handler_that_fails_are_not_run_again(kind: Callable[..., App]) -> None:
    app = kind()
    async with durable(app.build, wsgi=app.wsgi) as world:
        first = await begun(world)
        app.fails = 1
        assert (await world.follow(first)).json() == {"ran": 4}
        assert app.ran == list(STEPS)
        assert len(world.reentries) == 2


async def test_after_a_long_call_nothing_is_left_to_an_answer_that_may_find_nobody(
    kind: Callable[..., App],
) -> None:
    app = kind()
    async with durable(app.build, wsgi=app.wsgi) as world:
        first = await begun(world)
        app.between = lambda name: world.clock.advance(HEARD_WITHIN) if name == "four" else None
        assert (await world.follow(first)).json() == {"ran": 4}
        assert posted(world) == [list(STEPS)]


def large() -> str:
    return "x" * 1_500_000


async def test_more_than_an_answer_should_have_is_sent_before_it() -> None:
    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/")
        async def handler() -> int:
            await step.sleep("nap", NAP)
            return sum([len(await step.run(name, large)) for name in STEPS])

        return provider.asgi(app)

    async with durable(build) as world:
        first = await begun(world)
        assert (await world.follow(first)).json() == 4 * len(large())
        assert [name for names in posted(world) for name in names] == list(STEPS)
