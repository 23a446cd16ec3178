"""A deploy while runs with parallel branches wait on a real server: processes of two releases take
its calls in any order. No run hangs, and no step runs twice (docs/protocol.md 13.2, 13.4)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from stephttp import step
from stephttp.sync import step as blocking
from tests.integrations.parallel_programs import SECOND, Program, World
from tests.integrations.test_parallel_real_server import listed, once
from tests.realserver.state import Config
from tests.wsgi import WSGITransport

RELEASES: dict[str, tuple[Program, Program]] = {}
"""The handler of the old release, and of the new one."""


class Rolling(World):
    """An application of which one process has the old release, and another one the new."""

    def __init__(self, name: str, choose: Callable[[int], int] | None = None) -> None:
        old, new = RELEASES[name]
        super().__init__(old, choose, nodes=0)
        for program in (old, new):
            self.add(program)

    def add(self, program: Program) -> None:
        app = FastAPI()

        @app.get("/")
        async def handler() -> Any:
            return await program(self)

        self.server.apps.append(self.server.provider().asgi(app))


def two(make: Callable[[bool], Program]) -> Program:
    """Register the two releases of a program, under its name."""
    RELEASES[make.__name__] = make(False), make(True)
    return make(True)


async def naps() -> None:
    await asyncio.gather(step.sleep("nap 1", SECOND), step.sleep("nap 2", SECOND))


def beside_a_step(branch: Program) -> Program:
    async def program(world: World) -> Any:
        await naps()
        await asyncio.gather(branch(world), world.do("q"))
        return await world.do("end")

    return program


@two
def renamed(new: bool) -> Program:
    async def program(world: World) -> Any:
        await naps()
        for name in ("new" if new else "old", "b", "c"):
            await world.do(name)
        return "ok"

    return program


@two
def removed(new: bool) -> Program:
    async def program(world: World) -> Any:
        await naps()
        for name in ["b", "c"] if new else ["old", "b", "c"]:
            await world.do(name)
        await step.sleep("nap 3", SECOND)
        return await world.do("d")

    return program


@two
def renamed_in_a_branch(new: bool) -> Program:
    async def branch(world: World, name: str) -> None:
        await step.sleep(f"nap {name}", SECOND)
        await world.do(f"{name} {'new' if new else 'old'}")
        await world.do(name)

    async def program(world: World) -> Any:
        await asyncio.gather(branch(world, "x"), branch(world, "y"))
        await step.sleep("last", SECOND)
        return await world.do("end")

    return program


@two
def inserted_in_a_branch(new: bool) -> Program:
    """What the new release alone finds open has a step behind it that the old one has planned."""

    async def branch(world: World) -> None:
        if new:
            await world.do("inserted")
        await world.do("p")

    return beside_a_step(branch)


@two
def made_parallel(new: bool) -> Program:
    async def program(world: World) -> Any:
        await naps()
        if new:
            await asyncio.gather(world.do("x"), world.do("y"), world.do("z"))
        else:
            for name in "xyz":
                await world.do(name)
        return await world.do("end")

    return program


@two
def made_a_wait(new: bool) -> Program:
    async def branch(world: World) -> None:
        await (step.sleep("slow nap", SECOND) if new else world.do("slow"))
        await world.do("then")

    return beside_a_step(branch)


@two
def fetched(new: bool) -> Program:
    async def program(world: World) -> Any:
        await naps()
        name = "new" if new else "old"
        found = await asyncio.gather(step.fetch(name, "http://a.test/"), world.do("q"))
        await world.do("end")
        return found[0].status_code

    return program


@two
def failing(new: bool) -> Program:
    async def program(world: World) -> Any:
        world.failures.setdefault("b", 1)
        await naps()
        for name in ("new" if new else "old", "b", "c"):
            await world.do(name, retries=3)
        return "ok"

    return program


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", RELEASES)
async def test_no_run_hangs_and_no_step_runs_twice(name: str, seed: int) -> None:
    world = Rolling(name, random.Random(f"{name} {seed}").randrange)
    world.server.strays = seed % 3
    await world.run()
    once(world)


@two
def branches(new: bool) -> Program:
    async def program(world: World) -> Any:
        await naps()
        await asyncio.gather(*map(world.do, names_of(new=new)))
        return await world.do("end")

    return program


def names_of(*, new: bool) -> list[str]:
    return ["new x", "new y"] if new else ["old x", "old y"]


def branches_in_threads(world: World, *, new: bool) -> flask.Response:
    """Do what `branches` does."""

    def do(name: str) -> str:
        return blocking.run(name, world.work, name)

    blocking.parallel([partial(blocking.sleep, f"nap {number}", SECOND) for number in (1, 2)])
    blocking.parallel([partial(do, name) for name in names_of(new=new)])
    return flask.jsonify(do("end"))


class Divided(Rolling):
    """The new release takes the calls of the handler, and the old one those of steps, so many."""

    def __init__(self, old_calls: int, *, wsgi: bool) -> None:
        self.wsgi, self.old_calls = wsgi, old_calls
        super().__init__("branches")
        self.server.to_app = self.to_app  # type: ignore[method-assign]

    def to_app(self) -> httpx2.AsyncBaseTransport:
        number = 1
        last = self.server.reentries[-1:]
        if last and "x-inngest-step-id" in last[0].headers and self.old_calls:
            self.old_calls -= 1
            number = 0
        app = self.server.apps[number]
        return WSGITransport(app) if self.wsgi else httpx2.ASGITransport(app=app)

    def add(self, program: Program) -> None:
        if not self.wsgi:
            super().add(program)
            return
        app, new = flask.Flask("app"), bool(self.server.apps)
        app.get("/")(lambda: branches_in_threads(self, new=new))
        provider = self.server.provider()
        self.server.blocking.loop = asyncio.get_running_loop()
        self.server.apps.append(provider.wsgi(app))

    async def result(self) -> httpx2.Response:
        first = await self.server.client().get("/")
        (run,) = self.server.runs.values()
        run.function.config = Config(0, "GET")  # an earlier release has declared no attempts
        return await self.server.finish(first)


KINDS = pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])


@KINDS
@pytest.mark.parametrize("old_calls", [1, 2, 5])
async def test_a_planned_step_that_old_processes_pass_over_is_planned_again(
    old_calls: int, wsgi: bool
) -> None:
    """The server knows the job of its first plan for hours."""
    world = Divided(old_calls, wsgi=wsgi)
    final = await world.result()
    assert (final.status_code, final.json(), world.old_calls) == (200, "end", 0)
    assert world.done == Counter(["new x", "new y", "end"])


@KINDS
async def test_releases_that_never_agree_end_a_run_with_the_reason(wsgi: bool) -> None:
    world = Divided(1000, wsgi=wsgi)
    began = world.server.now
    final = await world.result()
    assert (final.status_code, world.done) == (500, Counter())
    assert "do several releases of the application take the calls of this run?" in final.text
    assert [run.status for run in world.server.runs.values()] == ["Failed"]
    assert 1800 < world.server.now - began < 2 * 3600, "a deploy may take its time"


@settings(max_examples=30)
@given(st.sampled_from(sorted(RELEASES)), st.lists(st.integers(0, 5040), max_size=200))
def test_in_all_orders(name: str, numbers: list[int]) -> None:
    async def scenario() -> None:
        world = Rolling(name, listed(numbers))
        world.server.strays = 2
        await world.run()
        once(world)

    asyncio.run(scenario())
