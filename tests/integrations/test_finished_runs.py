"""Runs that end in their first request: their records are encoded in groups, after the answers."""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any

import pytest

import stephttp
from stephttp import step
from stephttp._client.background import Job
from stephttp._client.outbox import Outbox
from stephttp._core.run import Run
from stephttp._run.finished_run import SMALL, TOGETHER, FinishedRun, FinishedRuns, Record
from stephttp._wire.http import Request, Response
from stephttp.middleware import CallEnd, Middleware
from stephttp.sync import step as sync_step
from tests.durable import Durable
from tests.styles import STYLES, serving

COUNTS = pytest.mark.parametrize("count", [1, TOGETHER - 1, TOGETHER, 2 * TOGETHER + 3])


class Counted:
    """A handler that counts its calls, written for the event loop and for threads."""

    def __init__(self, size: int = 1) -> None:
        self.calls = 0
        self.size = size

    def body(self) -> str:
        self.calls += 1
        return str(self.calls) * self.size

    async def on_loop(self) -> str:
        return await step.run("count", self.body)

    def in_thread(self) -> str:
        return sync_step.run("count", self.body)


def records(world: Durable) -> list[Any]:
    """What the engine was sent, whole batches apart."""
    sent = [json.loads(request.content) for request in world.to_engine.requests]
    return [one for body in sent for one in (body if isinstance(body, list) else [body])]


@COUNTS
@STYLES
async def test_each_record_tells_of_its_own_run(style: str, count: int) -> None:
    """Also those that wait for an hour, because the engine is away."""
    handler = Counted()
    async with serving(style, handler.on_loop, handler.in_thread) as world:
        world.to_engine.down = True
        answers, ended_ms = [], {}
        for _ in range(count):
            answer = await world.client.get("/")
            answers.append(answer)
            ended_ms[answer.headers["x-run-id"]] = world.clock.now_ms()
            world.clock.advance(1)
        assert world.provider.runtime.outbox.depth == count
        world.clock.advance(3600)
        world.to_engine.requests.clear()
        world.to_engine.down = False
        assert await world.provider.wait()
        sent = {one["run_id"]: one for one in records(world)}
        assert {run_id: one["event"]["ts"] for run_id, one in sent.items()} == ended_ms
        for answer in answers:
            assert await world.status(answer) == "Completed"
            counted, end = sent[answer.headers["x-run-id"]]["steps"]
            assert counted["data"] == answer.json()
            assert end["data"]["body"] == answer.text


@pytest.mark.parametrize("size", [1000, 2 * SMALL])
@STYLES
async def test_what_waits_counts_with_all_that_it_holds(style: str, size: int) -> None:
    """Also before its group is encoded."""
    handler = Counted(size)
    async with serving(style, handler.on_loop, handler.in_thread) as world:
        world.to_engine.down = True
        outbox = world.provider.runtime.outbox
        for number in range(1, TOGETHER + 2):
            await world.client.get("/")
            assert outbox.kept_bytes >= number * 2 * size  # result and answer
        world.to_engine.down = False
        assert await world.provider.wait()
        assert (outbox.depth, outbox.kept_bytes) == (0, 0)


