"""Checkpointing modes, leases and `max_runtime`, with a real engine and against a plain server."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import httpx2
import msgspec
import pytest
from fastapi import FastAPI, Request

import stephttp
from stephttp import Checkpointing, step
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import APP, ENGINE, Durable, durable


class Gate:
    """Holds a step until it is let go, and tells when it got there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> str:
        self.reached.set()
        await self.open.wait()
        return "held"


class Work:
    """Four steps, the third of which can be held; counts executions."""

    def __init__(self, mode: Checkpointing | None = None) -> None:
        self.mode = mode
        self.gate = Gate()
        self.ran: list[str] = []

    def build(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/work", status_code=201)
        async def work(request: Request) -> dict[str, Any]:
            if self.mode is not None:
                stephttp.configure(id="work", checkpointing=self.mode)
            body = (await request.body()).decode()
            await step.run("one", self.note, "one")
            await step.run("two", self.note, "two")
            held = await step.run("three", self.gate)
            await step.run("four", self.note, "four")
            return {"body": body, "held": held}

        return provider.asgi(app)

    def note(self, name: str) -> str:
        self.ran.append(name)
        return name


async def known(world: Durable) -> list[dict[str, Any]]:
    return list((await world.api.get("/v1/runs")).json()["data"])


async def names(world: Durable) -> list[str]:
    """Finished steps that the engine knows of the newest run."""
    run_id = (await known(world))[0]["run_id"]
    steps = (await world.api.get(f"/v1/runs/{run_id}/steps")).json()["data"]
    return [one["name"] for one in steps if one["status"] == "Completed"]


async def delivered(world: Durable) -> None:
    assert await world.provider.wait(10)


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        (Checkpointing.safe, ["one", "two"]),
        (Checkpointing(buffered_steps=2), ["one", "two"]),
        (Checkpointing.blended, None),
        (Checkpointing.performant, None),
        (None, None),
    ],
)
async def test_modes_differ_in_what_the_engine_knows_meanwhile(
    mode: Checkpointing | None, seen: list[str] | None
) -> None:
    work = Work(mode)
    async with durable(work.build) as world:
        call = asyncio.ensure_future(world.client.post("/work", content=b"hi"))
        await work.gate.reached.wait()
        await delivered(world)
        if seen is None:
            assert await known(world) == []
            assert len(world.provider.runtime.leases) == 0
        else:
            assert await names(world) == seen
            assert len(world.provider.runtime.leases) == 1
        work.gate.open.set()
        answer = await call
        assert (answer.status_code, answer.json()["body"]) == (201, "hi")
        await delivered(world)
        assert await world.status(answer) == "Completed"
        assert len(world.provider.runtime.leases) == 0
        assert set(await world.steps(answer)) >= {"one", "two", "three", "four"}
    assert world.reentries == []


async def test_a_quick_safe_run_is_one_checkpoint_once_the_engine_is_known() -> None:
    work = Work(Checkpointing.safe)
    work.gate.open.set()
    async with durable(work.build) as world:
        await world.client.post("/work")
        await delivered(world)
        world.to_engine.requests.clear()
        answer = await world.client.post("/work")
        await delivered(world)
        (request,) = world.to_engine.requests
        (item,) = [json.loads(request.content)]
        assert item["run_id"] == answer.headers["x-run-id"]
        assert "lease" not in item
        assert [op["op"] for op in item["steps"]] == ["StepRun"] * 4 + ["RunComplete"]


async def test_an_interval_sends_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[tuple[float, Callable[[], None]]] = []

    class Handle:
        def cancel(self) -> None:
            later.clear()

    def call_later(seconds: float, call: Callable[[], None]) -> Handle:
        later.append((seconds, call))
        return Handle()

    work = Work(Checkpointing.blended)
    async with durable(work.build) as world:
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
        call = asyncio.ensure_future(world.client.post("/work"))
        await work.gate.reached.wait()
        monkeypatch.undo()
        ((seconds, now),) = later
        assert seconds == 2
        now()
        await delivered(world)
        assert await names(world) == ["one", "two"]
        work.gate.open.set()
        assert (await call).status_code == 201


