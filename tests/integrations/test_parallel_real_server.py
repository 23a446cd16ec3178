"""Runs with parallel branches on a real server: none hangs, and no step runs twice.

Two processes of the application take the calls, in any order; what happens next is chosen by a
seed, or by Hypothesis, which also lets nodes of the server die. The rules that make it right are
those of docs/protocol.md 13.2 to 13.5.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import flask
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

import stephttp
from stephttp import step
from stephttp._wire.ids import hash_step_id
from stephttp.sync import step as blocking
from tests.realserver import RealServer

SECOND = timedelta(seconds=1)
Program = Callable[["World"], Awaitable[Any]]


class World:
    """An application in several processes, and what its steps did."""

    def __init__(self, program: Program, choose: Callable[[int], int] | None, *, nodes: int = 2):
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.acknowledged: list[str] = []
        """Steps that ran although the server had their result."""
        self.server = RealServer(choose=choose)
        self.program = program
        for _ in range(nodes):
            app = FastAPI()
            app.get("/")(self.handler)
            self.server.apps.append(self.server.provider().asgi(app))

    async def handler(self) -> Any:
        return await self.program(self)

    async def do(self, name: str, *, retries: int = 0) -> str:
        return await step.options(retries=retries).run(name, self.work, name)

    def work(self, name: str) -> str:
        (run,) = self.server.runs.values() or [None]
        if run is not None and hash_step_id(name) in run.memos:
            self.acknowledged.append(name)
        if self.failures[name]:
            self.failures[name] -= 1
            raise ConnectionError(name)
        self.done[name] += 1
        return name

    async def run(self) -> Any:
        """The handler's own answer, when the run has ended."""
        first = await self.server.client().get("/")
        final = await self.server.finish(first)
        (run,) = self.server.runs.values()
        assert run.status == "Completed", (run.status, sorted(run.memos), self.server.trace[-20:])
        assert final.status_code == 200, final.text
        return final.json()

    @property
    def calls(self) -> int:
        return len(self.server.reentries)


async def naps(world: World) -> Any:
    async def nap(number: int) -> str:
        await step.sleep(f"nap{number}", SECOND)
        return await world.do(f"p{number}")

    return await asyncio.gather(*map(nap, range(10)))


async def chain(world: World) -> Any:
    async def link(name: str) -> str:
        await step.sleep(f"{name}1", SECOND)
        await world.do(f"{name}2")
        await world.do(f"{name}3")
        await step.sleep(f"{name}4", SECOND)
        return await world.do(f"{name}5")

    await asyncio.gather(*map(link, "abcd"))
    return [await world.do(name) for name in ("c", "d", "e")]


async def mix(world: World) -> Any:
    async def one() -> None:
        await world.do("one1")
        await step.sleep("one2", SECOND)
        await world.do("one3")

    async def two() -> None:
        await step.sleep("two1", SECOND)
        await world.do("two2")
        await world.do("two3")

    async def three() -> None:
        await world.do("three1")
        await world.do("three2")

    async def four() -> str:
        event = await step.wait_for_event("four1", event="never", timeout=2 * SECOND)
        return await world.do(f"four2 {event}")

    await step.sleep("before", SECOND)
    await asyncio.gather(one(), two(), three(), four())
    await world.do("between")
    await asyncio.gather(world.do("x"), world.do("y"))
    return await world.do("last")


async def failing(world: World) -> Any:
    results = await asyncio.gather(
        world.do("f1", retries=2),
        world.do("f2", retries=2),
        step.sleep("nap", SECOND),
        caught(world),
    )
    return [results, await world.do("last")]


async def caught(world: World) -> str:
    await step.sleep("caught nap", SECOND)
    try:
        return await world.do("f3")
    except (stephttp.StepError, ConnectionError):
        return await world.do("repaired")


PROGRAMS: dict[str, tuple[Program, Any, dict[str, int]]] = {
    "naps": (naps, [f"p{number}" for number in range(10)], {}),
    "chain": (chain, ["c", "d", "e"], {}),
    "mix": (mix, "last", {}),
    "failing": (
        failing, [["f1", "f2", None, "repaired"], "last"], {"f1": 2, "f2": 1, "f3": 1},
    ),
}  # fmt: skip


def world_of(name: str, choose: Callable[[int], int] | None, **more: Any) -> tuple[World, Any]:
    program, answer, failures = PROGRAMS[name]
    world = World(program, choose, **more)
    world.failures.update(failures)
    return world, answer


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", PROGRAMS)
async def test_no_step_runs_twice_in_two_processes(name: str, seed: int) -> None:
    world, answer = world_of(name, random.Random(seed).randrange)
    assert await world.run() == answer
    assert set(world.done.values()) == {1}, world.done
    assert not +world.failures


def listed(numbers: list[int]) -> Callable[[int], int]:
    """Choices from a list; then the first of all."""
    rest: Iterator[int] = iter(numbers)
    return lambda count: next(rest, 0) % count


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(PROGRAMS)), st.lists(st.integers(0, 5040), max_size=400),
    st.integers(0, 2),
)  # fmt: skip
def test_each_acknowledged_step_runs_once_whatever_happens(
    name: str, numbers: list[int], deaths: int
) -> None:
    async def scenario() -> None:
        world, answer = world_of(name, listed(numbers))
        world.server.deaths = deaths
        assert await world.run() == answer
        assert not world.acknowledged, world.server.trace
        if world.server.deaths == deaths:
            assert set(world.done.values()) == {1}, world.done

    asyncio.run(scenario())


async def test_ten_parallel_naps_cost_25_calls_at_most() -> None:
    world, answer = world_of("naps", None, nodes=1)
    assert await world.run() == answer
    assert world.calls <= 25
    assert set(world.done.values()) == {1}


async def test_a_sequential_run_costs_a_call_for_each_wait() -> None:
    async def seq(world: World) -> Any:
        await step.sleep("one", SECOND)
        await world.do("a")
        await world.do("b")
        await step.sleep("two", SECOND)
        return await world.do("c")

    world = World(seq, None)
    assert await world.run() == "c"
    assert world.calls == 2


async def test_branches_in_threads_run_no_step_twice() -> None:
    server, done = RealServer(wsgi=True), Counter[str]()

    def branch(number: int) -> str:
        blocking.sleep(f"nap{number}", SECOND)
        blocking.run(f"p{number}", lambda: done.update([f"p{number}"]))
        return f"p{number}"

    def handler() -> Any:
        found = blocking.parallel([partial(branch, number) for number in range(6)])
        blocking.run("last", lambda: done.update(["last"]))
        return flask.jsonify(found)

    for _ in range(2):
        app = flask.Flask("app")
        app.get("/")(handler)
        server.apps.append(server.provider().wsgi(app))
    final = await server.finish(await server.client().get("/"))
    assert final.json() == [f"p{number}" for number in range(6)]
    assert set(done.values()) == {1}, done
