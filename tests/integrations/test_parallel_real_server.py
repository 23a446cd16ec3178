"""Runs with parallel branches on a real server: none hangs, and no step runs twice.

Two processes of the application take the calls, in any order; what happens next is chosen by a
seed, or by Hypothesis, which also lets nodes of the server die. The rules that make it right are
those of docs/protocol.md 13.2 to 13.5.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flask
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stephttp import Checkpointing, step
from stephttp.sync import step as blocking
from tests.integrations.parallel_programs import PROGRAMS, SECOND, World, world_of
from tests.realserver import RealServer

KINDS: list[dict[str, Any]] = [
    {"key": "ab" * 16},
    {"checkpointing": Checkpointing.safe},
    {"checkpointing": Checkpointing.blended, "nodes": 1},
]


def once(world: World) -> None:
    assert set(world.done.values()) == {1}, world.done
    assert not world.acknowledged
    assert not +world.failures
    fetched = Counter(world.server.executor.fetched)
    assert set(fetched.values()) <= {1}, fetched


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PROGRAMS)
async def test_no_step_runs_twice_in_two_processes(name: str, seed: int) -> None:
    more = KINDS[seed % len(KINDS)]
    world, answer = world_of(name, random.Random(f"{name} {seed}").randrange, **more)
    world.server.strays = 5
    assert await world.run() == answer
    once(world)


@pytest.mark.parametrize("name", PROGRAMS)
async def test_p1_a_run_that_began_at_version_2_ends_too(name: str) -> None:
    """One that an older release has begun."""
    world, answer = world_of(name, random.Random(name).randrange)
    assert await world.run(version=2) == answer
    once(world)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", PROGRAMS)
async def test_no_step_runs_twice_when_the_api_is_away_now_and_then(
    name: str, version: int
) -> None:
    rng = random.Random(name)
    world, answer = world_of(name, rng.randrange)
    left = 20

    def down(request: httpx2.Request) -> bool:
        nonlocal left
        away = request.url.path.endswith(("/steps", "/actions")) and rng.random() < 0.3
        left -= away
        return away and left > 0

    world.server.down = down
    assert await world.run(version) == answer
    once(world)


def listed(numbers: list[int]) -> Callable[[int], int]:
    """Choices from a list; then the first of all."""
    rest: Iterator[int] = iter(numbers)
    return lambda count: next(rest, 0) % count


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(PROGRAMS)), st.lists(st.integers(0, 5040), max_size=300),
    st.integers(0, 2), st.integers(0, 9),
)  # fmt: skip
def test_each_acknowledged_step_runs_once_whatever_happens(
    name: str, numbers: list[int], deaths: int, strays: int
) -> None:
    async def scenario() -> None:
        world, answer = world_of(name, listed(numbers))
        world.server.deaths, world.server.strays = deaths, strays
        assert await world.run() == answer
        assert not world.acknowledged, world.server.trace
        if world.server.deaths == deaths:
            once(world)

    asyncio.run(scenario())


async def test_ten_parallel_naps_cost_25_calls_at_most() -> None:
    world, answer = world_of("naps", nodes=1)
    assert await world.run() == answer
    assert world.calls <= 25
    once(world)


async def test_a_sequential_run_costs_a_call_for_each_wait() -> None:
    async def sequence(world: World) -> Any:
        await step.sleep("one", SECOND)
        await world.do("a")
        await world.do("b")
        await step.sleep("two", SECOND)
        return await world.do("c")

    world = World(sequence)
    assert await world.run() == "c"
    assert world.calls == 2
    once(world)


async def test_a_sequential_end_costs_few_calls() -> None:
    """Section 13.4: else each of its steps would cost two."""

    async def end(world: World) -> Any:
        await asyncio.gather(step.sleep("one", SECOND), step.sleep("two", SECOND))
        return [await world.do(f"s{number}") for number in range(30)]

    world = World(end)
    assert len(await world.run()) == 30
    assert world.calls <= 4
    once(world)


async def test_branches_in_threads_run_no_step_twice() -> None:
    server, done = RealServer(wsgi=True), Counter[str]()

    def branch(number: int) -> str:
        blocking.sleep(f"nap{number}", SECOND)
        blocking.run(f"p{number}", lambda: done.update([f"p{number}"]))
        return f"p{number}"

    def handler() -> Any:
        found = blocking.parallel([partial(branch, number) for number in range(6)])
        for number in range(3):
            blocking.run(f"last{number}", lambda: done.update(["last"]))
        return flask.jsonify(found)

    for _ in range(2):
        app = flask.Flask("app")
        app.get("/")(handler)
        server.apps.append(server.provider().wsgi(app))
    final = await server.finish(await server.client().get("/"))
    assert final.json() == [f"p{number}" for number in range(6)]
    assert done == Counter({f"p{number}": 1 for number in range(6)} | {"last": 3})
