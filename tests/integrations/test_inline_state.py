"""A re-entry that contains the state of its run: one request a wake-up, and nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, Request

import stephttp
from stephttp import step
from stephttp._wire import stored_state
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import KEY, Durable, durable

NAP = timedelta(minutes=1)
FORGED = b'{"forged":{"data":1}}'


class App:
    """A step, a sleep, a step; counts what is run, and shows the request that the handler saw."""

    wsgi = False

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    def build(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.api_route("/", methods=["POST", "GET"])
        async def handler(request: Request) -> dict[str, Any]:
            stephttp.configure(omit_request_body="hide" in request.query_params)
            await step.run("before", self.ran.append, "before")
            await step.sleep("nap", NAP)
            self.entered.set()
            await self.gate.wait()
            await step.run("after", self.ran.append, "after")
            body = (await request.body()).decode()
            return {"body": body, "length": request.headers.get("content-length")}

        return provider.asgi(app)


class BlockingApp(App):
    wsgi = True

    def build(self, provider: Provider) -> Any:
        app = flask.Flask("inline")

        @app.route("/", methods=["POST", "GET"])
        def handler() -> dict[str, Any]:
            stephttp.configure(omit_request_body="hide" in flask.request.args)
            blocking.run("before", self.ran.append, "before")
            blocking.sleep("nap", NAP)
            blocking.run("after", self.ran.append, "after")
            body = flask.request.get_data(as_text=True)
            return {"body": body, "length": flask.request.headers.get("content-length")}

        return provider.wsgi(app)


@pytest.fixture(params=[App, BlockingApp], ids=["asgi", "wsgi"])
def make(request: pytest.FixtureRequest) -> Callable[[], App]:
    kind: Callable[[], App] = request.param
    return kind


def serve(app: App, **options: Any) -> Any:
    return durable(app.build, wsgi=app.wsgi, **options)


async def met(world: Durable) -> None:
    """Let the application hear of the engine, whose extras it uses from then on."""
    await world.provider.runtime.drive(world.provider.runtime.checkpoints.renew([], 1000))
    world.to_engine.requests.clear()


def asked(world: Durable) -> list[str]:
    """What the application asked the engine for."""
    return [request.url.path.rpartition("/")[2] for request in world.to_engine.requests]


@pytest.mark.parametrize("key", ["", KEY], ids=["development", "key"])
@pytest.mark.parametrize("query", ["", "?hide"])
@pytest.mark.parametrize("body", [b"", b'{"a": 1}', b"\xc3\xa9" * 1000])
async def test_a_wake_up_asks_for_no_state(
    make: Callable[[], App], key: str, query: str, body: bytes
) -> None:
    app = make()
    async with serve(app, key=key) as world:
        await met(world)
        first = await world.client.post("/" + query, content=body)
        final = await world.follow(first)
        assert final.json() == {"body": body.decode(), "length": str(len(body))}
        assert app.ran == ["before", "after"]
        assert "actions" not in asked(world)
        (call,) = world.reentries
        assert int(call.headers[stored_state.SIZE]) > 0


async def test_a_get_asks_for_it_as_ever(make: Callable[[], App]) -> None:
    app = make()
    async with serve(app) as world:
        await met(world)
        final = await world.follow(await world.client.get("/"))
        assert final.json()["body"] == ""
        assert "actions" in asked(world)
        assert app.ran == ["before", "after"]


async def test_an_application_asks_what_its_engine_is_before_its_first_run_waits() -> None:
    app = App()
    async with serve(app) as world:
        await world.follow(await world.client.post("/", content=b"x"))
        (call,) = world.reentries
        assert call.content.startswith(b"x{"), "the state comes along"


class Without(httpx2.AsyncBaseTransport):
    """A proxy, or an older application, that makes nothing of some of what comes."""

    def __init__(self, world: Durable, change: Callable[[httpx2.Request], httpx2.Request]) -> None:
        self.inner = world.to_app.inner()
        self.change = change
        self.answers: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self.inner.handle_async_request(self.change(request))
        self.answers.append(response.status_code)
        return response


def without_headers(request: httpx2.Request) -> httpx2.Request:
    headers = [(k, v) for k, v in request.headers.raw if not k.lower().startswith(b"x-stephttp-s")]
    return httpx2.Request(request.method, request.url, headers=headers, content=request.content)


def without_body(request: httpx2.Request) -> httpx2.Request:
    headers = [(k, v) for k, v in request.headers.raw if k.lower() != b"content-length"]
    return httpx2.Request(request.method, request.url, headers=headers)


async def test_a_proxy_that_drops_the_signature_is_named_and_the_run_waits_for_a_better_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    async with serve(app, key=KEY) as world:
        await met(world)
        first = await world.client.post("/", content=b"body")
        proxy, straight = Without(world, without_headers), world.to_app.inner
        monkeypatch.setattr(world.to_app, "inner", lambda: proxy)
        await world.turn()
        await world.turn()
        assert proxy.answers == [401, 401]  # the second call brings no state along
        run = (await world.api.get(f"/v1/runs/{first.headers['x-run-id']}")).json()["data"]
        assert (run["status"], app.ran) == ("Running", ["before"])
        assert "must pass on headers that start with x-stephttp-" in run["last_error"]
        monkeypatch.setattr(world.to_app, "inner", straight)
        assert (await world.follow(first)).json()["body"] == "body"
        assert app.ran == ["before", "after"]


async def test_where_the_body_got_lost_the_state_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App()
    async with serve(app, key=KEY) as world:
        await met(world)
        first = await world.client.post("/", content=b"")
        proxy = Without(world, without_body)
        monkeypatch.setattr(world.to_app, "inner", lambda: proxy)
        await world.follow(first)
        # The first call is not the one that was signed; the second one brings no state along.
        assert (proxy.answers, "actions" in asked(world)) == ([401, 206], True)
        assert app.ran == ["before", "after"]


async def until_called(world: Durable) -> httpx2.Request:
    """The call that the engine would make, without making it."""
    world.to_app.down = True
    await world.turn()
    world.to_app.down = False
    call = world.reentries[-1]
    assert stored_state.SIZE in call.headers
    return call


def again(world: Durable, call: httpx2.Request, content: bytes, **replaced: str) -> Any:
    headers = {name: value for name, value in call.headers.items() if name != "content-length"}
    headers |= {name.replace("_", "-"): value for name, value in replaced.items()}
    return world.client.post("/", content=content, headers=headers)


@pytest.mark.parametrize(
    ("content", "size", "signature"),
    [
        (b"body" + FORGED, len(FORGED), None),
        (b"body" + FORGED, len(FORGED), "t=1&s=" + "a" * 64),
        (b"body", 4, None),
        (FORGED, len(FORGED), None),
        (b"", 0, None),
    ],
)
async def test_a_state_from_anybody_else_is_refused(
    make: Callable[[], App], content: bytes, size: int, signature: str | None
) -> None:
    app = make()
    async with serve(app, key=KEY) as world:
        await met(world)
        await world.client.post("/", content=b"body")
        call = await until_called(world)
        world.to_engine.requests.clear()
        more = {} if signature is None else {"x_stephttp_signature": signature}
        answer = await again(world, call, content, x_stephttp_state=str(size), **more)
        assert answer.status_code == 401
        assert "x-stephttp-signature: wrong" in answer.json()["error"]
        assert (app.ran, asked(world)) == (["before"], [])


async def test_the_state_of_one_run_is_not_that_of_another() -> None:
    app = App()
    async with serve(app, key=KEY) as world:
        await met(world)
        await world.client.post("/", content=b"body")
        call = await until_called(world)
        other = await world.client.post("/", content=b"body")
        run_id = other.headers["x-run-id"]
        assert (await again(world, call, call.content, x_run_id=run_id)).status_code == 401
        assert app.ran == ["before", "before"]


async def test_the_same_call_as_it_was_is_taken() -> None:
    app = App()
    async with serve(app, key=KEY) as world:
        await met(world)
        await world.client.post("/", content=b"body")
        call = await until_called(world)
        assert (await again(world, call, call.content)).status_code == 206
        assert app.ran == ["before", "after"]


async def test_a_request_from_outside_is_left_alone() -> None:
    async with serve(App()) as world:
        size = {stored_state.SIZE: "4"}
        first = await world.client.post("/", content=b"body", headers=size)
        assert (await world.follow(first)).json()["body"] == "body"


async def test_only_the_body_of_the_request_counts_for_its_limit() -> None:
    app = App()
    async with serve(app, max_body_bytes=10) as world:
        await met(world)
        final = await world.follow(await world.client.post("/", content=b"x" * 10))
        assert final.json()["length"] == "10"
        call = world.reentries[0]
        assert len(call.content) > 10
        state = call.content[10:]
        assert (await again(world, call, b"x" * 11 + state)).status_code == 413
        huge = str(stored_state.LARGEST + 1)
        assert (await again(world, call, b"x" * 11, x_stephttp_state=huge)).status_code == 413


async def test_who_waits_for_another_call_of_the_run_asks_for_what_that_stored() -> None:
    app = App()
    async with serve(app, key=KEY) as world:
        await met(world)
        await world.client.post("/", content=b"body")
        call = await until_called(world)
        app.gate.clear()
        both = [asyncio.ensure_future(again(world, call, call.content)) for _ in "ab"]
        await app.entered.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        app.gate.set()
        answers = await asyncio.gather(*both)
        assert [answer.status_code for answer in answers] == [206, 206]
        assert app.ran == ["before", "after"], "the second found the step remembered"


async def test_a_run_that_was_rerun_with_another_input_is_told_of_it() -> None:
    ran: list[int] = []

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/")
        async def handler() -> int:
            await step.sleep("nap", NAP)
            return await step.run("add", add, 1)

        return provider.asgi(app)

    def add(number: int) -> int:
        ran.append(number)
        return number + 1

    async with durable(build) as world:
        await met(world)
        first = await world.client.post("/")
        assert (await world.follow(first)).json() == 2
        steps = await world.steps(first)
        edit = {"step_id": steps["add"]["step_id"], "input": [41]}
        path = f"/v1/stephttp/runs/{first.headers['x-run-id']}/rerun"
        world.to_engine.requests.clear()
        made = (await world.api.post(path, json=edit)).json()["data"]["run_id"]
        await world.engine.idle()
        assert (await world.api.get(f"/v1/runs/{made}")).json()["data"]["status"] == "Completed"
        assert ran == [1, 41]
        assert "actions" not in asked(world)
