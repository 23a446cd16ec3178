"""A captured call of the engine is worth nothing for another run, path or step."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, Request

from stephttp import step
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import KEY, Durable, durable

NAP = timedelta(minutes=1)
VICTIM = {"authorization": "Bearer victim"}


class App:
    """Everyone's `/mine`, and what only the owner of an account may do."""

    wsgi = False

    def __init__(self) -> None:
        self.done: list[str] = []

    def build(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.api_route("/mine", methods=["GET", "POST"])
        async def mine() -> str:
            await step.sleep("nap", NAP)
            return await step.run("own", lambda: "mine")

        @app.api_route("/account/{what:path}", methods=["GET", "POST"])
        async def account(what: str, request: Request) -> str:
            await step.sleep("nap", NAP)
            who = request.headers["authorization"]
            self.done.append(f"{request.method} {what} {who}")
            return who

        return provider.asgi(app)


class BlockingApp(App):
    wsgi = True

    def build(self, provider: Provider) -> Any:
        app = flask.Flask("signed")

        @app.route("/mine", methods=["GET", "POST"])
        def mine() -> str:
            blocking.sleep("nap", NAP)
            return blocking.run("own", lambda: "mine")

        @app.route("/account/<path:what>", methods=["GET", "POST"])
        def account(what: str) -> str:
            blocking.sleep("nap", NAP)
            who = flask.request.headers["authorization"]
            self.done.append(f"{flask.request.method} {what} {who}")
            return who

        return provider.wsgi(app)


@pytest.fixture(params=[App, BlockingApp], ids=["asgi", "wsgi"])
def app(request: pytest.FixtureRequest) -> App:
    made: App = request.param()
    return made


def serve(app: App, **options: Any) -> Any:
    return durable(app.build, wsgi=app.wsgi, key=KEY, **options)


async def captured(world: Durable, method: str) -> httpx2.Request:
    """A call of a run of one's own, such as a caller with a proxy sees."""
    seen = len(world.reentries)
    await world.follow(await world.client.request(method, "/mine"))
    return world.reentries[seen]


async def waiting(world: Durable, method: str, path: str) -> str:
    """Somebody else's run, which waits. Its id is in its answer."""
    first = await world.client.request(method, path, headers=VICTIM)
    run_id: str = first.headers["x-run-id"]
    return run_id


def replay(world: Durable, call: httpx2.Request, path: str, **replaced: str | None) -> Any:
    headers = {name: value for name, value in call.headers.items() if name != "host"}
    changes = {name.replace("_", "-"): value for name, value in replaced.items()}
    kept = {**headers, **changes}
    return world.client.request(
        call.method,
        path,
        content=call.content,
        headers={name: value for name, value in kept.items() if value is not None},
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("restarted", [False, True], ids=["known engine", "restarted application"])
async def test_a_call_of_one_run_opens_no_other(app: App, method: str, restarted: bool) -> None:
    async with serve(app) as world:
        call = await captured(world, method)
        victim = await waiting(world, method, "/account/delete")
        if restarted:
            world.to_app.app = app.build(world.provide())
            world.client = httpx2.AsyncClient(
                transport=world.to_app.inner(), base_url=world.client.base_url
            )
        tries: list[dict[str, str | None]] = [
            {},
            {"x_stephttp_signature": None},
            {"x_stephttp_signature": ""},
            {"x_stephttp_signature": call.headers["x-inngest-signature"]},
            {"x_stephttp_signature": None, "x_stephttp_state": None},
            {"x_stephttp_signature": None, "x_stephttp_attempt": None},
        ]
        for replaced in tries:
            for path in ("/account/delete", "/account/other"):
                answer = await replay(world, call, path, x_run_id=victim, **replaced)
                assert answer.status_code == 401, replaced
                assert "signature" in answer.json()["error"]
        assert app.done == []


@pytest.mark.parametrize(
    "replaced",
    [
        {"x_stephttp_attempt": "7"},
        {"x_inngest_job_id": "another"},
        {"x_inngest_step_id": "a" * 40},
        {"x_inngest_force_step_plan": "true"},
        {"x_stephttp_failures": "a=9"},
        {"x_stephttp_features": "raw-response"},
        {"x_stephttp_new": "1"},
    ],
)
async def test_headers_that_steer_a_call_are_as_the_engine_sent_them(
    app: App, replaced: dict[str, str]
) -> None:
    async with serve(app) as world:
        await waiting(world, "POST", "/account/see")
        arrived, over = asyncio.Event(), asyncio.Event()

        async def hold(request: httpx2.Request) -> httpx2.Response:
            world.reentries.append(request)
            arrived.set()
            await over.wait()
            raise httpx2.ConnectError("refused", request=request)

        world.to_app.handle_async_request = hold
        turned = asyncio.ensure_future(world.turn())
        await arrived.wait()
        (call,) = world.reentries
        assert (await replay(world, call, "/account/see", **replaced)).status_code == 401
        assert (await replay(world, call, "/account/see?more=1")).status_code == 401
        assert app.done == []
        assert (await replay(world, call, "/account/see")).status_code == 206
        assert app.done == ["POST see Bearer victim"]
        over.set()
        await turned
        assert (await replay(world, call, "/account/see")).status_code == 206
        assert app.done == ["POST see Bearer victim"], "the engine waits for that call no more"


@pytest.mark.parametrize("path", ["/account/%7Ea/b%20c?x=%7E&y[]=1", "/account/ü?q={a}&r=a+b"])
async def test_paths_of_every_kind_are_signed_as_the_application_sees_them(
    app: App, path: str
) -> None:
    async with serve(app) as world:
        final = await world.follow(await world.client.get(path, headers=VICTIM))
        assert final.status_code == 200
        assert len(app.done) == 1


@pytest.mark.parametrize("size", [0, 20_000])
async def test_the_canonical_form_of_a_body_counts_where_a_server_signs_it(
    app: App, size: int
) -> None:
    from stephttp._wire.signatures import sign

    async with serve(app) as world:
        world.lacks("signed-calls")
        body = b'{ "b":2, "a":"' + b"x" * size + b'"}'
        first = await world.client.post("/account/see", content=body, headers=VICTIM)
        world.to_app.down = True
        await world.turn()
        canonical = b'{"a":"' + b"x" * size + b'","b":2}'
        signature = sign(KEY, canonical, int(world.clock.now()))
        headers = {"x-run-id": first.headers["x-run-id"], "x-inngest-signature": signature}
        answer = await world.client.post("/account/see", content=body, headers=headers)
        assert (answer.status_code, app.done) == (206, ["POST see Bearer victim"])


async def test_a_large_body_of_a_stranger_is_not_taken_apart(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stephttp._wire import signatures

    taken: list[int] = []

    def canonical(body: bytes) -> None:
        taken.append(len(body))

    monkeypatch.setattr(signatures, "canonical", canonical)
    async with serve(app) as world:
        now = int(world.clock.now())
        run_id = await waiting(world, "POST", "/account/see")

        async def forged(size: int, signature: str) -> int:
            headers = {"x-run-id": run_id, "x-inngest-signature": signature}
            body = b"[" + b"1," * (size // 2) + b"1]"
            answer = await world.client.post("/account/see", content=body, headers=headers)
            status: int = answer.status_code
            return status

        fresh = f"t={now}&s={'0' * 64}"
        for size, signature in [
            (8_000_000, fresh), (1000, ""), (1000, f"t={now - 400}&s={'0' * 64}"), (1000, "t=1"),
        ]:  # fmt: skip
            assert await forged(size, signature) == 401
        assert taken == []
        assert await forged(60_000, fresh) == 401
        assert taken == [60_003]
