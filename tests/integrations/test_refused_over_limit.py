"""Endpoints that refuse requests over their limits: 429 with `Retry-After`, before the handler."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask

import stephttp
from stephttp import Concurrency, Provider, Throttle, UsageError, step
from stephttp.sync import step as blocking
from tests.durable import Durable, durable
from tests.realserver import RealServer
from tests.wsgi import WSGITransport

MINUTE = timedelta(minutes=1)
TABLES = ("run_gates", "turns", "runs")
KINDS = pytest.mark.parametrize("kind", ["fastapi", "fastapi-threads", "flask"])


class Desk:
    """An endpoint that answers at once, works until it is let go, or waits.

    Attributes:
        begun: the numbers of the requests whose handlers began.
        leave: lets those at work go.
    """

    def __init__(self, **limits: Any) -> None:
        self.limits = {"refuse_over_limit": True, **limits}
        self.begun: list[int] = []
        self.leave = threading.Event()

    def app(self, kind: str, provider: Provider) -> Any:
        endpoint = provider.endpoint(id="desk", **self.limits)
        if kind == "flask":
            flask = Flask("app")
            flask.config["PROPAGATE_EXCEPTIONS"] = True

            @flask.post("/<what>/<int:number>")
            @endpoint
            def on_flask(what: str, number: int) -> str:
                return str(self.block(what, number))

            return provider.wsgi(flask)
        app = FastAPI()
        if kind == "fastapi":

            @app.post("/{what}/{number}")
            @endpoint
            async def on_loop(what: str, number: int) -> int:
                self.begun.append(number)
                while what == "work" and not self.leave.is_set():  # noqa: ASYNC110 - of threads
                    await asyncio.sleep(0)
                if what == "wait":
                    await step.sleep("nap", MINUTE)
                if what == "fail":
                    raise ValueError("no")
                return number if what == "plain" else await step.run("desk", lambda: number)

        else:

            @app.post("/{what}/{number}")
            @endpoint
            def in_thread(what: str, number: int) -> int:
                return self.block(what, number)

        return provider.asgi(app)

    def block(self, what: str, number: int) -> int:
        self.begun.append(number)
        if what == "work":
            assert self.leave.wait(30)
        if what == "wait":
            blocking.sleep("nap", MINUTE)
        if what == "fail":
            raise ValueError("no")
        return number if what == "plain" else blocking.run("desk", lambda: number)


@asynccontextmanager
async def serving(desk: Desk, kind: str = "fastapi", **options: Any) -> AsyncGenerator[Durable]:
    wsgi = kind == "flask"
    async with durable(lambda provider: desk.app(kind, provider), wsgi=wsgi, **options) as world:
        yield world


async def stored(world: Durable) -> tuple[int, ...]:
    """Count the rows of gates that runs pass, of turns, and of runs."""

    def count(connection: Any) -> tuple[int, ...]:
        return tuple(
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES
        )

    rows: tuple[int, ...] = await world.engine.store.read(count)
    return rows


async def ask(world: Durable, what: str, number: int) -> httpx2.Response:
    return await world.client.post(f"/{what}/{number}")


def assert_refused(answer: httpx2.Response, seconds: int) -> None:
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == str(seconds)
    assert answer.json() == {
        "error": "this endpoint is at its limit; repeat the request after the seconds of "
        "Retry-After",
        "data": None,
        "status": 429,
    }


@KINDS
@pytest.mark.parametrize("what", ["step", "plain"])
async def test_a_throttle_says_when_the_next_request_may_come(kind: str, what: str) -> None:
    desk = Desk(throttle=Throttle(6, MINUTE))
    async with serving(desk, kind) as world:
        for number in range(6):
            assert (await ask(world, what, number)).text == str(number)
        assert_refused(await ask(world, what, 6), 10)
        assert await stored(world) == (0, 0, 6)
        world.clock.advance(8.5)
        assert_refused(await ask(world, what, 7), 2)
        world.clock.advance(1.5)
        assert (await ask(world, what, 8)).text == "8"
        assert_refused(await ask(world, what, 9), 10)
        assert desk.begun == [0, 1, 2, 3, 4, 5, 8]


@KINDS
async def test_requests_beyond_the_limit_of_calls_are_refused_while_others_work(kind: str) -> None:
    desk = Desk(concurrency=Concurrency(2))
    async with serving(desk, kind) as world:
        at_work = [asyncio.ensure_future(ask(world, "work", number)) for number in range(2)]
        while len(desk.begun) < 2:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        assert_refused(await ask(world, "step", 2), 1)
        desk.leave.set()
        assert sorted([(await one).text for one in at_work]) == ["0", "1"]
        assert (await ask(world, "step", 3)).text == "3"
        assert sorted(desk.begun) == [0, 1, 3]
        assert await stored(world) == (0, 0, 3)


@KINDS
async def test_one_request_after_another_finds_the_place_free(kind: str) -> None:
    desk = Desk(concurrency=Concurrency(1))
    async with serving(desk, kind) as world:
        for number in range(5):
            assert (await ask(world, "plain", number)).text == str(number)
            assert (await ask(world, "step", number)).text == str(number)
        assert await stored(world) == (0, 0, 10)


@KINDS
async def test_a_handler_that_fails_leaves_its_place(kind: str) -> None:
    desk = Desk(concurrency=Concurrency(1))
    async with serving(desk, kind) as world:
        for number in range(2):
            if kind == "flask":
                assert (await ask(world, "fail", number)).status_code == 500
            else:
                with pytest.raises(ValueError, match="no"):
                    await ask(world, "fail", number)
        runs = (await world.api.get("/v1/runs")).json()["data"]
        assert [run["status"] for run in runs] == ["Failed"] * 2
        assert await stored(world) == (0, 0, 2)


@KINDS
async def test_a_run_that_waits_leaves_its_place_and_takes_no_second_turn(kind: str) -> None:
    desk = Desk(concurrency=Concurrency(1), throttle=Throttle(2, MINUTE))
    async with serving(desk, kind) as world:
        waiting = await ask(world, "wait", 0)
        assert waiting.status_code == 303
        assert await stored(world) == (1, 1, 1)  # the throttle is passed
        assert (await ask(world, "step", 1)).text == "1"
        world.clock.advance(60)
        await world.engine.idle()
        assert (await world.follow(waiting)).text == "0"
        assert desk.begun == [0, 1, 0]
        assert (await ask(world, "step", 2)).text == "2"  # both turns are free again
        assert (await ask(world, "step", 3)).text == "3"
        assert_refused(await ask(world, "step", 4), 30)


async def test_calls_of_the_engine_count() -> None:
    desk = Desk(concurrency=Concurrency(1))
    async with serving(desk) as world:
        waiting = await ask(world, "wait", 0)
        world.engine.executor.gates.begin([await only_gate(world)])  # as a call under way does
        assert_refused(await ask(world, "step", 1), 1)
        world.engine.executor.gates.end([await only_gate(world)])
        assert (await ask(world, "step", 2)).text == "2"
        assert (await world.follow(waiting)).text == "0"


async def only_gate(world: Durable) -> str:
    (row,) = await world.engine.store.read(
        lambda connection: connection.execute("SELECT name FROM gates").fetchall()
    )
    return str(row[0])


async def test_both_logs_say_that_a_request_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    desk = Desk(throttle=Throttle(1, MINUTE))
    async with serving(desk) as world:
        assert (await ask(world, "step", 0)).text == "0"
        assert_refused(await ask(world, "step", 1), 60)
    assert "first call refused, its limits have no room" in caplog.text
    assert "a request is refused: the limits of desk have no room" in caplog.text


async def test_a_key_has_a_limit_of_its_own() -> None:
    desk = Desk(throttle=Throttle(1, MINUTE, key=lambda what, number: str(number)))
    async with serving(desk) as world:
        assert (await ask(world, "step", 1)).text == "1"
        assert (await ask(world, "step", 2)).text == "2"
        assert_refused(await ask(world, "step", 1), 60)


async def test_a_limit_holds_across_a_restart_of_the_engine(tmp_path: Path) -> None:
    desk = Desk(throttle=Throttle(1, MINUTE))
    async with serving(desk, path=tmp_path / "runs.db") as world:
        assert (await ask(world, "step", 0)).text == "0"
        await world.restart_engine()
        assert_refused(await ask(world, "step", 1), 60)
        world.clock.advance(60)
        assert (await ask(world, "step", 2)).text == "2"


async def test_a_process_that_dies_gives_up_its_place_with_its_lease() -> None:
    desk = Desk(concurrency=Concurrency(1))
    async with serving(desk) as world:
        dead = asyncio.ensure_future(ask(world, "work", 0))
        while not desk.begun:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        assert_refused(await ask(world, "step", 1), 1)
        other = Desk(concurrency=Concurrency(1))
        another = world.provide()
        world.to_app.app = other.app("fastapi", another)
        other.leave.set()
        for _ in range(2):  # the lease, and the respite after it
            world.clock.advance(61)
            await world.engine.idle()
        assert other.begun == [0]  # taken over
        transport = httpx2.ASGITransport(app=world.to_app.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
            assert (await client.post("/step/2")).text == "2"
        dead.cancel()
        await asyncio.gather(dead, return_exceptions=True)
        assert await another.aclose()


async def test_an_opening_whose_answer_is_lost_takes_one_turn_and_one_place() -> None:
    desk = Desk(concurrency=Concurrency(1), throttle=Throttle(2, MINUTE))
    async with serving(desk) as world:
        assert (await ask(world, "step", 0)).text == "0"
        send = world.to_engine.handle_async_request
        lost: list[httpx2.Request] = []

        async def losing(request: httpx2.Request) -> httpx2.Response:
            answer = await send(request)
            if b"within_limits" in request.content and not lost:
                lost.append(request)
                raise httpx2.ReadError("connection reset", request=request)
            return answer

        world.to_engine.handle_async_request = losing  # type: ignore[method-assign]
        assert (await ask(world, "step", 1)).text == "1"
        assert len(lost) == 1
        assert_refused(await ask(world, "step", 2), 30)
        assert await stored(world) == (0, 0, 2)


async def test_an_engine_that_gives_no_answer_lets_no_handler_begin() -> None:
    desk = Desk(concurrency=Concurrency(1))
    async with serving(desk) as world:
        for known in (False, True):
            world.to_engine.down = True
            answer = await ask(world, "step", 0)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert answer.json()["error"] == "the limits of this endpoint cannot be checked now"
            assert desk.begun == [1] * known
            world.to_engine.down = False
            if not known:
                assert (await ask(world, "step", 1)).text == "1"


@KINDS
async def test_another_server_is_refused_before_the_handler_begins(kind: str) -> None:
    desk = Desk(throttle=Throttle(1, MINUTE))
    server = RealServer(wsgi=kind == "flask")
    provider = server.provider()
    app = desk.app(kind, provider)
    transport = WSGITransport(app) if kind == "flask" else httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
        for _ in range(2):  # the server is asked what it is, and then known
            try:
                answer = await client.post("/step/1")
            except UsageError as error:
                why = str(error)
            else:
                assert answer.status_code == 500
                why = answer.text
            assert "throttle: only the stephttp engine keeps limits" in why
    assert desk.begun == []
    assert not server.runs
    await provider.aclose()


async def test_a_plain_handler_on_the_event_loop_is_refused() -> None:
    done: list[bool] = []

    def build(provider: Provider) -> Any:
        @provider.endpoint(id="desk", throttle=Throttle(1, MINUTE), refuse_over_limit=True)
        def handler(*, steps: bool) -> None:
            if steps:
                blocking.run("desk", lambda: done.append(True))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            handler(steps=scope["path"] == "/steps")

        return provider.asgi(app)

    async with durable(build) as world:
        for path in ("/steps", "/plain"):
            with pytest.raises(UsageError, match="on the event loop"):
                await world.client.get(path)
        assert done == []


async def test_an_idempotency_key_that_the_handler_gives_is_refused() -> None:
    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/")
        @provider.endpoint(concurrency=Concurrency(1), refuse_over_limit=True)
        async def handler() -> None:
            stephttp.configure(idempotency="order-1")

        return provider.asgi(app)

    async with durable(build) as world:
        with pytest.raises(UsageError, match="cannot have an idempotency key; leave one out"):
            await world.client.post("/")


async def test_a_step_before_the_endpoint_comes_too_early() -> None:
    begun: list[bool] = []

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @provider.endpoint(concurrency=Concurrency(1), refuse_over_limit=True)
        async def inner() -> None:
            begun.append(True)

        @app.post("/")
        async def outer() -> None:
            await step.run("early", lambda: None)
            await inner()

        return provider.asgi(app)

    async with durable(build) as world:
        with pytest.raises(UsageError, match="refuse_over_limit: the request has come to a step"):
            await world.client.post("/")
        assert begun == []


async def test_the_engine_refuses_openings_that_make_no_sense() -> None:
    async with serving(Desk(throttle=Throttle(1, MINUTE))) as world:
        data = {"domain": "http://app.test", "method": "GET", "path": "/step/1"}
        body: dict[str, Any] = {
            "run_id": "01KB0000000000000000000000",
            "event": {"data": data},
            "within_limits": True,
        }
        limits = {"concurrency": [{"limit": 1}]}
        claim = {"scope": "s", "key": "k", "request": "r"}
        for more, why in (
            ({"lease": 60_000}, "limits: within_limits needs them"),
            ({"limits": limits}, "lease: within_limits needs one"),
            ({"limits": limits, "lease": 60_000, "claim": claim}, "claim: a run cannot be opened"),
        ):
            answer = await world.api.post("/v1/checkpoint", json={**body, **more})
            assert answer.status_code == 400
            assert answer.json()["error"].startswith(why)
        whole = {**body, "limits": limits, "lease": 60_000}
        answer = await world.api.post("/v1/checkpoint/batch", json=[whole])
        assert "within_limits: not possible in a batch" in answer.text
        assert await stored(world) == (0, 0, 0)


async def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "concurrency.md").read_text()
    *_, example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    setup = 'stephttp.setup("https://api.example.com")'
    assert example.count(setup) == 1

    def build(provider: Provider) -> Any:
        names: dict[str, Any] = {"given": provider}
        exec(example.replace(setup, "given"), names)
        return names["app"]

    async with durable(build) as world:
        for number in range(6):
            answer = await world.client.post(f"/reports/{number % 2}")
            assert answer.json() == f"the report of {number % 2}"
        for _ in range(3):
            assert (await world.client.post("/reports/1")).status_code == 200
        assert_refused(await world.client.post("/reports/1"), 10)
