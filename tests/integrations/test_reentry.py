"""Calls of the server: verified, or refused; never a new run."""

import asyncio
import json
import os
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Response
from flask import Flask
from msgspec.structs import replace
from starlette.requests import Request

import stephttp
from stephttp import step
from stephttp._client.api_calls import CheckpointRun
from stephttp._client.background import Job
from stephttp._client.flow import Answer
from stephttp._core.run import Run
from stephttp._run.reentry import Reentry
from stephttp._run.resumed_run import Resumed
from stephttp._wire.http import Body
from stephttp._wire.http import Request as Asked
from stephttp._wire.ids import random_ulid
from stephttp._wire.signatures import sign
from stephttp.sync import step as blocking
from tests.durable import KEY, Durable, durable

NAP = timedelta(minutes=1)


class App:
    """One durable endpoint that counts what it does."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.calls = 0
        self.bodies: list[str] = []
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

        @self.app.post("/")
        async def handler(request: Request) -> str:
            self.calls += 1
            await step.run("before", self.bodies.append, "before")
            await step.sleep("nap", NAP)
            self.entered.set()
            await self.gate.wait()
            await step.run("after", self.bodies.append, "after")
            return (await request.body()).decode()

    def build(self, provider: Any) -> Any:
        return provider.asgi(self.app)


async def until_due(world: Durable) -> httpx2.Response:
    """A run whose nap is over, while the engine cannot reach the application."""
    first = await world.client.post("/", content=b"body")
    world.to_app.down = True
    await world.turn()
    return first


def call(world: Durable, run_id: str, signature: str | None, body: bytes = b"body") -> Any:
    headers = {"x-run-id": run_id, "x-inngest-req-version": "2", "x-inngest-generation-id": "1"}
    if signature is not None:
        headers["x-inngest-signature"] = signature
    return world.client.post("/", content=body, headers=headers)


@pytest.mark.parametrize(
    "forge",
    [
        lambda now: None,
        lambda now: "",
        lambda now: "t=1&s=ab",
        lambda now: sign("cd" * 16, b"body", now),
        lambda now: sign(KEY, b"another body", now),
        lambda now: sign(KEY, b"body", now - 301),
        lambda now: sign(KEY, b"body", now + 301),
    ],
    ids=["absent", "empty", "garbage", "other key", "other body", "too old", "too early"],
)
async def test_a_signature_that_does_not_hold_is_a_401(forge: Any) -> None:
    app = App()
    async with durable(app.build, key=KEY) as world:
        first = await until_due(world)
        answer = await call(world, first.headers["x-run-id"], forge(int(world.clock.now())))
        assert answer.status_code == 401
        assert "x-inngest-signature" in answer.json()["error"]
        assert answer.headers["x-inngest-sdk"].startswith("stephttp-py:v")
        assert (app.calls, app.bodies) == (1, ["before"])
        assert len(world.to_engine.requests) == 1


async def test_the_right_signature_goes_on() -> None:
    """Of a server that signs nothing but bodies."""
    app = App()
    async with durable(app.build, key=KEY) as world:
        world.lacks("signed-calls")
        first = await until_due(world)
        now = int(world.clock.now())
        answer = await call(world, first.headers["x-run-id"], sign(KEY, b"body", now))
        assert (answer.status_code, answer.headers["x-inngest-req-version"]) == (206, "1")
        step, complete = answer.json()
        assert (step["name"], json.loads(complete["data"]["body"])) == ("after", "body")
        assert app.bodies == ["before", "after"]


@pytest.mark.parametrize("wsgi", [False, True])
async def test_development_beside_a_key_asks_the_server_what_it_is(wsgi: bool) -> None:
    """A server for development signs nothing; one of production does, and forged calls do not."""
    seen: list[str] = []
    app = Flask(__name__)

    @app.post("/")
    def flask() -> str:
        blocking.run("before", seen.append, "before")
        blocking.sleep("nap", NAP)
        blocking.run("after", seen.append, "after")
        return "body"

    def build(provider: Any) -> Any:
        return provider.wsgi(app) if wsgi else made.build(provider)

    made = App()
    made.bodies = seen
    async with durable(build, wsgi=wsgi, signing_key=KEY) as world:
        first = await world.client.post("/", content=b"body")
        assert (await world.follow(first)).status_code == 200
        assert seen == ["before", "after"]
    made = App()
    made.bodies = seen
    async with durable(build, wsgi=wsgi, key=KEY, dev=True) as world:
        world.lacks("signed-calls")
        first = await until_due(world)
        refused = await call(world, first.headers["x-run-id"], "t=1&s=" + "0" * 64)
        assert (refused.status_code, seen[2:]) == (401, ["before"])
        now = int(world.clock.now())
        answer = await call(world, first.headers["x-run-id"], sign(KEY, b"body", now))
        assert (answer.status_code, seen[2:]) == (206, ["before", "after"])


async def test_a_production_app_without_a_key_refuses_every_call() -> None:
    app = App()
    async with durable(app.build, key=KEY) as world:
        bare = Durable(app.build)
        provider = bare.provider
        provider.runtime.settings = replace(provider.settings, dev=False)
        provider.runtime.checkpoints = replace(
            provider.runtime.checkpoints, settings=provider.settings
        )
        answer = await call(bare, "0" * 26, "")
        assert answer.status_code == 401
        assert "INNGEST_SIGNING_KEY" in answer.json()["error"]
        assert app.calls == 0
        await bare.client.aclose()
        await bare.api.aclose()
        assert world.to_engine.requests == []


@pytest.mark.parametrize(
    ("run_id", "status", "message"),
    [
        ("01M81NT13NCCP5V7EQ9MPKSWMT", 404, "not known"),
        ("nonsense", 400, "not a ULID"),
    ],
)
async def test_an_unknown_run_is_refused(run_id: str, status: int, message: str) -> None:
    app = App()
    async with durable(app.build) as world:
        answer = await call(world, run_id, "")
        assert answer.status_code == status
        assert message in answer.json()["error"]
        assert app.calls == 0


async def test_with_the_engine_down_a_re_entry_is_a_503() -> None:
    app = App()
    async with durable(app.build) as world:
        first = await until_due(world)
        world.to_engine.down = True
        answer = await call(world, first.headers["x-run-id"], "")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert app.calls == 1


async def test_with_the_engine_down_a_request_that_must_wait_is_a_503() -> None:
    app = App()
    async with durable(app.build) as world:
        world.to_engine.down = True
        answer = await world.client.post("/", content=b"body")
        assert answer.status_code == 503
        assert app.bodies == ["before"]


async def test_with_the_engine_down_other_requests_are_answered_and_recorded_later() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler() -> int:
        return await step.run("a", lambda: 1)

    async with durable(lambda provider: provider.asgi(app)) as world:
        world.to_engine.down = True
        answer = await world.client.get("/")
        assert (answer.status_code, answer.json()) == (200, 1)
        world.to_engine.down = False
        assert await world.provider.wait()
        assert await world.status(answer) == "Completed"


async def test_steps_that_cannot_be_stored_are_a_503_and_the_run_goes_on_later() -> None:
    app = App()
    async with durable(app.build) as world:
        world.lacks("steps-with-result")
        app.gate.clear()
        first = await world.client.post("/", content=b"body")
        world.to_app.down = True
        await world.turn()
        reentry = asyncio.ensure_future(call(world, first.headers["x-run-id"], ""))
        await app.entered.wait()
        world.to_engine.down = True
        app.gate.set()
        assert (await reentry).status_code == 503
        world.to_engine.down = world.to_app.down = False
        assert (await world.follow(first)).json() == "body"


async def test_a_call_for_a_run_that_has_ended_does_nothing() -> None:
    app = App()
    async with durable(app.build) as world:
        first = await world.client.post("/", content=b"body")
        await world.follow(first)
        calls = app.calls
        answer = await call(world, first.headers["x-run-id"], "")
        assert (answer.status_code, [op["op"] for op in answer.json()]) == (206, ["None"])
        assert app.calls == calls


async def test_two_calls_for_one_run_take_turns() -> None:
    app = App()
    async with durable(app.build) as world:
        first = await until_due(world)
        app.gate.clear()
        both = [asyncio.ensure_future(call(world, first.headers["x-run-id"], "")) for _ in "ab"]
        await app.entered.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        assert app.calls == 2, "the second call waits for the first"
        app.gate.set()
        answers = await asyncio.gather(*both)
        assert [answer.status_code for answer in answers] == [206, 206]
        assert app.bodies == ["before", "after"], "it found the step remembered"


async def test_a_run_id_alone_does_not_make_a_request_a_re_entry() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler(request: Request) -> str:
        return request.headers["x-run-id"]

    async with durable(lambda provider: provider.asgi(app)) as world:
        answer = await world.client.get("/", headers={"x-run-id": "of another product"})
        assert answer.json() == "of another product"


async def test_a_call_with_too_large_a_body_is_refused() -> None:
    app = App()
    async with durable(app.build) as world:
        answer = await call(world, "01M81NT13NCCP5V7EQ9MPKSWMT", "", b"x" * (8 * 1024 * 1024 + 1))
        assert answer.status_code == 413
        assert app.calls == 0


async def test_a_response_that_is_too_large_ends_the_run_with_an_error() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler() -> Response:
        await step.sleep("nap", NAP)
        return Response(b"x" * (4 * 1024 * 1024 + 1))

    async with durable(lambda provider: provider.asgi(app)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.status_code == 500
        assert "4194305 bytes" in final.json()["error"]


@pytest.mark.parametrize("stored", [b'{"data":{"headers":3}}', b'{"data":"x"}'])
async def test_a_stored_request_that_cannot_be_read_is_a_400(stored: bytes) -> None:
    app = App()
    async with durable(app.build) as world:
        first = await until_due(world)

        def damage(connection: Any) -> None:
            connection.execute(
                "UPDATE steps SET memo = ? WHERE userland_id = 'stephttp:request'", (stored,)
            )

        await world.engine.store.write(damage)
        answer = await call(world, first.headers["x-run-id"], "")
        assert answer.status_code == 400
        assert app.calls == 1


def test_a_step_that_ends_while_a_flush_comes_to_its_end_is_stored_as_well() -> None:
    provider = stephttp.setup("https://api.test", signing_key=KEY)
    flows: list[Any] = []

    def by_hand(flow: Any, name: str) -> Job[None]:
        flows.append(flow)
        return Job(Future(), lambda: True, lambda: None)

    provider.runtime.background.start = by_hand  # type: ignore[method-assign,assignment]
    run = Run(random_ulid(provider.runtime.now_ns() // 1_000_000, os.urandom(16)), {})
    asked = Body(0)
    reentry = Reentry(
        provider.runtime, Asked("GET", "/", "", [(b"x-run-id", run.run_id.encode())]), asked
    )
    reentry.resumed = Resumed(run, CheckpointRun(run.run_id), True, True, 0)

    def end_step(step_id: str) -> None:
        run.complete(run.begin(step_id), b"1", 0, 0)
        reentry.flush_soon()

    reentry.flush_soon()
    assert flows == []  # nothing to send, so nobody is needed for it
    end_step("one")
    (flow,) = flows
    assert b'"one"' in next(flow).body
    end_step("two")
    assert b'"two"' in flow.send(Answer(200, {}, b"")).body
    with pytest.raises(StopIteration):
        flow.send(Answer(200, {}, b""))
    # The future that says so is set a moment later.
    end_step("three")
    assert b'"three"' in next(flows[1]).body


def orders(framework: str, *, route: bool, answer: int = 200) -> tuple[Any, bool]:
    """An application with the route of an order, or one of an older version, without it."""
    if framework == "flask":
        from flask import Flask

        flask = Flask(__name__)

        def order() -> Any:
            blocking.run("charge", lambda: "paid")
            blocking.sleep("pack", NAP)
            return "packed", answer

        if route:
            flask.get("/orders")(order)
        return lambda provider: provider.wsgi(flask), True
    api = FastAPI()

    async def order_async() -> Any:
        await step.run("charge", lambda: "paid")
        await step.sleep("pack", NAP)
        return Response("packed", answer)

    if route:
        api.get("/orders")(order_async)
    elif framework == "405":
        api.post("/orders")(order_async)
    return lambda provider: provider.asgi(api), False


@pytest.mark.parametrize("framework", ["fastapi", "405", "flask"])
async def test_an_instance_without_the_route_is_not_the_handler(
    framework: str, caplog: pytest.LogCaptureFixture
) -> None:
    build, wsgi = orders(framework, route=True)
    async with durable(build, wsgi=wsgi) as world:
        first = await world.client.get("/orders")
        new, old = world.to_app.app, orders(framework, route=False)[0](world.provider)
        world.to_app.app = old
        for _ in range(20):
            await world.turn()
        assert await world.status(first) == "Running"
        assert "came to none of its steps" in caplog.text
        caplog.clear()
        world.to_app.app = new
        result = await world.follow(first)
        assert (result.status_code, result.text) == (200, "packed")


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
async def test_a_404_of_the_handler_itself_is_its_answer(framework: str) -> None:
    build, wsgi = orders(framework, route=True, answer=404)
    async with durable(build, wsgi=wsgi) as world:
        result = await world.follow(await world.client.get("/orders"))
        assert (result.status_code, result.text) == (404, "packed")
        assert len(world.reentries) == 1


async def test_a_cancelled_run_begins_no_further_step(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    entered, cancelled, refused = asyncio.Event(), asyncio.Event(), asyncio.Event()
    api = FastAPI()

    async def body(name: str) -> None:
        if name == "one":
            entered.set()
            await cancelled.wait()
        done.append(name)

    @api.get("/")
    async def handler() -> None:
        await step.sleep("nap", NAP)
        await step.run("one", body, "one")
        await refused.wait()
        await step.run("two", body, "two")
        await step.run("three", body, "three")

    def stop(run: Run) -> None:
        original(run)
        refused.set()

    original = Run.stop
    monkeypatch.setattr(Run, "stop", stop)
    async with durable(lambda provider: provider.asgi(api)) as world:
        world.lacks("steps-with-result")  # each step is sent as soon as it has ended
        first = await world.client.get("/")
        world.clock.advance(NAP.total_seconds())
        await entered.wait()
        await world.api.delete(f"/v1/runs/{first.headers['x-run-id']}")
        cancelled.set()
        await world.engine.idle()
        assert done == ["one"]
        assert await world.status(first) == "Cancelled"