@STYLES
async def test_a_large_record_makes_no_other_request_wait(
    style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is encoded by the request that it is of."""
    encoded: list[str] = []
    encode = Record.encode

    def noting(self: Record) -> bytes:
        encoded.append(self.run.run_id)
        return encode(self)

    monkeypatch.setattr(Record, "encode", noting)
    handler = Counted(SMALL)
    async with serving(style, handler.on_loop, handler.in_thread) as world:
        world.to_engine.down = True
        for _ in range(3):
            answer = await world.client.get("/")
            assert encoded[-1] == answer.headers["x-run-id"]
        world.to_engine.down = False
        assert await world.provider.wait()


@STYLES
async def test_a_record_that_cannot_be_encoded_costs_no_one_else_anything(
    style: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Counted()

    def name() -> None:  # no encoding writes this id
        if handler.calls % TOGETHER == 3:
            stephttp.configure(id="\ud800")

    async def on_loop() -> str:
        name()
        return await handler.on_loop()

    def in_thread() -> str:
        name()
        return handler.in_thread()

    async with serving(style, on_loop, in_thread) as world:
        world.to_engine.down = True
        answers = [await world.client.get("/") for _ in range(2 * TOGETHER)]
        runs = [answer.headers["x-run-id"] for answer in answers]
        lost = {runs[3], runs[TOGETHER + 3]}
        world.to_engine.down = False
        with caplog.at_level(logging.ERROR):
            assert await world.provider.wait()
        assert {one["run_id"] for one in records(world)} == {*runs} - lost
        errors = [record.args for record in caplog.records if record.levelno == logging.ERROR]
        assert {*errors} == {(run_id,) for run_id in lost}
        assert world.provider.runtime.outbox.kept_bytes == 0


@STYLES
async def test_middleware_that_keeps_the_headers_does_not_change_the_record(style: str) -> None:
    class Late(Middleware):
        def after_call(self, end: CallEnd) -> None:
            assert end.response is not None
            end.response.headers.append((b"x-late", b"1"))

    handler = Counted()
    async with serving(style, handler.on_loop, handler.in_thread, middleware=[Late]) as world:
        await world.client.get("/")
        assert await world.provider.wait()
        ((*_, end),) = [one["steps"] for one in records(world)]
        assert "content-type" in end["data"]["headers"]
        assert "x-late" not in end["data"]["headers"]


@pytest.mark.parametrize("in_a_thread", [False, True])
@STYLES
async def test_code_that_outlives_the_handler_does_not_change_the_record(
    style: str, in_a_thread: bool
) -> None:
    """Its options say, among others, what may be recorded."""
    late: list[Context] = []

    async def on_loop() -> str:
        late.append(copy_context())
        return await step.run("check", lambda: "done")

    def in_thread() -> str:
        late.append(copy_context())
        return sync_step.run("check", lambda: "done")

    def configure() -> None:
        late[0].run(stephttp.configure, id="late", retries=7)

    async with serving(style, on_loop, in_thread) as world:
        world.to_engine.down = True
        await world.client.get("/")
        if in_a_thread:
            await asyncio.to_thread(configure)
        else:
            configure()
        world.to_engine.requests.clear()
        world.to_engine.down = False
        assert await world.provider.wait()
        (record,) = records(world)
        assert record["event"]["data"]["fn"] == "GET /"
        assert record["own_retries"] == 0


async def test_a_fork_leaves_records_to_the_parent() -> None:
    handler = Counted()
    async with serving("async", handler.on_loop, handler.in_thread) as world:
        world.to_engine.down = True
        await world.client.get("/")
        world.provider.runtime.reset_after_fork()
        world.to_engine.down = False
        answer = await world.client.get("/")
        assert await world.provider.wait()
        assert [one["run_id"] for one in records(world)] == [answer.headers["x-run-id"]]


@pytest.mark.parametrize("forked", [False, True])
async def test_a_forked_process_does_not_complete_the_group_of_its_parent(forked: bool) -> None:
    handler = Counted()
    async with serving("async", handler.on_loop, handler.in_thread) as world:
        checkpoints = world.provider.runtime.checkpoints
        never = Job[None](Future(), lambda: True, lambda: None)
        runs = FinishedRuns(Outbox(checkpoints.deliver, lambda flow, name: never))

        def put() -> FinishedRun:
            request, response = Request("GET", "/", "", []), Response(200)
            record = Record(checkpoints, Run("R"), [], request, response, 0, 0, None)
            run = FinishedRun(record)
            runs.put(run)
            return run

        group = [put() for _ in range(TOGETHER - 1)]
        guessed = [run.size() for run in group]
        if forked:
            runs.reset_after_fork()
        put()
        encoded = [run.size() != size for run, size in zip(group, guessed, strict=True)]
        assert encoded == [not forked] * len(group)
