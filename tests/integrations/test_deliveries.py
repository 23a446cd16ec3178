"""A re-entry that is delivered twice: what was acknowledged does not run again."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from functools import partial
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI

from stephttp import Checkpointing, step
from stephttp._run.reentry_guard import Deliveries
from stephttp._wire import stored_state
from stephttp._wire.http import Request
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import KEY, Durable, durable

NAP = timedelta(minutes=1)
KINDS = pytest.mark.parametrize("wsgi", [False, True])


class Shop:
    """Charges after a wait, then naps again."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def on_loop(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/")
        async def order() -> str:
            await step.sleep("nap", NAP)
            await step.run("charge", self.ran.append, "charge")
            await step.run("mail", self.ran.append, "mail")
            await step.sleep("long", 60 * NAP)
            return "done"

        return provider.asgi(app)

    def in_threads(self, provider: Provider) -> Any:
        app = flask.Flask("shop")

        @app.post("/")
        def order() -> str:
            blocking.sleep("nap", NAP)
            blocking.run("charge", self.ran.append, "charge")
            blocking.run("mail", self.ran.append, "mail")
            blocking.sleep("long", 60 * NAP)
            return "done"

        return provider.wsgi(app)

    def build(self, provider: Provider) -> Any:
        return (self.in_threads if self.wsgi else self.on_loop)(provider)

    wsgi = False


def selling(wsgi: bool, **options: Any) -> tuple[Shop, Any]:
    shop = Shop()
    shop.wsgi = wsgi
    return shop, durable(shop.build, wsgi=wsgi, **options)


async def deliver_again(world: Durable, call: httpx2.Request, app: Any = None) -> httpx2.Response:
    """What a balancer does that repeats a call: the same bytes once more."""
    late = world.to_app
    late.app, before = app or late.app, late.app
    try:
        copy = httpx2.Request(call.method, call.url, headers=call.headers, content=call.content)
        return await late.inner().handle_async_request(copy)
    finally:
        late.app = before


@KINDS
@pytest.mark.parametrize("key", ["", KEY], ids=["development", "key"])
@pytest.mark.parametrize("process", ["the same", "another"])
async def test_a_second_delivery_does_what_was_acknowledged_not_again(
    wsgi: bool, key: str, process: str
) -> None:
    shop, world_of = selling(wsgi, key=key)
    async with world_of as world:
        await world.provider.runtime.drive(world.provider.runtime.checkpoints.renew([], 1000))
        first = await world.client.post("/")
        await world.turn()
        assert shop.ran == ["charge", "mail"]
        (call,) = world.reentries
        assert stored_state.SIZE in call.headers, "the state came along"
        other = world.provide()
        again = await deliver_again(
            world, call, shop.build(other) if process == "another" else None
        )
        assert (again.status_code, shop.ran) == (206, ["charge", "mail"])
        assert await other.aclose()
        assert (await world.follow(first)).status_code == 200
    assert shop.ran == ["charge", "mail"]


@KINDS
async def test_a_worker_dies_after_its_report_and_the_same_call_reaches_another(wsgi: bool) -> None:
    """The engine still waits for the answer; a balancer has sent the call to a second worker."""
    shop, world_of = selling(wsgi, checkpointing=Checkpointing.safe)
    async with world_of as world:
        other = world.provide(checkpointing=Checkpointing.safe)
        one, two = world.to_app.app, shop.build(other)
        deliver = world.to_app.handle_async_request

        async def twice(request: httpx2.Request) -> httpx2.Response:
            await request.aread()
            world.to_app.handle_async_request = deliver
            await deliver_again(world, request, one)  # this answer is lost with its worker
            return await deliver_again(world, request, two)

        await world.provider.runtime.drive(world.provider.runtime.checkpoints.renew([], 1000))
        first = await world.client.post("/")
        world.to_app.handle_async_request = twice
        await world.turn()
        assert await other.aclose()
        assert (await world.follow(first)).status_code == 200
    assert shop.ran.count("charge") == 1


