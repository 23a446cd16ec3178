"""`step.race` and `step.first`: who has won is recorded, and what has lost is dropped."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from stephttp import Suspended, step
from stephttp.sync import step as sync_step
from tests.durable import Durable
from tests.realserver import RealServer
from tests.styles import STYLES, fails, serving

NAP = timedelta(minutes=1)
HOUR = timedelta(hours=1)
did: Counter[str] = Counter()
told: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()
    told.clear()


def begin(name: str) -> str:
    did[name] += 1
    return name


async def endless(name: str) -> str:
    begin(name)
    await asyncio.Event().wait()
    return name


def broken(name: str) -> str:
    begin(name)
    raise ValueError(name)


async def open_waits(world: Durable, first: httpx2.Response) -> list[str]:
    await world.engine.idle()
    run = await world.api.get(f"/v1/runs/{first.headers['x-run-id']}")
    return sorted(wait["step"] for wait in run.json()["data"]["waiting_for"])


async def approval_or_deadline() -> str:
    event = await step.race(
        "decision",
        (
            lambda: step.wait_for_event("approval", event="approved", timeout=HOUR),
            lambda: step.sleep("deadline", NAP),
        ),
    )
    told.append("approved" if event else "given up")
    await step.run("after", begin, "after")
    await step.sleep("nap", 2 * NAP)
    return told[-1]


def blocking_approval_or_deadline() -> str:
    event = sync_step.race(
        "decision",
        (
            lambda: sync_step.wait_for_event("approval", event="approved", timeout=HOUR),
            lambda: sync_step.sleep("deadline", NAP),
        ),
    )
    told.append("approved" if event else "given up")
    sync_step.run("after", begin, "after")
    sync_step.sleep("nap", 2 * NAP)
    return told[-1]


@pytest.mark.parametrize("winner", ["approved", "given up"])
@STYLES
async def test_a_race_of_waits(style: str, winner: str) -> None:
    async with serving(style, approval_or_deadline, blocking_approval_or_deadline) as world:
        first = await world.client.get("/")
        assert await open_waits(world, first) == ["approval", "deadline"]
        if winner == "approved":
            await world.api.post("/e/any", json={"name": "approved", "data": {}})
        else:
            await world.turn()
        assert await open_waits(world, first) == ["nap"], "what lost is dropped"
        await world.api.post("/e/any", json={"name": "approved", "data": {}})
        final = await world.follow(first)
        assert final.json() == winner
        assert told == [winner] * 2
        assert did["after"] == 1
        steps = await world.steps(first)
        assert steps["decision"]["status"] == "Completed"


async def quick_or_slow() -> list[str]:
    async def slow() -> str:
        await step.run("slow one", begin, "slow one")
        return await step.run("slow", endless, "slow")

    async def quick() -> str:
        await asyncio.sleep(0.01)
        return await step.run("quick", begin, "quick")

    word = await step.race("who", (slow, quick))
    told.append(word)
    await step.sleep("nap", NAP)
    await step.sleep("another", NAP)
    return [word]


def blocking_quick_or_slow() -> list[str]:
    over = threading.Event()

    def until_over(name: str) -> str:
        begin(name)
        assert over.wait(10)
        return name

    def slow() -> str:
        sync_step.run("slow one", begin, "slow one")
        sync_step.run("slow", until_over, "slow")
        return sync_step.run("never", begin, "never")

    def quick() -> str:
        while not did["slow"]:
            pass
        return sync_step.run("quick", begin, "quick")

    word = sync_step.race("who", (slow, quick))
    over.set()
    told.append(word)
    sync_step.sleep("nap", NAP)
    sync_step.sleep("another", NAP)
    return [word]


@STYLES
async def test_a_race_of_functions(style: str) -> None:
    async with serving(style, quick_or_slow, blocking_quick_or_slow) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == ["quick"]
        assert told == ["quick"] * 3
        assert did == {"slow one": 1, "slow": 1, "quick": 1}


def contest(tools: Any, tool: str, kind: str) -> Callable[[], Any]:
    """Branches of which the second one ends first, by failing."""

    def run(word: str) -> Any:
        return lambda: tools.run(word, broken if word.startswith("broken") else begin, word)

    branches = {
        "mixed": (run("broken"), run("b"), run("c")),
        "broken": (run("broken"), run("broken too")),
    }[kind]
    return lambda: getattr(tools, tool)("who", branches)


def told_of(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return " and ".join(map(told_of, error.exceptions))
    return str(error).removeprefix("ValueError: ")


@pytest.mark.parametrize(
    ("tool", "kind", "outcome"),
    [
        ("race", "mixed", "broken"),
        ("race", "broken", "broken"),
        ("first", "mixed", "b"),
        ("first", "broken", "broken and broken too"),
    ],
)
async def test_what_a_failure_means(tool: str, kind: str, outcome: str) -> None:
    async def handler() -> str:
        try:
            word = await contest(step, tool, kind)()
        except Exception as error:
            word = told_of(error)
        told.append(word)
        await step.sleep("nap", NAP)
        return str(word)

    async with serving("async", handler, handler) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == outcome
        assert told == [outcome] * 2
        assert max(did.values()) == 1


@pytest.mark.parametrize("style", ["blocking", "wsgi"])
@pytest.mark.parametrize(
    ("kind", "outcomes"), [("mixed", {"b", "c"}), ("broken", {"broken and broken too"})]
)
async def test_the_first_to_succeed_in_threads(style: str, kind: str, outcomes: set[str]) -> None:
    def handler() -> str:
        try:
            word = contest(sync_step, "first", kind)()
        except Exception as error:
            word = told_of(error)
        told.append(word)
        sync_step.sleep("nap", NAP)
        return str(word)

    async with serving(style, handler, handler) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() in outcomes
        assert told == [final.json()] * 2


async def no_branches() -> None:
    await step.race("who", ())


def no_blocking_branches() -> None:
    sync_step.first("who", ())


@STYLES
async def test_a_race_needs_a_branch(style: str) -> None:
    async with serving(style, no_branches, no_blocking_branches) as world:
        await fails(world, ValueError, "a race needs at least one branch")


async def test_a_race_outside_a_request_is_a_race() -> None:
    async def slow() -> str:
        return await endless("slow")

    async def quick() -> str:
        return begin("quick")

    async def fails() -> str:
        raise ValueError("no")

    assert await step.race("who", (slow, quick)) == "quick"
    assert await step.first("who", (fails, quick)) == "quick"
    with pytest.raises(ExceptionGroup, match="no branch succeeded"):
        await step.first("who", (fails, fails))
    assert sync_step.race("who", (lambda: begin("a"),)) == "a"
    with pytest.raises(ExceptionGroup, match="no branch succeeded"):
        sync_step.first("who", (lambda: broken("a"), lambda: broken("b")))


async def nested() -> list[Any]:
    async def both() -> list[Any]:
        one = await step.parallel(
            (
                lambda: step.run("one", begin, "one"),
                lambda: step.sleep("short", NAP),
            )
        )
        return [one[0]]

    async def waits() -> list[Any]:
        await step.parallel((lambda: step.sleep("a", HOUR), lambda: step.sleep("b", HOUR)))
        return []

    won = await step.race("outer", (both, waits))
    await step.sleep("nap", NAP)
    return [*won, await step.run("after", begin, "after")]


def blocking_nested() -> list[Any]:
    def both() -> list[Any]:
        one = sync_step.parallel(
            (
                lambda: sync_step.run("one", begin, "one"),
                lambda: sync_step.sleep("short", NAP),
            )
        )
        return [one[0]]

    def waits() -> list[Any]:
        sync_step.parallel((lambda: sync_step.sleep("a", HOUR), lambda: sync_step.sleep("b", HOUR)))
        return []

    won = sync_step.race("outer", (both, waits))
    sync_step.sleep("nap", NAP)
    return [*won, sync_step.run("after", begin, "after")]


@STYLES
async def test_races_and_parallel_branches_in_each_other(style: str) -> None:
    async with serving(style, nested, blocking_nested) as world:
        first = await world.client.get("/")
        assert await open_waits(world, first) == ["a", "b", "short"]
        await world.turn()
        assert await open_waits(world, first) == ["nap"]
        final = await world.follow(first)
        assert final.json() == ["one", "after"]
        assert did == {"one": 1, "after": 1}


async def test_a_race_whose_code_has_changed_is_run_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler() -> str:
        begin("calls")
        branches = [lambda: step.run("a", begin, "a")]
        if did["calls"] == 1:
            branches = [lambda: step.run("b", endless, "b"), *branches]
        word = await step.race("who", branches)
        await step.sleep("nap", NAP)
        return word

    async with serving("async", handler, handler) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == "a"
    assert "the race 'who' fits no branch" in caplog.text


def test_a_suspension_is_no_outcome_of_a_race() -> None:
    assert not issubclass(Suspended, Exception)


@pytest.mark.parametrize("plan", [False, True], ids=["", "force-plan"])
async def test_outcomes_are_kept_on_a_server_that_does_not_keep_the_order(plan: bool) -> None:
    async def handler() -> list[str]:
        async def slow() -> str:
            return await step.run("slow", endless, "slow")

        async def quick() -> str:
            await step.run("quick", begin, "quick")
            return await step.run("quicker", begin, "quicker")

        seen = [await step.race("who", (slow, quick))]
        try:
            async with asyncio.timeout(0.01):
                await step.run("late", endless, "late")
        except TimeoutError:
            seen.append("too late")
        await step.sleep("nap", NAP)
        await step.run("after", begin, "after")
        await step.sleep("another", NAP)
        told.append(" ".join(seen))
        return seen

    app = FastAPI()
    app.get("/")(handler)
    server = RealServer(force_plan=plan)
    server.app = server.provider().asgi(app)
    final = await server.finish(await server.client().get("/"))
    assert final.json() == ["quicker", "too late"]
    assert set(told) == {"quicker too late"}
    assert set(did.values()) == {1}, did