async def test_a_run_whose_process_died_is_taken_over_and_no_finished_step_runs_again() -> None:
    work = Work(Checkpointing.safe)
    async with durable(work.build) as world:
        call = asyncio.ensure_future(world.client.post("/work", content=b"hi"))
        await work.gate.reached.wait()
        await delivered(world)
        call.cancel()  # the closest that a task comes to a dead process
        await asyncio.gather(call, return_exceptions=True)
        assert len(world.provider.runtime.leases) == 0
        (run,) = await known(world)
        work.gate.open.set()
        world.clock.advance(30)
        await world.engine.idle()
        world.clock.advance(1)
        await world.engine.idle()
        run = (await world.api.get(f"/v1/runs/{run['run_id']}")).json()["data"]
        assert run["status"] == "Completed"
        assert len(world.reentries) == 1
    assert work.ran == ["one", "two", "four"]


async def test_a_first_run_whose_process_died_before_it_heard_of_the_engine_ends() -> None:
    work = Work(Checkpointing.safe)
    async with durable(work.build) as world:
        arrived, send = asyncio.Event(), world.to_engine.handle_async_request

        async def lossy(request: httpx2.Request) -> httpx2.Response:
            if arrived.is_set():
                raise httpx2.ConnectError("connection refused", request=request)
            await send(request)
            arrived.set()
            raise httpx2.ReadError("connection reset", request=request)

        world.to_engine.handle_async_request = lossy  # type: ignore[method-assign]
        call = asyncio.ensure_future(world.client.post("/work"))
        await work.gate.reached.wait()
        await arrived.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        world.to_engine.handle_async_request = send  # type: ignore[method-assign]
        (run,) = await known(world)
        assert run["status"] == "Running"
        work.gate.open.set()
        for seconds in (30, 1):
            world.clock.advance(seconds)
            await world.engine.idle()
        run = (await world.api.get(f"/v1/runs/{run['run_id']}")).json()["data"]
        assert run["status"] == "Completed"


async def test_an_engine_that_restarts_each_half_minute_takes_over_the_runs_of_the_dead(
    tmp_path: Path,
) -> None:
    work = Work(Checkpointing.safe)
    async with durable(work.build, path=tmp_path / "runs.db") as world:
        call = asyncio.ensure_future(world.client.post("/work"))
        await work.gate.reached.wait()
        await delivered(world)
        for _ in range(6):  # a process that lives keeps its run
            await world.restart_engine()
            world.clock.advance(29)
            await world.engine.idle()
            await world.provider.runtime.renew_leases()
        assert world.reentries == []
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        work.gate.open.set()
        restarts = 0
        while not world.reentries:
            restarts += 1
            assert restarts < 5, "it is never taken over"
            await world.restart_engine()
            world.clock.advance(29)
            await world.engine.idle()
            world.clock.advance(1)
            await world.engine.idle()
        (run,) = await known(world)
        assert run["status"] == "Completed"


async def test_a_living_process_keeps_its_run() -> None:
    work = Work(replace(Checkpointing.safe, lease=timedelta(seconds=3)))
    async with durable(work.build) as world:
        call = asyncio.ensure_future(world.client.post("/work"))
        await work.gate.reached.wait()
        await delivered(world)
        for _ in range(100):
            await world.provider.runtime.renew_leases()
            world.clock.advance(1)
            await world.engine.idle()
        assert world.reentries == []
        work.gate.open.set()
        assert (await call).status_code == 201


