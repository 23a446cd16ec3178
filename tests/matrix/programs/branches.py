"""Parallel branches, races, and limits."""

from __future__ import annotations

import asyncio
from typing import Any

import stephttp
from tests.matrix.cells import HOUR, NAP, Flow, cell
from tests.matrix.uses import Use


def _link(u: Use, name: str, *, nap: bool = True) -> Flow:
    yield u.do(f"{name}1")
    if nap:
        yield u.step.sleep(f"{name}2", NAP)
    return (yield u.do(f"{name}3"))


_LINKS = {f"{name}{number}": 1 for name in "xyz" for number in (1, 3)} | {"last": 1}
_ALL = ["x3", "y3", "z3", "last"]


@cell(_ALL, runs=_LINKS)
def parallel(u: Use) -> Flow:
    found = yield u.step.parallel([u.branch(_link(u, name)) for name in "xyz"])
    return u.json([*found, (yield u.do("last"))])


@cell(_ALL, runs=_LINKS)
def parallel_without_waits(u: Use) -> Flow:
    found = yield u.step.parallel([u.branch(_link(u, name, nap=False)) for name in "xyz"])
    return u.json([*found, (yield u.do("last"))])


@cell(_ALL, runs=_LINKS, on_loop=True)
def gather(u: Use) -> Flow:
    found = yield asyncio.gather(*(u.branch(_link(u, name))() for name in "xyz"))
    return u.json([*found, (yield u.do("last"))])


@cell(_ALL, runs=_LINKS, on_loop=True)
def task_group(u: Use) -> Flow:
    async def group() -> list[Any]:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(u.branch(_link(u, name))()) for name in "xyz"]
        return [task.result() for task in made]

    return u.json([*(yield group()), (yield u.do("last"))])


@cell([["a", "a", "a"], "last"], runs={"a": 3, "last": 1})
def parallel_of_one_name(u: Use) -> Flow:
    def branch() -> Flow:
        yield u.step.sleep("nap", NAP)
        return (yield u.do("a"))

    found = yield u.step.parallel([u.branch(branch()) for _ in range(3)])
    return u.json([list(found), (yield u.do("last"))])


@cell(["x3", "caught", "last"], runs={"x1": 1, "x3": 1, "bad": 2, "last": 1}, failures={"bad": 9})
def parallel_with_a_failure(u: Use) -> Flow:
    def bad() -> Flow:
        yield u.step.sleep("bad nap", NAP)
        try:
            yield u.do("bad", retries=1)
        except (stephttp.StepError, ConnectionError):
            return "caught"

    found = yield u.step.parallel([u.branch(_link(u, "x")), u.branch(bad())])
    return u.json([*found, (yield u.do("last"))])


@cell(..., 500, runs={"x1": 1, "x3": 1, "bad": 1}, failures={"bad": 9})
def parallel_that_fails(u: Use) -> Flow:
    def bad() -> Flow:
        yield u.step.sleep("bad nap", 2 * NAP)
        yield u.do("bad")

    yield u.step.parallel([u.branch(_link(u, "x")), u.branch(bad())])
    return u.json("never")


@cell([200, {"n": 1}, None], runs={"a": 1}, act=("event", "beside"))
def parallel_of_tools(u: Use) -> Flow:
    def fetched() -> Flow:
        return (yield u.step.fetch("get", "http://other.test/")).status_code

    def waited() -> Flow:
        event = yield u.step.wait_for_event("event", event="beside", timeout=HOUR)
        return event.data

    def slept() -> Flow:
        yield u.step.sleep("nap", NAP)

    branches = [u.branch(fetched()), u.branch(waited()), u.branch(slept())]
    found = yield u.step.parallel(branches)
    yield u.do("a")
    return u.json(list(found))


def _nap(u: Use, name: str, minutes: int) -> Flow:
    yield u.step.sleep(f"nap {name}", minutes * NAP)
    return (yield u.do(name))


@cell(["quick", "last"], runs={"quick": 1, "last": 1})
def race(u: Use) -> Flow:
    won = yield u.step.race("who", (u.branch(_nap(u, "slow", 9)), u.branch(_nap(u, "quick", 1))))
    yield u.step.sleep("nap", NAP)
    return u.json([won, (yield u.do("last"))])


@cell(["good", "last"], runs={"bad": 1, "good": 1, "last": 1}, failures={"bad": 9})
def first(u: Use) -> Flow:
    won = yield u.step.first("who", (u.branch(_nap(u, "bad", 1)), u.branch(_nap(u, "good", 2))))
    return u.json([won, (yield u.do("last"))])


@cell(["timed out", "last"], runs={"last": 1}, on_loop=True)
def time_limit(u: Use) -> Flow:
    async def bounded() -> str:
        try:
            async with asyncio.timeout(0.001):
                await u.step.run("endless", asyncio.sleep, 60)
        except TimeoutError:
            return "timed out"
        return "ended"

    found = yield bounded()
    yield u.step.sleep("nap", NAP)
    return u.json([found, (yield u.do("last"))])
