"""Runs that end in their first request: their records are encoded in groups, after the answers."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from stephttp import step
from stephttp._run.finished_run import TOGETHER, Record
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


@STYLES
async def test_what_a_group_holds_counts_against_the_bound(style: str) -> None:
    size = 100_000
    handler = Counted(size)
    async with serving(style, handler.on_loop, handler.in_thread) as world:
        world.to_engine.down = True
        outbox = world.provider.runtime.outbox
        for _ in range(TOGETHER):
            await world.client.get("/")
        assert outbox.kept_bytes >= TOGETHER * size
        world.to_engine.down = False
        assert await world.provider.wait()
        assert (outbox.depth, outbox.kept_bytes) == (0, 0)


async def test_what_was_delivered_does_not_stay_until_its_group_is_full() -> None:
    size = 100_000
    handler = Counted(size)
    async with serving("async", handler.on_loop, handler.in_thread) as world:
        await world.client.get("/")
        assert await world.provider.wait()
        assert [one.size() < size for one in world.provider.runtime.outbox.unencoded] == [True]


@STYLES
async def test_a_record_that_cannot_be_encoded_costs_no_one_else_anything(
    style: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[str] = []
    encoded: list[str] = []
    encode = Record.encode

    def breaking(self: Record) -> bytes:
        lost[:] = lost or [self.run.run_id]
        if self.run.run_id in lost:
            raise TypeError("no JSON form")
        encoded.append(self.run.run_id)
        return encode(self)

    monkeypatch.setattr(Record, "encode", breaking)
    handler = Counted()
    async with serving(style, handler.on_loop, handler.in_thread) as world:
        world.to_engine.down = True
        answers = [await world.client.get("/") for _ in range(2 * TOGETHER)]
        assert {answer.status_code for answer in answers} == {200}
        world.to_engine.down = False
        with caplog.at_level(logging.ERROR):
            assert await world.provider.wait()
        runs = {answer.headers["x-run-id"] for answer in answers}
        assert {one["run_id"] for one in records(world)} == runs - {*lost}
        assert sorted(encoded) == sorted(runs - {*lost}), "each once"
        assert "no JSON form" in caplog.text


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


async def test_a_fork_leaves_records_to_the_parent() -> None:
    handler = Counted()
    async with serving("async", handler.on_loop, handler.in_thread) as world:
        world.to_engine.down = True
        await world.client.get("/")
        runtime = world.provider.runtime
        assert len(runtime.outbox.unencoded) == 1
        runtime.reset_after_fork()
        assert runtime.outbox.unencoded == []
        world.to_engine.down = False
        answer = await world.client.get("/")
        assert await world.provider.wait()
        assert [one["run_id"] for one in records(world)] == [answer.headers["x-run-id"]]
