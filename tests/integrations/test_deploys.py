"""A new version meets runs that an old one started: the table of docs/how-it-works.md, by rows."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from tests.durable import durable
from tests.integrations.test_divergences import Handler, deploy, record, serve

NAP = timedelta(minutes=1)
did: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()


def do(name: str) -> str:
    did.append(name)
    return name


@dataclass
class Money:
    amount: int


@dataclass
class Price:
    value: int


def text() -> str:
    return do("12")


def money() -> Money:
    did.append("money")
    return Money(5)


def price() -> Price:
    did.append("price")
    return Price(6)


def number() -> int:
    did.append("number")
    return 7


def ratio() -> float:
    did.append("ratio")
    return 8.0


Uses = list[tuple[str, Any]]
"""The steps of a handler: id, and the function, a nap, or the name of an event."""


def both(uses: Uses) -> tuple[Handler, Handler]:
    """The same handler, async and blocking; it answers with all results."""

    async def handler() -> list[Any]:
        found: list[Any] = []
        for step_id, what in uses:
            if isinstance(what, timedelta):
                await step.sleep(step_id, what)
            elif isinstance(what, str):
                event = await step.wait_for_event(step_id, event=what, timeout=NAP)
                found.append(event and event.data)
            else:
                found.append(shown(await step.run(step_id, what)))
        return found

    def blocks() -> list[Any]:
        found: list[Any] = []
        for step_id, what in uses:
            if isinstance(what, timedelta):
                blocking.sleep(step_id, what)
            elif isinstance(what, str):
                event = blocking.wait_for_event(step_id, event=what, timeout=NAP)
                found.append(event and event.data)
            else:
                found.append(shown(blocking.run(step_id, what)))
        return found

    return handler, blocks


def shown(value: object) -> object:
    return repr(value) if isinstance(value, (Money, Price, float)) else value


def a() -> str:
    return do("a")


def b() -> str:
    return do("b")


def c() -> str:
    return do("c")


A, B, C, Z = ("a", a), ("b", b), ("c", c), ("nap", NAP)

ROWS: dict[str, tuple[Uses, Uses, list[Any], list[str], list[tuple[str, str]]]] = {
    # what was deployed: before, after, the answer, what was done, the warnings
    "nothing": ([A, Z, B], [A, Z, B], ["a", "b"], ["a", "b"], []),
    "step renamed": (
        [A, Z], [("a2", c), Z], ["c"], ["a", "c"], [("step_not_met", "a")],
    ),
    "step removed": ([A, B, Z], [A, Z], ["a"], ["a", "b"], [("step_not_met", "b")]),
    "step added before the wait": ([A, Z], [C, A, Z], ["c", "a"], ["a", "c"], []),
    "step added after the wait": ([A, Z], [A, Z, C], ["a", "c"], ["a", "c"], []),
    "steps reordered": ([A, B, Z], [B, A, Z], ["b", "a"], ["a", "b"], []),
    "fewer turns of a loop": ([A, A, Z], [A, Z], ["a"], ["a", "a"], [("step_not_met", "a")]),
    "more turns of a loop": ([A, Z], [A, A, Z], ["a", "a"], ["a", "a"], []),
    "function of a step changed": ([A, Z], [("a", c), Z], ["a"], ["a"], []),
    "wait became a step": (
        [A, ("nap", NAP)], [A, ("nap", c)], ["a", "c"], ["a", "c"], [("step_changed", "nap")],
    ),
    "step became a wait": (
        [A, Z], [("a", NAP), Z], [], ["a"], [("step_changed", "a")],
    ),
    "sleep became a wait for an event": (
        [A, Z], [A, ("nap", "paid")], ["a", None], ["a"], [("step_changed", "nap")],
    ),
    "wait removed": ([A, Z, B], [A, B], ["a", "b"], ["a", "b"], [("step_not_met", "nap")]),
    "duration of an open sleep changed": ([A, Z], [A, ("nap", 9 * NAP)], ["a"], ["a"], []),
    "result read as a type that fits": (
        [("m", number), Z], [("m", ratio), Z], ["7.0"], ["number"], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("row", ROWS)
async def test_row(row: str, sync: bool) -> None:
    before, after, answer, done, warnings = ROWS[row]
    async with durable(serve(both(before)[sync]), wsgi=sync) as world:
        first = await world.client.get("/orders")
        deploy(world, both(after)[sync])
        result = await world.follow(first)
        assert (result.status_code, result.json()) == (200, answer)
        assert did == done
        run = await record(world, first)
        assert [(one["kind"], one["step"]) for one in run["warnings"]] == warnings
        assert run["status"] == "Completed"


MISFITS: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (text, number),
    (money, price),
    (money, number),
    (number, text),
    (text, money),
]


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize(("old", "new"), MISFITS)
async def test_a_result_that_the_new_type_does_not_fit(
    old: Callable[[], Any], new: Callable[[], Any], sync: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler gets an error at that step, which names it; nothing is read as what it is not."""
    async with durable(serve(both([("pay", old), Z])[sync]), wsgi=sync) as world:
        first = await world.client.get("/orders")
        deploy(world, both([("pay", new), Z])[sync])
        result = await world.follow(first)
        assert (result.status_code, await world.status(first)) == (500, "Failed")
        # FastAPI lets it through to the run's record, Flask answers and logs it.
        error = (await record(world, first))["error"]["message"]
        assert "the result of step 'pay' does not fit its declared type" in error + caplog.text
        assert len(did) == 1, "the function has not run again"


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_a_handler_may_deal_with_a_result_of_the_old_type(sync: bool) -> None:
    async def reads() -> str:
        try:
            return str((await step.run("pay", number)) + 1)
        except stephttp.StepResultError as error:
            return f"old: {error}"

    def blocks() -> str:
        try:
            return str(blocking.run("pay", number) + 1)
        except stephttp.StepResultError as error:
            return f"old: {error}"

    async with durable(serve(both([("pay", text), Z])[sync]), wsgi=sync) as world:
        first = await world.client.get("/orders")
        deploy(world, blocks if sync else reads)
        assert "old: the result of step 'pay' does not fit" in (await world.follow(first)).text


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_an_endpoint_that_has_moved_is_tried_for_a_day(sync: bool, comes_back: bool) -> None:
    handler = both([A, Z, B])[sync]
    async with durable(serve(handler), wsgi=sync) as world:
        first = await world.client.get("/orders")
        deploy(world, handler, path="/moved")
        await world.turn()
        await world.turn()
        assert await world.status(first) == "Running"
        if comes_back:
            deploy(world, handler)
            assert (await world.follow(first)).json() == ["a", "b"]
            assert did == ["a", "b"]
        else:
            world.clock.advance(25 * 3600)
            await world.engine.idle()
            assert await world.status(first) == "Failed"
            run = await record(world, first)
            assert run["error"]["name"] == "MisdirectedError"
            assert did == ["a"]
