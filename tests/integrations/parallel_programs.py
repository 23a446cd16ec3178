"""Handlers with parallel branches, for the tests against a real server's double."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

from fastapi import FastAPI

import stephttp
from stephttp import step
from stephttp._wire.ids import hash_step_id
from tests.realserver import RealServer

SECOND = timedelta(seconds=1)
Program = Callable[["World"], Awaitable[Any]]


class World:
    """An application in several processes, and what its steps did."""

    def __init__(
        self,
        program: Program,
        choose: Callable[[int], int] | None = None,
        *,
        nodes: int = 2,
        key: str = "",
        **options: Any,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        """How often each step still fails."""
        self.acknowledged: list[str] = []
        """Steps that ran although the server had their result."""
        self.server = RealServer(choose=choose, key=key)
        self.program = program
        for _ in range(nodes):
            app = FastAPI()
            app.get("/")(self.handler)
            self.server.apps.append(self.server.provider(**options).asgi(app))

    async def handler(self) -> Any:
        return await self.program(self)

    async def do(self, name: str, *, retries: int = 0) -> str:
        return await step.options(retries=retries).run(name, self.work, name)

    def work(self, name: str) -> str:
        if any(hash_step_id(name) in run.memos for run in self.server.runs.values()):
            self.acknowledged.append(name)
        if self.failures[name]:
            self.failures[name] -= 1
            raise ConnectionError(name)
        self.done[name] += 1
        return name

    async def run(self, version: int = 1) -> Any:
        """The handler's own answer, when the run has ended.

        Args:
            version: of the protocol that the run began with.
        """
        first = await self.server.client().get("/")
        (run,) = self.server.runs.values()
        run.version = version
        final = await self.server.finish(first)
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
    """Branches of waits and steps, and a sequential end."""

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
    """Steps that fail beside each other, before and after a wait."""

    async def caught() -> str:
        await step.sleep("caught nap", SECOND)
        try:
            return await world.do("f3")
        except (stephttp.StepError, ConnectionError):
            return await world.do("repaired")

    results = await asyncio.gather(
        world.do("f1", retries=2), world.do("f2", retries=2), step.sleep("nap", SECOND), caught()
    )
    return [results, await world.do("last")]


async def caught_at_once(world: World) -> Any:
    """A step that has failed for good, and others behind it."""
    try:
        await world.do("x")
        await world.do("bad")
    except (stephttp.StepError, ConnectionError):
        await asyncio.gather(step.sleep("one", SECOND), step.sleep("two", SECOND))
    await world.do("y")
    return await world.do("last")


async def fetches(world: World) -> Any:
    async def fetch(number: int) -> int:
        return (await step.fetch(f"fetch{number}", f"http://a.test/{number}")).status_code

    found = await asyncio.gather(fetch(1), fetch(2), step.sleep("nap", SECOND))
    return [[*found, await fetch(3)], await world.do("last")]


async def limits(world: World) -> Any:
    """A step that its own branch cuts off."""

    async def bounded() -> str:
        try:
            async with asyncio.timeout(0.001):
                await step.run("endless", asyncio.sleep, 60)
        except TimeoutError:
            pass
        return await world.do("too late")

    found = await asyncio.gather(bounded(), step.sleep("nap", SECOND))
    await step.sleep("another", SECOND)
    return [found, await world.do("last")]


async def first_of(world: World) -> Any:
    """Branches that are left behind."""

    async def branch() -> None:
        await world.do("a1")
        await step.sleep("a", 5 * SECOND)
        await world.do("never")

    tasks = [asyncio.create_task(branch()), asyncio.create_task(_nap("b"))]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await step.sleep("c", SECOND)
    for task in tasks:
        task.cancel()
    return await world.do("last")


async def _nap(step_id: str) -> None:
    await step.sleep(step_id, SECOND)


async def race(world: World) -> Any:
    async def branch(name: str, seconds: int) -> str:
        await step.sleep(f"nap {name}", seconds * SECOND)
        return await world.do(name)

    won = await step.race("who", (lambda: branch("slow", 3), lambda: branch("quick", 1)))
    await step.sleep("nap", SECOND)
    return [won in ("slow", "quick"), await world.do("last")]


async def first(world: World) -> Any:
    """Branches of `parallel`, and then a race that the branch which fails does not win."""

    async def branch(name: str, seconds: int) -> str:
        await step.sleep(f"nap {name}", seconds * SECOND)
        return await world.do(name)

    found = await step.parallel([partial(branch, name, 1) for name in "ab"])
    won = await step.first("who", (lambda: branch("bad", 1), lambda: branch("good", 2)))
    return [*found, won, await world.do("last")]


PROGRAMS: dict[str, tuple[Program, Any, dict[str, int]]] = {
    "naps": (naps, [f"p{number}" for number in range(10)], {}),
    "chain": (chain, ["c", "d", "e"], {}),
    "mix": (mix, "last", {}),
    "failing": (failing, [["f1", "f2", None, "repaired"], "last"], {"f1": 2, "f2": 1, "f3": 1}),
    "caught_at_once": (caught_at_once, "last", {"bad": 1}),
    "fetches": (fetches, [[200, 200, None, 200], "last"], {}),
    "limits": (limits, [["too late", None], "last"], {}),
    "first_of": (first_of, "last", {}),
    "race": (race, [True, "last"], {}),
    "first": (first, ["a", "b", "good", "last"], {"bad": 1}),
}
"""What each is to answer, and how often its steps fail."""


def world_of(
    name: str, choose: Callable[[int], int] | None = None, **more: Any
) -> tuple[World, Any]:
    program, answer, failures = PROGRAMS[name]
    world = World(program, choose, **more)
    world.failures.update(failures)
    return world, answer