async def test_a_process_that_lost_its_run_does_no_harm_and_its_caller_gets_the_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work(replace(Checkpointing.safe, lease=timedelta(seconds=3)))
    async with durable(work.build) as world:
        call = asyncio.ensure_future(world.client.post("/work"))
        await work.gate.reached.wait()
        await delivered(world)
        first, work.gate = work.gate, Gate()  # the second process has a gate of its own
        world.clock.advance(3)
        await world.engine.idle()
        world.clock.advance(1)
        await work.gate.reached.wait()  # taken over
        await world.provider.runtime.renew_leases()
        assert "was taken over" in caplog.text
        assert len(world.provider.runtime.leases) == 0
        first.open.set()  # the first one goes on after all
        answer = await call
        assert answer.status_code == 303
        assert work.ran == ["one", "two"], "it did not begin a further step"
        work.gate.open.set()
        assert (await world.follow(answer)).status_code == 201
    assert work.ran == ["one", "two", "four"]


async def test_a_safe_run_that_goes_async_takes_everything_with_it() -> None:
    gate = Gate()
    ran: list[str] = []

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/nap")
        async def nap(request: Request) -> str:
            stephttp.configure(checkpointing=Checkpointing.safe)
            body = (await request.body()).decode()
            await step.run("one", ran.append, "one")
            await step.run("gate", gate)
            await step.run("two", ran.append, "two")
            await step.sleep("nap", timedelta(minutes=1))
            return body + request.headers["user-agent"]

        return provider.asgi(app)

    async with durable(build) as world:
        call = asyncio.ensure_future(
            world.client.post("/nap", content=b"hi ", headers={"user-agent": "me"})
        )
        await gate.reached.wait()
        await delivered(world)
        gate.open.set()
        answer = await call
        assert (await world.follow(answer)).json() == "hi me"
        assert len(world.provider.runtime.leases) == 0
        await delivered(world)
    assert ran == ["one", "two"]
    assert len(world.reentries) == 1


async def test_nothing_of_a_safe_run_is_lost_while_the_engine_is_away() -> None:
    work = Work(Checkpointing.safe)
    async with durable(work.build) as world:
        world.to_engine.down = True
        call = asyncio.ensure_future(world.client.post("/work"))
        await work.gate.reached.wait()
        work.gate.open.set()
        answer = await call
        assert answer.status_code == 201
        assert not await world.provider.wait(0)
        world.to_engine.down = False
        await delivered(world)
        assert await world.status(answer) == "Completed"
        assert set(await world.steps(answer)) >= {"one", "two", "three", "four"}


def test_a_request_cannot_have_a_limit_of_no_time() -> None:
    with pytest.raises(stephttp.ConfigurationError, match="max_runtime"):
        stephttp.configure(max_runtime=timedelta(0))


# --- max_runtime


def ticking(world: Durable, ran: list[str]) -> Callable[[str], str]:
    def tick(name: str) -> str:
        ran.append(name)
        world.clock.advance(4)
        return name

    return tick


@pytest.mark.parametrize("plain", [False, True])
async def test_after_max_runtime_the_next_step_is_left_to_the_server(plain: bool) -> None:
    ran: list[str] = []
    world: Durable

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/async")
        async def long() -> list[str]:
            stephttp.configure(max_runtime=timedelta(seconds=10))
            return [await step.run(name, ticking(world, ran), name) for name in "abcdefgh"]

        @app.get("/plain")
        def long_blocking() -> list[str]:
            stephttp.configure(max_runtime=timedelta(seconds=10))
            return [blocking.run(name, ticking(world, ran), name) for name in "abcdefgh"]

        return provider.asgi(app)

    async with durable(build) as made:
        world = made
        answer = await world.client.get("/plain" if plain else "/async")
        assert ran == ["a", "b", "c"]
        final = await world.follow(answer)
        assert final.json() == list("abcdefgh")
        assert ran == list("abcdefgh")
        assert len(world.reentries) == 2  # three steps each time, then the last two


