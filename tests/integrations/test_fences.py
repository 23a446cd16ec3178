"""A call that another may have replaced begins no further step, and its answer is not given."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI

import stephttp
from stephttp import Checkpointing, step
from stephttp._wire import stored_state
from stephttp._wire.stored_state import ASKS_AFTER, RESENT_AFTER
from stephttp.engine.model.clock import VirtualClock
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import Durable, durable

NAP = timedelta(minutes=1)
LEASE = 3
SAFE = replace(Checkpointing.safe, lease=timedelta(seconds=LEASE))
SECONDS = 10
KINDS = pytest.mark.parametrize("kind", ["async", "def", "flask"])


class Pause:
    """A place in a handler, or in a step, at which a test holds it."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.reached.set()
        assert self.open.wait(SECONDS)
        return "held"

    async def on_loop(self) -> str:
        return await asyncio.to_thread(self)

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, SECONDS)


class Handler:
    """Naps if it is to be re-entered, and then comes to its parts: steps, and pauses without one.

    Args:
        kind: of application and handler.
        naps: whether the parts belong to a re-entry.
        parts: the names of steps; those that end in `!` stand for pauses between steps, and those
            in `?` for steps that pause.
    """

    def __init__(self, kind: str, *parts: str, naps: bool) -> None:
        self.kind, self.parts, self.naps = kind, parts, naps
        self.ran: list[str] = []
        self.pauses = {part: Pause() for part in parts if part[-1] in "!?"}
        self.mode: Checkpointing | None = None
        self.name = "one"
        self.seen: dict[str, str] = {}
        """What the handler got from its steps at last."""

    def note(self, part: str) -> str:
        self.ran.append(part)
        if part in self.pauses:
            self.pauses[part]()
        return f"{self.name} of {part}"

    async def note_async(self, part: str) -> str:
        return await asyncio.to_thread(self.note, part)

    async def handler(self) -> str:
        self.configure()
        if self.naps:
            await step.sleep("nap", NAP)
        for part in self.parts:
            if part.endswith("!"):
                await self.pauses[part].on_loop()
            else:
                self.seen[part] = await step.run(part, self.note_async, part)
        return "done"

    def blocks(self) -> str:
        self.configure()
        if self.naps:
            blocking.sleep("nap", NAP)
        for part in self.parts:
            if part.endswith("!"):
                self.pauses[part]()
            else:
                blocking.run(part, self.note, part)
        return "done"

    def configure(self) -> None:
        if self.mode is not None:
            stephttp.configure(checkpointing=self.mode)

    def build(self, provider: Provider) -> Any:
        if self.kind == "flask":
            app = flask.Flask("shop")
            app.add_url_rule("/", view_func=self.blocks, methods=["POST"])
            return provider.wsgi(app)
        api = FastAPI()
        api.post("/")(self.handler if self.kind == "async" else self.blocks)
        return provider.asgi(api)

    def world(self, **options: Any) -> AbstractAsyncContextManager[Durable]:
        return durable(self.build, wsgi=self.kind == "flask", **options)