async def test_a_superseded_call_starts_no_further_step() -> None:
    """What is in front of the application gives up a call, and the engine sends another one, which
    reaches a second process while the first is still at its step."""
    ran: list[tuple[str, str]] = []
    doing = {name: (asyncio.Event(), asyncio.Event()) for name in ("one", "two")}

    def build(name: str, provider: Provider) -> Any:
        app = FastAPI()
        began, go_on = doing[name]

        async def slow() -> None:
            ran.append((name, "slow"))
            began.set()
            await go_on.wait()

        @app.post("/")
        async def order() -> str:
            await step.sleep("nap", NAP)
            await step.run("slow", slow)
            await step.run("after", ran.append, (name, "after"))
            return "done"

        return provider.asgi(app)

    async with durable(partial(build, "one"), checkpointing=Checkpointing.safe) as world:
        other = world.provide(checkpointing=Checkpointing.safe)
        one, two = world.to_app.inner(), httpx2.ASGITransport(build("two", other))
        given_up = list[asyncio.Task[httpx2.Response]]()
        reports = list[tuple[str, int]]()
        to_engine = world.to_engine.handle_async_request

        async def gateway(request: httpx2.Request) -> httpx2.Response:
            world.to_app.requests.append(request)
            if given_up:
                return await two.handle_async_request(request)
            given_up.append(asyncio.create_task(one.handle_async_request(request)))
            await doing["one"][0].wait()
            return httpx2.Response(504, text="<h1>Gateway Time-out</h1>")

        async def watched(request: httpx2.Request) -> httpx2.Response:
            response = await to_engine(request)
            if request.url.path.endswith("/steps"):
                reports.append(
                    (json.loads(request.content)["call"]["delivery"], response.status_code)
                )
            return response

        first = await world.client.post("/")
        world.to_app.handle_async_request = gateway  # type: ignore[method-assign]
        world.to_engine.handle_async_request = watched  # type: ignore[method-assign]
        world.clock.advance(60)
        await doing["one"][0].wait()
        await world.engine.idle()
        world.clock.advance(60)
        await doing["two"][0].wait()
        older, newer = (call.headers[stored_state.DELIVERY] for call in world.reentries)
        doing["one"][1].set()
        assert (await given_up[0]).status_code == 206
        assert set(reports) == {(older, 409)}
        assert ran == [("one", "slow"), ("two", "slow")]
        doing["two"][1].set()
        await world.engine.idle()
        assert await other.aclose()
        assert (await world.follow(first)).json() == "done"
        assert (newer, 409) not in reports
    assert ran == [("one", "slow"), ("two", "slow"), ("two", "after")]


@KINDS
async def test_steps_are_stored_by_themselves_once_an_answer_did_not_arrive(wsgi: bool) -> None:
    """`retries=0` and a gateway that has 502 for each answer: what ran does not run again, and the
    run ends with an error that says what happened."""
    shop, world_of = selling(wsgi)
    async with world_of as world:
        inner = world.to_app.handle_async_request

        async def gateway(request: httpx2.Request) -> httpx2.Response:
            await (await inner(request)).aread()
            return httpx2.Response(502, text="<h1>Bad Gateway</h1>")

        first = await world.client.post("/")
        world.to_app.handle_async_request = gateway
        answer = await world.follow(first)
        assert await world.status(first) == "Failed"
        counts = [call.headers.get(stored_state.UNANSWERED) for call in world.reentries]
    assert counts[:3] == [None, "1", "2"]
    assert len(counts) <= 8
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["name"] == "BrokenCallError"
    assert "in place of the SDK" in error["message"]
    # Once in the call whose answer was lost unannounced, and once for the record.
    assert [shop.ran.count(what) for what in ("charge", "mail")] == [2, 2]


def request_to(process: str, sent: int, job: str = "j") -> Request:
    headers = [
        (b"x-run-id", b"run"),
        (b"x-inngest-job-id", job.encode()),
        (b"x-stephttp-attempt", b"0"),
        (stored_state.RECEIVER.encode(), process.encode()),
        (stored_state.SENT.encode(), str(sent).encode()),
    ]
    return Request("POST", "/", "", headers)


def test_a_state_is_taken_once_by_the_process_that_it_is_for_and_while_it_is_fresh() -> None:
    now, deliveries = 1_000_000, Deliveries()
    mine = deliveries.process
    assert not deliveries.take(request_to("another", now), now)
    assert not deliveries.take(request_to(mine, now - 801), now)
    assert not deliveries.take(request_to(mine, now + 801), now)
    assert deliveries.take(request_to(mine, now), now)
    assert not deliveries.take(request_to(mine, now), now)
    again = request_to(mine, now)
    again.headers = [*again.headers, (b"x-inngest-step-id", b"")]
    assert not deliveries.take(again, now), "an empty header says what a missing one says"
    assert deliveries.take(request_to(mine, now, "other"), now)
    late = now + 60_000
    assert deliveries.take(request_to(mine, late, "third"), late), "the first ones are forgotten"
    assert not deliveries.take(request_to(mine, now), now), "the clock went back"
    assert not deliveries.take(Request("POST", "/", "", []), now)