async def test_max_runtime_of_the_provider_holds_and_a_handler_without_progress_goes_on() -> None:
    ran: list[str] = []
    world: Durable

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/")
        async def slow() -> list[str]:
            world.clock.advance(60)  # before any step, in each call
            return [await step.run(name, ticking(world, ran), name) for name in "ab"]

        return provider.asgi(app)

    async with durable(build) as world:
        mode = Checkpointing(max_runtime=timedelta(seconds=10))
        world.provider.runtime.settings = msgspec.structs.replace(
            world.provider.settings, checkpointing=mode
        )
        answer = await world.client.get("/")
        assert ran == []
        assert (await world.follow(answer)).json() == ["a", "b"]
        assert ran == ["a", "b"]


async def test_after_max_runtime_parallel_steps_go_on_beside_a_sleep() -> None:
    ran: list[str] = []
    world: Durable

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/")
        async def both() -> list[str]:
            stephttp.configure(max_runtime=timedelta(seconds=3))

            async def chain() -> None:
                for name in "abc":
                    await step.run(name, ticking(world, ran), name)

            await asyncio.gather(step.sleep("wait", timedelta(minutes=4)), chain())
            return ran

        return provider.asgi(app)

    async with durable(build) as world:
        answer = await world.client.get("/")
        began = world.clock.now_ms()
        while len(ran) < 3:
            await world.turn()
        assert world.clock.now_ms() - began < 60_000, "the chain did not wait for the sleep"
        assert (await world.follow(answer)).json() == ["a", "b", "c"]


async def test_max_runtime_after_the_response_has_begun_changes_nothing() -> None:
    ran: list[str] = []
    world: Durable

    def build(provider: Provider) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            stephttp.configure(max_runtime=timedelta(seconds=1))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for name in "ab":
                await step.run(name, ticking(world, ran), name)
            await send({"type": "http.response.body", "body": b"done"})

        return provider.asgi(app)

    async with durable(build) as world:
        answer = await world.client.get("/")
        assert (answer.status_code, answer.text, ran) == (200, "done", ["a", "b"])


# --- a plain Inngest server


