"""What is asked of runs under WSGI: checkpoints, leases, keys, answers, records."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest

import stephttp
from stephttp import Checkpointing
from stephttp.provider import Provider
from stephttp.sync import step
from tests.durable import Durable, durable
from tests.integrations.test_checkpointing import delivered, known, names
from tests.integrations.test_idempotency import same

NAP = timedelta(minutes=1)
DEADLINE = 60.0
BODY = bytes(range(256)) * 40


class Gate:
    """Holds a step until it is let go, and tells when it got there."""

    def __init__(self, *, opened: bool = False) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        if opened:
            self.open.set()

    def __call__(self) -> str:
        self.reached.set()
        assert self.open.wait(DEADLINE)
        return "held"

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, DEADLINE)


class Work:
    """Four steps, the third of which can be held; counts executions."""

    def __init__(self, mode: Checkpointing | None = None, *, opened: bool = False) -> None:
        self.mode = mode
        self.gate = Gate(opened=opened)
        self.ran: list[str] = []
        self.dies = False
        """Whether the process ends after the gate, the first time."""

    def build(self, provider: Provider) -> Any:
        app = flask.Flask("work")

        @app.post("/work")
        def work() -> Any:
            if self.mode is not None:
                stephttp.configure(id="work", checkpointing=self.mode)
            body = flask.request.get_data(as_text=True)
            step.run("one", self.note, "one")
            step.run("two", self.note, "two")
            held = step.run("three", self.gate)
            if self.dies:
                self.dies = False
                raise SystemExit
            step.run("four", self.note, "four")
            return {"body": body, "held": held}, 201

        @app.post("/nap")
        def nap() -> str:
            stephttp.configure(checkpointing=self.mode)
            step.run("one", self.note, "one")
            step.run("gate", self.gate)
            step.sleep("nap", NAP)
            return flask.request.get_data(as_text=True)

        return provider.wsgi(app)

    def note(self, name: str) -> str:
        self.ran.append(name)
        return name


# --- checkpoints and leases -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        (Checkpointing.safe, ["one", "two"]),
        (Checkpointing(buffered_steps=2), ["one", "two"]),
        (Checkpointing(max_interval=timedelta(milliseconds=1)), ["one", "two"]),
        (Checkpointing.performant, None),
        (None, None),
    ],
)
async def test_modes_differ_in_what_the_engine_knows_meanwhile(
    mode: Checkpointing | None, seen: list[str] | None
) -> None:
    work = Work(mode)
    async with durable(work.build, wsgi=True) as world:
        call = asyncio.ensure_future(world.client.post("/work", content=b"hi"))
        await work.gate.wait()
        await delivered(world)
        if seen is None:
            assert await known(world) == []
            assert len(world.provider.runtime.leases) == 0
        else:
            while not (await known(world)) or await names(world) != seen:
                await delivered(world)
            assert len(world.provider.runtime.leases) == 1
        work.gate.open.set()
        answer = await call
        assert (answer.status_code, answer.json()["body"]) == (201, "hi")
        await delivered(world)
        assert await world.status(answer) == "Completed"
        assert len(world.provider.runtime.leases) == 0
        assert set(await world.steps(answer)) >= {"one", "two", "three", "four"}
    assert world.reentries == []


async def test_many_safe_runs_at_once_lose_nothing() -> None:
    work = Work(Checkpointing.safe, opened=True)
    async with durable(work.build, wsgi=True) as world:
        answers = await asyncio.gather(*(world.client.post("/work") for _ in range(40)))
        await delivered(world)
        assert {answer.status_code for answer in answers} == {201}
        for answer in answers:
            assert await world.status(answer) == "Completed"
            assert set(await world.steps(answer)) >= {"one", "two", "three", "four"}
        assert len(world.provider.runtime.leases) == 0


async def test_a_run_whose_process_ends_is_taken_over_and_no_finished_step_runs_again() -> None:
    work = Work(Checkpointing.safe)
    work.dies = True
    async with durable(work.build, wsgi=True) as world:
        call = asyncio.ensure_future(world.client.post("/work", content=b"hi"))
        await work.gate.wait()
        await delivered(world)
        work.gate.open.set()
        with pytest.raises(httpx2.ReadError):
            await call
        await delivered(world)
        assert len(world.provider.runtime.leases) == 0
        (run,) = await known(world)
        while (await known(world))[0]["status"] == "Running":
            world.clock.advance(30)
            await world.engine.idle()
        run = (await world.api.get(f"/v1/runs/{run['run_id']}")).json()["data"]
        assert run["status"] == "Completed"
        assert len(world.reentries) == 1
    assert work.ran == ["one", "two", "four"]


async def test_a_process_that_lost_its_run_does_no_harm_and_its_caller_gets_the_result() -> None:
    work = Work(replace(Checkpointing.safe, lease=timedelta(seconds=3)))
    async with durable(work.build, wsgi=True) as world:
        call = asyncio.ensure_future(world.client.post("/work"))
        await work.gate.wait()
        while not (await known(world)) or "two" not in await names(world):
            await delivered(world)
        first, work.gate = work.gate, Gate()  # the second process has a gate of its own
        taken_over = asyncio.ensure_future(work.gate.wait())
        while not taken_over.done():
            world.clock.advance(3)
            idle = asyncio.ensure_future(world.engine.idle())
            await asyncio.wait((idle, taken_over), return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
        await world.provider.runtime.renew_leases()
        first.open.set()  # the first one goes on after all
        answer = await call
        assert answer.status_code == 303
        assert work.ran == ["one", "two"], "it did not begin a further step"
        work.gate.open.set()
        assert (await world.follow(answer)).status_code == 201
    assert work.ran == ["one", "two", "four"]


async def test_a_safe_run_that_goes_async_takes_everything_with_it() -> None:
    work = Work(Checkpointing.safe, opened=True)
    async with durable(work.build, wsgi=True) as world:
        answer = await world.client.post("/nap", content=b"hi")
        assert (await world.follow(answer)).text == "hi"
        assert len(world.provider.runtime.leases) == 0
        await delivered(world)
    assert work.ran == ["one"]
    assert len(world.reentries) == 1


async def test_after_max_runtime_the_next_step_is_left_to_the_server() -> None:
    ran: list[str] = []
    world: Durable

    def tick(name: str) -> str:
        ran.append(name)
        world.clock.advance(4)
        return name

    def build(provider: Provider) -> Any:
        app = flask.Flask("long")

        @app.get("/")
        def long() -> list[str]:
            ran.append("call")
            stephttp.configure(max_runtime=timedelta(seconds=10))
            return [step.run(name, tick, name) for name in "abcdefgh"]

        return provider.wsgi(app)

    async with durable(build, wsgi=True) as world:
        answer = await world.client.get("/")
        assert (await world.follow(answer)).json() == list("abcdefgh")
        assert "".join(ran).split("call") == ["", "abc", "def", "gh"]
        assert len(world.reentries) == 2


async def test_nothing_is_lost_while_the_engine_is_away() -> None:
    work = Work(Checkpointing.safe, opened=True)
    async with durable(work.build, wsgi=True) as world:
        world.to_engine.down = True
        answer = await world.client.post("/work")
        assert answer.status_code == 201
        assert not await world.provider.wait(0)
        world.to_engine.down = False
        await delivered(world)
        assert await world.status(answer) == "Completed"


# --- idempotency keys -----------------------------------------------------------------------------


class Shop:
    """Charges cards, which must not happen twice."""

    def __init__(self) -> None:
        self.charged: list[str] = []
        self.gate = Gate()

    def charge(self, name: str) -> int:
        self.gate()
        self.charged.append(name)
        return len(self.charged)

    def build(self, provider: Provider) -> Any:
        app = flask.Flask("shop")

        @app.post("/header")
        def by_header() -> flask.Response:
            name = flask.request.get_data(as_text=True)
            number = step.run("charge", self.charge, name)
            answer = flask.Response(BODY + bytes([number]), 201, mimetype="image/png")
            answer.set_cookie("a", "1")
            answer.set_cookie("b", "2")
            return answer

        @app.post("/late")
        def late() -> str:
            stephttp.configure(idempotency=flask.request.args["key"])
            results = step.parallel(
                [lambda: step.run("charge", self.charge, "x"), lambda: step.run("two", str, 2)]
            )
            return f"{results} for {flask.request.get_data(as_text=True)}"

        @app.post("/nap")
        def nap() -> str:
            stephttp.configure(idempotency="nap")
            number = step.run("charge", self.charge, "nap")
            step.sleep("nap", NAP)
            return str(number)

        @app.post("/too-late")
        def too_late() -> flask.Response:
            def chunks() -> Any:
                stephttp.configure(idempotency="too-late")
                yield step.run("charge", self.charge, "x")

            return flask.Response(chunks(), mimetype="text/plain")

        return provider.wsgi(app)


async def post(world: Durable, body: bytes = b"me", key: str = "k") -> httpx2.Response:
    headers = {"idempotency-key": key, "authorization": "Bearer mine"}
    return await world.client.post("/header", content=body, headers=headers)


async def test_twenty_at_once_are_one_execution_and_twenty_equal_answers() -> None:
    shop = Shop()
    async with durable(shop.build, wsgi=True, idempotency_header="Idempotency-Key") as world:
        calls = [asyncio.ensure_future(post(world)) for _ in range(20)]
        await shop.gate.wait()
        shop.gate.open.set()
        first = same(await asyncio.gather(*calls))
        assert (first.status_code, first.content) == (201, BODY + b"\x01")
        assert first.headers.get_list("set-cookie") == ["a=1; Path=/", "b=2; Path=/"]
        same([first, await post(world)])
        assert (await post(world, b"another")).status_code == 422
        assert (await post(world, b"x" * 9_000_000, "large")).status_code == 413
        assert (await post(world, key="another")).content[-1] == 2
        await delivered(world)
        world.to_engine.down = True
        assert (await post(world, key="third")).status_code == 503
        world.to_engine.down = False
    assert shop.charged == ["me", "me"]


async def test_a_handler_may_give_the_key_itself() -> None:
    shop = Shop()
    async with durable(shop.build, wsgi=True) as world:
        calls = [
            asyncio.ensure_future(world.client.post("/late?key=k", content=b"me"))
            for _ in range(10)
        ]
        await shop.gate.wait()
        shop.gate.open.set()
        assert same(await asyncio.gather(*calls)).text == "(1, '2') for me"
        other = await world.client.post("/late?key=other", content=b"me")
        assert other.text == "(2, '2') for me"
        late = await world.client.post("/too-late")
        assert late.status_code == 500
        assert "comes too late" in late.text
    assert shop.charged == ["x", "x"]


async def test_a_run_with_a_key_may_wait() -> None:
    shop = Shop()
    shop.gate.open.set()
    async with durable(shop.build, wsgi=True) as world:
        first = await world.client.post("/nap")
        assert (await world.follow(first)).text == "1"
        assert (await world.client.post("/nap")).text == "1"
    assert shop.charged == ["nap"]


# --- what callers get, and what is recorded -------------------------------------------------------


def answering(
    kind: stephttp.AsyncResponse | None = None, nap: timedelta = NAP
) -> Callable[[Provider], Any]:
    def build(provider: Provider) -> Any:
        app = flask.Flask("answering")

        @app.post("/")
        @provider.endpoint(id="answering", async_response=kind)
        def handler() -> Any:
            step.run("one", str)
            step.sleep("nap", nap)
            return "done", 201

        return provider.wsgi(app)

    return build


def custom(request: stephttp.AsyncRequest) -> stephttp.Response:
    return stephttp.Response.of(202, f"{request.method} {request.run_id}", {"x-own": "1"})


async def custom_async(request: stephttp.AsyncRequest) -> stephttp.Response:
    await asyncio.sleep(0)
    return custom(request)


@pytest.mark.parametrize("function", [custom, custom_async])
async def test_the_response_that_says_so_may_be_the_users_own(function: Any) -> None:
    kind = stephttp.AsyncResponseCustom(function)
    async with durable(answering(kind), wsgi=True) as world:
        answer = await world.client.post("/")
        assert (answer.status_code, answer.headers["x-own"]) == (202, "1")
        assert answer.text == f"POST {answer.headers['x-run-id']}"


async def test_a_token_instead_of_a_redirect() -> None:
    async with durable(answering(stephttp.AsyncResponseToken()), wsgi=True) as world:
        answer = await world.client.post("/")
        assert answer.json()["run_id"] == answer.headers["x-run-id"]


async def test_what_a_caller_prefers_is_done() -> None:
    async with durable(answering(nap=timedelta(seconds=3)), wsgi=True) as world:
        later = await world.client.post("/", headers={"prefer": "respond-async"})
        assert (later.status_code, later.headers["preference-applied"]) == (202, "respond-async")
        assert later.headers["retry-after"]
        run = (await known(world))[0]
        assert run["run_id"] == later.headers["x-run-id"]
        result = asyncio.ensure_future(world.client.post("/", headers={"prefer": "wait=9"}))
        asked = world.to_engine.requests
        while not asked[-1].url.path.endswith("/output"):  # noqa: ASYNC110 - a thread asks
            await asyncio.sleep(0)
        await world.turn()
        answer = await result
        assert (answer.status_code, answer.text) == (201, "done")


async def test_bodies_are_left_out_of_the_record_where_that_is_asked_for() -> None:
    def build(provider: Provider) -> Any:
        app = flask.Flask("secret")

        @app.post("/<what>")
        def handler(what: str) -> Any:
            flask.request.get_data()
            if what == "both":
                stephttp.configure(omit_request_body=True, omit_response_body=True)
            step.run("one", str)
            if what == "late":
                stephttp.update_omit_response_body(True)
            return "secret answer"

        return provider.wsgi(app)

    async with durable(build, wsgi=True) as world:
        for what, asked, answered in [
            ("nothing", True, "secret answer"), ("both", False, ""), ("late", True, ""),
        ]:  # fmt: skip
            assert (await world.client.post(f"/{what}", content=b"q")).text == "secret answer"
            await delivered(world)
            sent = json.loads(world.to_engine.requests[-1].content)
            sent = sent[-1] if isinstance(sent, list) else sent
            assert (sent["event"]["data"].get("body") is not None) is asked
            assert sent["steps"][-1]["data"]["body"] == answered