def questions(world: Durable) -> list[httpx2.Request]:
    """Note what is asked and reported from now on."""
    send, noted = world.to_engine.handle_async_request, list[httpx2.Request]()

    async def noting(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith(("/actions", "/steps")):
            noted.append(request)
        return await send(request)

    world.to_engine.handle_async_request = noting  # type: ignore[method-assign]
    return noted


@KINDS
@pytest.mark.parametrize("cancelled", [False, True])
async def test_before_the_first_step_a_call_asks_if_it_has_come_to_it_late(
    kind: str, cancelled: bool
) -> None:
    handler = Handler(kind, "slow!", "one", "two", naps=True)
    async with handler.world() as world:
        first = await world.client.post("/")
        world.clock.advance(60)
        await handler.pauses["slow!"].until_reached()
        asked = questions(world)
        if cancelled:
            path = f"/v1/runs/{first.headers['x-run-id']}"
            assert (await world.api.delete(path)).is_success
        world.clock.advance(ASKS_AFTER + 0.1)
        handler.pauses["slow!"].open.set()
        await world.engine.idle()
        assert [request.url.path.rpartition("/")[2] for request in asked] == ["steps"]
        assert handler.ran == ([] if cancelled else ["one", "two"])
        assert await world.status(first) == ("Cancelled" if cancelled else "Completed")


@KINDS
@pytest.mark.parametrize("away", [1, 99])
async def test_without_an_answer_of_the_engine_a_call_begins_no_further_step(
    kind: str, away: int
) -> None:
    """It was cut off: what it would do next may have been done, and acknowledged, elsewhere."""
    handler = Handler(kind, "one", "slow?", "two", naps=True)
    async with handler.world() as world:
        first = await world.client.post("/")
        world.clock.advance(60)
        await handler.pauses["slow?"].until_reached()
        send, refused = world.to_engine.handle_async_request, 0

        async def cut_off(request: httpx2.Request) -> httpx2.Response:
            nonlocal refused
            if refused < away and request.url.path.endswith("/steps"):
                refused += 1
                raise httpx2.ConnectError("no route to host")
            return await send(request)

        world.to_engine.handle_async_request = cut_off  # type: ignore[method-assign]
        world.clock.advance(ASKS_AFTER + 0.1)
        handler.pauses["slow?"].open.set()
        await world.engine.idle()
        # Its answer does reach the engine, with what it has done; the next call does the rest.
        assert handler.ran == ["one", "slow?", "two"]
        assert len(world.reentries) == (1 if away == 1 else 2)
        assert (await world.follow(first)).status_code == 200
    assert handler.ran == ["one", "slow?", "two"]


async def test_of_two_processes_that_get_a_call_at_the_same_time_one_works_on_it() -> None:
    """Both ask, and both are alive. The answer of the one that may not is the engine's."""
    one, two = (Handler("async", "first?", "second", naps=True) for _ in range(2))
    async with one.world() as world:
        world.lacks("reentry-state")
        other = world.provide()
        deliver = world.to_app.handle_async_request
        working: list[asyncio.Task[httpx2.Response]] = []

        async def doubled(request: httpx2.Request) -> httpx2.Response:
            await request.aread()
            world.to_app.handle_async_request = deliver  # type: ignore[method-assign]
            working.append(asyncio.create_task(deliver(request)))
            await one.pauses["first?"].until_reached()
            world.to_app.requests.append(request)
            second = httpx2.ASGITransport(two.build(other))
            return await second.handle_async_request(request)

        first = await world.client.post("/")
        world.to_app.handle_async_request = doubled  # type: ignore[method-assign]
        world.clock.advance(60)
        await one.pauses["first?"].until_reached()
        await world.engine.idle()
        (run,) = (await world.api.get("/v1/runs")).json()["data"]
        assert run["status"] == "Running"
        assert two.ran == [], "the first one works on it"
        # The engine sends it again, and not before the first one would have to ask.
        two.pauses["first?"].open.set()
        due_ms = await world.engine.store.read(
            lambda connection: connection.execute("SELECT min(due_ms) FROM timers").fetchone()[0]
        )
        assert due_ms - world.clock.now_ms() >= RESENT_AFTER * 1000
        world.to_app.app = two.build(other)
        world.clock.advance(2)
        one.pauses["first?"].open.set()
        await asyncio.gather(*working)
        assert one.ran == ["first?"], "it was superseded meanwhile"
        assert (await world.follow(first)).status_code == 200
        assert await other.aclose()
    assert [*one.ran, *two.ran].count("second") == 1


@pytest.mark.parametrize("works", [False, True])
async def test_another_process_than_the_state_was_sent_to_waits_until_it_is_known_who_works(
    works: bool,
) -> None:
    """The engine knows of one process. A balancer gives the call to a new one, or to both."""
    one, two = (Handler("async", "first?", "second", naps=True) for _ in range(2))
    two.pauses["first?"].open.set()
    mode = {"checkpointing": SAFE} if works else {}
    async with one.world(**mode) as world:
        other = world.provide(**mode)
        await world.provider.runtime.drive(world.provider.runtime.checkpoints.renew([], 1000))
        first_one, second = world.to_app.inner(), httpx2.ASGITransport(two.build(other))
        arrived, working = asyncio.Event(), list[asyncio.Task[httpx2.Response]]()
        answers = list[int]()

        async def balancer(request: httpx2.Request) -> httpx2.Response:
            await request.aread()
            world.to_app.requests.append(request)
            if works and not working:
                working.append(asyncio.create_task(first_one.handle_async_request(request)))
                await one.pauses["first?"].until_reached()
            arrived.set()
            answer = await second.handle_async_request(request)
            answers.append(answer.status_code)
            return answer

        first = await world.client.post("/")
        world.to_app.handle_async_request = balancer  # type: ignore[method-assign]
        world.clock.advance(60)
        await arrived.wait()
        (call,) = world.reentries
        assert call.headers[stored_state.RECEIVER] == world.provider.runtime.deliveries.process
        assert two.ran == []
        if works:
            one.pauses["first?"].open.set()
            await asyncio.gather(*working)
            assert one.ran == ["first?", "second"]
        for _ in range(20):
            await asyncio.sleep(0)
        assert two.ran == []
        world.clock.advance(RESENT_AFTER)
        await world.engine.idle()
        assert answers == ([503] if works else [206])
        assert (await world.follow(first)).status_code == 200
        assert await other.aclose()
        assert [one.ran, two.ran] == [["first?", "second"] if works else [], two.ran]
    assert two.ran == ([] if works else ["first?", "second"])


@pytest.mark.parametrize("kind", ["async", "flask"])
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("last", [False, True], ids=["at a step", "at the end"])
async def test_a_first_call_whose_lease_has_lapsed_leaves_its_run(
    kind: str, keyed: bool, last: bool
) -> None:
    """It was stopped, or cut off, for longer than its lease, and does not know yet whether the
    engine has given the run to another process: that may have done what comes next."""
    handler = Handler(kind, "one", "slow?", *(() if last else ("two",)), naps=False)
    handler.mode = SAFE
    options: dict[str, Any] = {"idempotency_header": "idempotency-key"} if keyed else {}
    headers = {"idempotency-key": "k"} if keyed else {}
    timed: dict[str, Any] = {"checkpointing": SAFE, "monotonic": VirtualClock.monotonic}
    async with handler.world(**options, **timed) as world:
        leases = world.provider.runtime.leases
        call = asyncio.ensure_future(world.client.post("/", headers=headers))
        await handler.pauses["slow?"].until_reached()
        assert await world.provider.wait(SECONDS)
        assert len(leases) == 1
        stopped, handler.pauses["slow?"] = handler.pauses["slow?"], Pause()
        handler.pauses["slow?"].open.set()
        other = world.provide(**options, checkpointing=SAFE)
        world.to_app.app = handler.build(other)
        world.clock.advance(LEASE)
        await world.engine.idle()
        world.clock.advance(1)  # the time that a holder gets afterwards
        await world.engine.idle()
        done = list(handler.ran)
        assert done == ["one", "slow?", "slow?", *(() if last else ("two",))], "taken over"
        openings = list[int]()
        send = world.to_engine.handle_async_request

        async def noting(request: httpx2.Request) -> httpx2.Response:
            response = await send(request)
            if request.url.path == "/v1/http/runs":
                openings.append(response.status_code)
            return response

        world.to_engine.handle_async_request = noting  # type: ignore[method-assign]
        stopped.open.set()
        answer = await call
        assert handler.ran == done
        # Its steps are not acknowledged: the other call has begun without them.
        assert openings == ([] if keyed and last else [409, 200])
        if keyed and last:  # refused by the engine, which stores each answer to a key
            assert answer.status_code == 503
            answer = await world.client.post("/", headers=headers)
            assert answer.text in ("done", '"done"')
        else:
            assert (await world.follow(answer)).status_code == 200
        assert handler.ran == done
        assert await other.aclose()


async def test_a_call_does_not_continue_with_another_output_than_is_remembered() -> None:
    """The process that has lost the run reports a step as late as the other one is at the same."""
    one, two = (Handler("async", "first?", "second", naps=False) for _ in range(2))
    two.name = "two"
    one.mode = two.mode = SAFE
    async with one.world(checkpointing=SAFE, monotonic=VirtualClock.monotonic) as world:
        call = asyncio.ensure_future(world.client.post("/"))
        await one.pauses["first?"].until_reached()
        assert await world.provider.wait(SECONDS)
        other = world.provide(checkpointing=SAFE)
        world.to_app.app = two.build(other)
        world.clock.advance(LEASE)
        await world.engine.idle()
        world.clock.advance(1)
        await two.pauses["first?"].until_reached()  # it has begun without what follows
        one.pauses["first?"].open.set()
        answer = await call
        assert answer.status_code == 303
        world.clock.advance(ASKS_AFTER + 0.1)  # so that it asks before its next step
        two.pauses["first?"].open.set()
        result = await world.follow(answer)
        assert await other.aclose()
        steps = await world.steps(answer)
    assert result.status_code == 200
    assert (one.ran, two.ran) == (["first?"], ["first?", "second"])
    assert two.seen == {"first?": one.seen["first?"], "second": "two of second"}
    assert steps.keys() == {"first?", "second"}


async def test_a_lease_that_was_renewed_in_time_has_not_lapsed() -> None:
    handler = Handler("async", "one", "slow?", "two", naps=False)
    async with handler.world(checkpointing=SAFE, monotonic=VirtualClock.monotonic) as world:
        call = asyncio.ensure_future(world.client.post("/"))
        await handler.pauses["slow?"].until_reached()
        assert await world.provider.wait(SECONDS)
        for _ in range(5):
            world.clock.advance(LEASE - 1)
            await world.provider.runtime.renew_leases()
        handler.pauses["slow?"].open.set()
        assert (await call).status_code == 200
        assert world.reentries == []
    assert handler.ran == ["one", "slow?", "two"]