class Plain:
    """Answers as the real server does, and announces nothing."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.held: asyncio.Event | None = None

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        body: Any = json.loads(request.content) if request.content else None
        self.calls.append((request.url.path, body))
        if self.held is not None:
            await self.held.wait()
        marks = {"x-inngest-server-kind": "cloud"}
        if request.url.path != "/v1/http/runs":
            return httpx2.Response(200, headers=marks)
        data = {"fn_id": "f", "app_id": "a", "run_id": body["run_id"], "token": "tok"}
        return httpx2.Response(200, headers=marks, json={"data": data})


async def plainly(plain: Plain, work: Work) -> tuple[Provider, httpx2.AsyncClient]:
    provider = Provider(
        resolve(APP, base_url=ENGINE, environ={"INNGEST_DEV": "1"}),
        transport=httpx2.MockTransport(plain),
    )
    transport = httpx2.ASGITransport(app=work.build(provider))
    return provider, httpx2.AsyncClient(transport=transport, base_url=APP)


async def test_a_plain_server_gets_plain_checkpoints_one_after_the_other() -> None:
    plain, work = Plain(), Work(Checkpointing.safe)
    provider, client = await plainly(plain, work)
    async with client:
        call = asyncio.ensure_future(client.post("/work"))
        await work.gate.reached.wait()
        assert await provider.wait(10)
        work.gate.open.set()
        run_id = (await call).headers["x-run-id"]
        assert await provider.wait(10)
    paths = [path for path, _ in plain.calls]
    assert paths[0] == "/v1/http/runs"
    assert set(paths[1:]) == {f"/v1/http/runs/{run_id}/steps"}
    assert all(body["run_id"] == run_id for _, body in plain.calls)
    # Before anything is known of the server, it may be ours.
    assert ["lease" in body for _, body in plain.calls] == [True, *[False] * (len(plain.calls) - 1)]
    ops = [op.get("displayName") for _, body in plain.calls for op in body["steps"]]
    assert ops == ["stephttp:request", "one", "two", "three", "four", None]
    assert plain.calls[-1][1]["steps"][-1]["op"] == "RunComplete"
    assert len(provider.runtime.leases) == 0
    assert await provider.aclose()


async def test_many_finished_runs_reach_a_plain_server_one_by_one() -> None:
    plain, work = Plain(), Work()
    work.gate.open.set()
    provider, client = await plainly(plain, work)
    async with client:
        for _ in range(20):
            assert (await client.post("/work")).status_code == 201
        assert await provider.aclose()
    assert [path for path, _ in plain.calls] == ["/v1/http/runs"] * 20


async def test_going_async_with_a_plain_server_waits_for_what_is_under_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = Plain()
    provider = Provider(
        resolve(APP, base_url=ENGINE, environ={"INNGEST_DEV": "1"}),
        transport=httpx2.MockTransport(plain),
    )
    gate = Gate()
    app = FastAPI()

    @app.get("/")
    async def nap() -> None:
        stephttp.configure(checkpointing=Checkpointing.safe)
        await step.run("one", gate)
        await step.sleep("nap", timedelta(hours=1))

    transport = httpx2.ASGITransport(app=provider.asgi(app))
    async with httpx2.AsyncClient(transport=transport, base_url=APP) as client:
        plain.held = asyncio.Event()
        call = asyncio.ensure_future(client.get("/"))
        await gate.reached.wait()
        while not plain.calls:  # noqa: ASYNC110 - the opening is on its way, and held
            await asyncio.sleep(0)
        gate.open.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(plain.calls) == 1
        plain.held.set()
        answer = await call
        assert answer.headers["location"].endswith("/output?token=tok")
        assert await provider.aclose()
    (opening, (path, last)) = plain.calls
    assert (opening[0], opening[1]["retries"]) == ("/v1/http/runs", 20)
    assert path.endswith("/steps")
    assert [op["op"] for op in last["steps"]][-2:] == ["StepRun", "Sleep"]
    assert caplog.records == [] or all(r.levelno < logging.WARNING for r in caplog.records)


@pytest.mark.parametrize("wsgi", [False, True])
async def test_an_opening_that_comes_late_is_not_in_the_way_of_a_run_that_waits(
    wsgi: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of the engine, which was away. The opening in the background and the one by
    which the run goes to the background reach it one after the other."""
    monkeypatch.setattr("stephttp._run.journal.HAND_OVER_TIMEOUT", 0)
    ran: list[str] = []
    tried = threading.Event()

    def nap() -> str:
        blocking.run("one", ran.append, "one")
        blocking.run("two", tried.wait, 10)
        blocking.sleep("nap", timedelta(minutes=1))
        return "done"

    def build(provider: Provider) -> Any:
        if wsgi:
            flasked = flask.Flask("late")
            flasked.add_url_rule("/nap", view_func=nap, methods=["POST"])
            return provider.wsgi(flasked)
        app = FastAPI()
        app.post("/nap")(nap)
        return provider.asgi(app)

    async with durable(build, wsgi=wsgi, checkpointing=Checkpointing.safe) as world:
        send, answers = world.to_engine.handle_async_request, list[int]()
        last, opened = asyncio.Event(), asyncio.Event()

        async def away(request: httpx2.Request) -> httpx2.Response:
            if b'"Sleep"' in request.content or request.url.path == "/health":
                last.set()
                await opened.wait()
            elif not last.is_set():
                tried.set()
                raise httpx2.ConnectError("refused")
            response = await send(request)
            answers.append(response.status_code)
            opened.set()
            return response

        world.to_engine.handle_async_request = away  # type: ignore[method-assign]
        answer = await world.client.post("/nap")
        assert set(answers) == {200}
        assert "done" in (await world.follow(answer)).text
    assert ran == ["one"]
