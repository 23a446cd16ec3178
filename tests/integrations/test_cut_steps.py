"""A step that the handler cut off stays cut off: its function does not begin in a later call."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask, jsonify

from stephttp import step
from stephttp._run import loop_turns
from tests.durable import Durable, durable
from tests.integrations.test_reruns import again, detail

NAP = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SOON = 0.01
did: Counter[str] = Counter()
calls: list[list[str]] = []

Handler = Callable[[], Awaitable[Any]]


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()
    calls.clear()


def serve(handler: Handler) -> Callable[[Any], Any]:
    app = FastAPI()
    app.get("/")(handler)
    return lambda provider: provider.asgi(app)


def serve_wsgi(handler: Handler) -> Callable[[Any], Any]:
    flask = Flask("app")

    async def view() -> Any:
        return jsonify(await handler())

    flask.get("/")(view)
    return lambda provider: provider.wsgi(flask)


def serving(kind: str, handler: Handler, **options: Any) -> Any:
    if kind == "wsgi":
        return durable(serve_wsgi(handler), wsgi=True, **options)
    return durable(serve(handler), **options)


def begin(name: str) -> None:
    did[name] += 1


async def endless(name: str) -> None:
    begin(name)
    await asyncio.Event().wait()


async def fails() -> None:
    begin("fails")
    await asyncio.sleep(0)
    raise ValueError("sold out")


async def by_timeout(seen: list[str]) -> None:
    try:
        async with asyncio.timeout(SOON):
            await step.run("slow", endless, "slow")
    except TimeoutError:
        seen.append("too late")


async def by_wait_for(seen: list[str]) -> None:
    try:
        await asyncio.wait_for(step.run("slow", endless, "slow"), SOON)
    except TimeoutError:
        seen.append("too late")


async def by_move_on_after(seen: list[str]) -> None:
    with anyio.move_on_after(SOON):
        await step.run("slow", endless, "slow")
        seen.append("in time")
    seen.append("moved on")


async def by_a_sibling_that_failed(seen: list[str]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("slow", endless, "slow"))
            group.create_task(step.run("fails", fails))
    except* Exception as group_error:
        seen.append(f"{len(group_error.exceptions)} failed")


async def by_anyio(seen: list[str]) -> None:
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(step.run, "slow", endless, "slow")
            group.start_soon(step.run, "fails", fails)
    except* Exception as group_error:
        seen.append(f"{len(group_error.exceptions)} failed")


async def by_cancel(seen: list[str]) -> None:
    tasks = [
        asyncio.create_task(step.run("slow", endless, "slow")),
        asyncio.create_task(step.run("quick", begin, "quick")),
    ]
    done, losers = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for loser in losers:
        loser.cancel()
    seen.append(f"{len(done)} won")


async def by_itself(seen: list[str]) -> None:
    async def gives_up() -> None:
        begin("slow")
        raise asyncio.CancelledError

    results = await asyncio.gather(step.run("slow", gives_up), return_exceptions=True)
    seen.append(type(results[0]).__name__)


WAYS = [
    by_timeout,
    by_wait_for,
    by_move_on_after,
    by_a_sibling_that_failed,
    by_anyio,
    by_cancel,
    by_itself,
]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_what_was_cut_off_stays_so(way: Callable[[list[str]], Any], kind: str) -> None:
    async def handler() -> list[str]:
        seen: list[str] = []
        calls.append(seen)
        await step.run("before", begin, "before")
        await way(seen)
        await step.run("after", begin, "after")
        await step.sleep("nap", NAP)
        await step.sleep("another", NAP)
        return seen

    async with serving(kind, handler) as world:
        first = await world.client.get("/")
        final = await world.follow(first)
        assert final.json()
        assert calls == [final.json()] * 3
        assert set(did.values()) == {1}, did
        names = set(await world.steps(first))
        assert names >= {"before", "after", "nap", "another"}
        assert not {name for name in names if name.startswith("stephttp:cut")}
        (run,) = (await world.api.get("/v1/runs?limit=1")).json()["data"]
        assert run["steps"] == len(names) - ("stephttp:request" in names)


async def test_a_limit_in_a_re_entry_counts_as_well() -> None:
    async def handler() -> list[str]:
        seen: list[str] = []
        calls.append(seen)
        await step.sleep("nap", NAP)
        await by_timeout(seen)
        await step.sleep("another", NAP)
        await by_a_sibling_that_failed(seen)
        return seen

    async with durable(serve(handler)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == ["too late", "1 failed"]
        assert did["slow"] == 2, "it is a second step of that name"


async def test_a_limit_counts_before_a_re_entry_that_is_tried_again() -> None:
    async def handler() -> list[str]:
        seen: list[str] = []
        await step.sleep("nap", NAP)
        await by_timeout(seen)
        if not did["tried"]:
            did["tried"] += 1
            raise RuntimeError("the handler fails, and is called again")
        return seen

    import stephttp

    async def with_retries() -> list[str]:
        stephttp.configure(retries=1)
        return await handler()

    async with durable(serve(with_retries)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == ["too late"]
        assert did["slow"] == 1


async def test_a_use_that_was_cut_off_does_not_get_what_a_later_use_of_its_id_gave() -> None:
    async def fetch(number: int) -> int:
        begin(f"fetch {number}")
        if number % 2 == 0:
            await asyncio.Event().wait()
        return number

    async def handler() -> list[int | None]:
        seen: list[int | None] = []
        for number in range(4):
            try:
                async with asyncio.timeout(SOON):
                    seen.append(await step.run("fetch", fetch, number))
            except TimeoutError:
                seen.append(None)
        await step.sleep("nap", NAP)
        await step.sleep("another", NAP)
        return seen

    async with durable(serve(handler)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == [None, 1, None, 3]
        assert set(did.values()) == {1}, did


async def test_a_rerun_keeps_what_was_cut_off_before_its_step() -> None:
    async def handler() -> list[str]:
        seen: list[str] = []
        await by_timeout(seen)
        await step.sleep("nap", NAP)
        await step.run("after", begin, "after")
        return seen

    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).json() == ["too late"]
        step_id = (await world.steps(first))["after"]["step_id"]
        run_id = await again(world, first.headers["x-run-id"], step_id=step_id)
        assert (await detail(world, run_id))["state"] == "completed"
        assert did == {"slow": 1, "after": 2}


async def test_a_request_that_others_cancel_leaves_its_steps_to_the_next_call() -> None:
    entered = asyncio.Event()

    async def slow() -> str:
        begin("slow")
        if did["slow"] == 1:
            entered.set()
            await asyncio.Event().wait()
        return "done"

    async def handler() -> list[str]:
        await step.sleep("nap", NAP)
        both = step.run("slow", slow), step.run("quick", lambda: "quick")
        return list(await asyncio.gather(*both))

    async with durable(serve(handler)) as world:
        inner = world.to_app.inner()
        calling: list[asyncio.Task[httpx2.Response]] = []

        async def dies_once(request: httpx2.Request) -> httpx2.Response:
            call = asyncio.ensure_future(inner.handle_async_request(request))
            calling.append(call)
            if len(calling) == 1:
                await entered.wait()
                call.cancel()
                await asyncio.wait([call])
                raise httpx2.ReadError("the process stops", request=request)
            return await call

        world.to_app.handle_async_request = dies_once  # type: ignore[method-assign]
        final = await world.follow(await world.client.get("/"))
        assert final.json() == ["done", "quick"]
        assert did["slow"] == 2


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_code_that_no_longer_cuts_a_step_off_executes_it(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop_turns, "PATIENCE", 0.0)

    async def slow() -> str:
        begin("slow")
        if did["slow"] == 1:
            await asyncio.Event().wait()
        return "done"

    async def handler() -> Any:
        begin("calls")
        if did["calls"] == 1:
            try:
                async with asyncio.timeout(SOON):
                    await step.run("slow", slow)
            except TimeoutError:
                pass
            word = "too late"
        else:
            word = await step.run("slow", slow)
        await step.sleep("nap", NAP)
        await step.sleep("another", NAP)
        return word

    with caplog.at_level(logging.WARNING, "stephttp"):
        async with serving(kind, handler) as world:
            final = await world.follow(await world.client.get("/"))
    assert final.json() == "done"
    assert did["slow"] == 2, "once for the new code, and no more"
    (message,) = {record.getMessage() for record in caplog.records}
    assert "step 'slow' was cut off in an earlier call" in message


async def test_a_wait_that_was_cut_off_is_dropped_by_the_engine_and_never_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler() -> Any:
        begin("calls")
        if did["calls"] < 4:
            approval = asyncio.create_task(
                step.wait_for_event("approval", event="approved", timeout=HOUR)
            )
            deadline = asyncio.create_task(step.sleep("deadline", NAP))
            _, losers = await asyncio.wait(
                {approval, deadline}, return_when=asyncio.FIRST_COMPLETED
            )
            for loser in losers:
                loser.cancel()
            word: Any = approval.done() and not approval.cancelled()
        else:  # the code has changed
            monkeypatch.setattr(loop_turns, "PATIENCE", 0.0)
            event = await step.wait_for_event("approval", event="approved", timeout=NAP)
            word = event and event.data
        await step.sleep("nap", NAP)
        await step.sleep("another", 3 * NAP)
        return word

    async def waits_for(world: Durable, first: httpx2.Response) -> list[str]:
        await world.engine.idle()
        run = await world.api.get(f"/v1/runs/{first.headers['x-run-id']}")
        return sorted(wait["step"] for wait in run.json()["data"]["waiting_for"])

    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        assert await waits_for(world, first) == ["approval", "deadline"]
        await world.turn()
        assert await waits_for(world, first) == ["nap"], "the approval has lost the race"
        page = await world.api.get(f"/api/runs/{first.headers['x-run-id']}")
        assert page.status_code in (200, 404)
        await world.api.post("/e/any", json={"name": "approved", "data": {"by": "me"}})
        assert await waits_for(world, first) == ["nap"], "a dropped wait wakes nothing"
        await world.turn()
        assert await waits_for(world, first) == ["another"]
        assert did["calls"] == 3
        await world.turn()
        final = await world.follow(first)
        assert final.json() == {"by": "me"}, "the new code asks for what came after the run began"


@pytest.mark.parametrize("limit", ["timeout", "wait_for", "move_on_after", "around tasks", "no"])
async def test_a_limit_around_a_wait_is_warned_of(
    limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"wait in {limit}"

    def wait() -> Awaitable[Any]:
        return step.wait_for_event(name, event="approved", timeout=NAP)

    async def handler() -> str:
        if limit == "timeout":
            async with asyncio.timeout(3600):
                await wait()
        elif limit == "wait_for":
            await asyncio.wait_for(wait(), 3600)
        elif limit == "move_on_after":
            with anyio.move_on_after(3600):
                await wait()
        elif limit == "around tasks":
            async with asyncio.timeout(3600):
                await asyncio.gather(wait())
        else:
            async with asyncio.timeout(None):
                await wait()
        await step.sleep(f"nap after {limit}", NAP)
        return "done"

    with caplog.at_level(logging.WARNING, "stephttp"):
        async with durable(serve(handler)) as world:
            final = await world.follow(await world.client.get("/"))
    assert final.json() == "done"
    told = [message for message in caplog.messages if "waits inside of a timeout" in message]
    assert len(told) == (limit != "no"), "once"
    assert all(repr(name) in message for message in told)
