"""Checkpoints of open calls, results sent by endpoints, and live streams, over HTTP."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from stephttp.engine.realtime import MOST_WAITING, Channels

from .support import (
    DONE,
    KEY,
    OTHER,
    RUN,
    A,
    B,
    World,
    Z,
    answer,
    complete,
    sleep,
    step,
    step_error,
    until,
    world,
)


def qi(job: str) -> str:
    return b64encode(f"{job}::default".encode()).decode()


async def report(w: World, *steps: dict[str, Any], run_id: str = RUN, **more: Any) -> Any:
    return await w.http.post(f"/v1/checkpoint/{run_id}/async", json={"steps": steps, **more})


async def test_steps_of_an_open_call() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        assert (await report(w, step(A), run_id=RUN)).status_code == 200
        w.script = [httpx2.ConnectError("refused"), answer({"message": "boom"}, 500)]
        await w.post(sleep(text="1h"), run_id=OTHER, retries=2)
        (call,) = await w.after(1)
        job = call.headers["x-inngest-job-id"]
        response = await report(w, step(B), qi_id=qi(job), generation_id=1)
        assert (response.status_code, response.content) == (200, b"")
        assert await w.memos() == {A: {"data": 1}, B: {"data": 1}, Z: None}


async def test_steps_of_a_call_that_was_given_up_are_refused() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), retries=2)
        w.script = [answer({"message": "boom"}, 500)]
        (call,) = await w.after(1)
        job = qi(call.headers["x-inngest-job-id"])
        stale = await report(w, step(A), qi_id=job, generation_id=1)
        assert stale.status_code == 409
        assert stale.json()["error"].startswith("generation_id: ")
        assert (await report(w, step(B), qi_id=job, generation_id=2)).status_code == 200
        assert await w.memos() == {B: {"data": 1}, Z: None}


@pytest.mark.parametrize(
    ("run_id", "steps", "more", "status", "start"),
    [
        (OTHER, [step()], {}, 400, f"run_id: there is no run {OTHER}"),
        ("x", [step()], {}, 400, "run_id: 'x' is not a ULID"),
        (RUN, [sleep()], {}, 400, "steps[0].op: cannot checkpoint async steps (Sleep)"),
        (RUN, [step(), step_error()], {}, 400, "steps[1].op: cannot checkpoint async steps"),
        (RUN, [step()], {"qi_id": "!", "generation_id": 1}, 400, "qi_id: '!' is not base64"),
        (RUN, [step()], {"fn_id": "x"}, 400, "fn_id: 'x' is not a UUID"),
        (RUN, [step(data="x" * 100)], {}, 413, "steps[0].data: more than 50 bytes"),
    ],
)
async def test_bad_steps_of_an_open_call(
    run_id: str, steps: Any, more: Any, status: int, start: str
) -> None:
    async with world(max_step_output=50) as w:
        await w.post(sleep(text="1h"))
        response = await report(w, *steps, run_id=run_id, **more)
        assert response.status_code == status
        assert response.json()["error"].startswith(start)
        assert await w.memos() == {}


@pytest.mark.parametrize("prefix", ["/v1/http/runs", "/v1/checkpoint"])
async def test_a_result_sent_by_the_endpoint(prefix: str) -> None:
    async with world() as w:
        token = (await w.post(step()))["token"]
        body = b64encode(b"\xff\x00 bytes").decode()
        result = {"status_code": 418, "headers": {"X-A": "b"}, "body": body, "duration": 5}
        first = await w.http.post(f"{prefix}/{RUN}/response", json=result)
        assert (first.status_code, first.content) == (200, b"")
        output = await w.output(token)
        assert (output.status_code, output.headers["x-a"]) == (418, "b")
        assert output.content == b"\xff\x00 bytes"
        assert (await w.run())["status"] == "Completed"
        # The same again is no clash, another one is.
        assert (await w.http.post(f"{prefix}/{RUN}/response", json=result)).status_code == 200
        other = await w.http.post(f"{prefix}/{RUN}/response", json={"status_code": 200})
        assert other.status_code == 409


async def test_a_result_that_tells_of_an_error() -> None:
    async with world() as w:
        await w.post(step())
        result = {"status_code": 500, "headers": {}, "duration": 1, "error": "panic"}
        assert (await w.http.post(f"/v1/http/runs/{RUN}/response", json=result)).is_success
        run = await w.run()
        assert (run["status"], run["error"]) == ("Failed", {"name": "Error", "message": "panic"})


@pytest.mark.parametrize(
    ("run_id", "body", "status", "start"),
    [
        (OTHER, {"status_code": 200}, 404, f"run_id: there is no run {OTHER}"),
        (RUN, {}, 400, "body: Object missing required field `status_code`"),
        (RUN, {"status_code": 99}, 400, "status_code: Expected `int` >= 200"),
        (RUN, {"status_code": 200, "body": "!"}, 400, "body: not base64"),
        (RUN, {"status_code": 200, "headers": {"a": 1}}, 400, "headers"),
    ],
)
async def test_bad_results(run_id: str, body: Any, status: int, start: str) -> None:
    async with world() as w:
        await w.post(step())
        response = await w.http.post(f"/v1/http/runs/{run_id}/response", json=body)
        assert response.status_code == status
        assert response.json()["error"].startswith(start)
        assert (await w.run())["status"] == "Running"


class Stream:
    """What a follower of a live stream gets, over raw ASGI: the test client would wait for its end.

    Attributes:
        status: of the answer.
        chunks: the parts of its body so far.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.gone = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message["headers"])
        elif message.get("body"):
            self.chunks.append(message["body"])

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}


@asynccontextmanager
async def following(w: World, token: str, header: bool = False) -> AsyncGenerator[Stream]:
    stream = Stream()
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/realtime/sse",
        "query_string": b"" if header else f"token={token}".encode(),
        "headers": [(b"authorization", f"Bearer {token}".encode())] if header else [],
    }
    task = asyncio.create_task(w.app(scope, stream.receive, stream.send))
    try:
        await until(lambda: stream.chunks)
        yield stream
    finally:
        stream.gone.set()
        await task


@pytest.mark.parametrize("header", [False, True])
async def test_a_stream_is_followed(header: bool) -> None:
    async with world() as w:
        token = (await w.post(step()))["realtime_token"]
        async with following(w, token, header) as stream:
            assert stream.status == 200
            assert stream.headers[b"content-type"].startswith(b"text/event-stream")
            assert stream.headers[b"access-control-allow-origin"] == b"*"
            assert stream.chunks == [b":\n\n"]
            event = b"event: x\ndata: 1\n\n"
            tee = f"/v1/realtime/publish/tee?channel={RUN}"
            assert (await w.http.post(tee, content=event)).status_code == 200
            await w.http.post(f"/v1/realtime/publish/tee?channel={OTHER}", content=b"not for you")
            await until(lambda: stream.chunks[1:])
            assert stream.chunks[1:] == [event]
            w.clock.advance(15)
            await until(lambda: stream.chunks[2:])
            assert stream.chunks[2:] == [b":\n\n"]
        assert len(w.engine.channels) == 0


async def end_of_life(w: World) -> None:
    w.clock.advance(900)


async def engine_stops(w: World) -> None:
    w.engine.drain()


@pytest.mark.parametrize("end", [end_of_life, engine_stops])
async def test_streams_end(end: Callable[[World], Awaitable[None]]) -> None:
    async with world() as w:
        token = (await w.post(step()))["realtime_token"]
        async with following(w, token):
            await end(w)
            await until(lambda: not len(w.engine.channels))


async def test_the_stream_of_a_run_that_fails_is_ended_by_the_engine() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s")))["realtime_token"]
        async with following(w, token) as stream:
            w.script = [answer({"name": "E", "message": "m"}, 500)]
            await w.after(1)
            await until(lambda: b"inngest.response" in b"".join(stream.chunks))
            assert b'"status":"failed"' in stream.chunks[-1]
            assert stream.chunks[-1].endswith(b"\n\n")


@pytest.mark.parametrize("kind", ["none", "forged", "output", "expired"])
async def test_streams_need_a_token_of_theirs(kind: str) -> None:
    async with world() as w:
        data = await w.post(step())
        token = {"none": "", "forged": "a.b.c", "output": data["token"]}.get(kind)
        if token is None:
            token = data["realtime_token"]
            w.clock.advance(960)
        response = await w.http.get(f"/v1/realtime/sse?token={token}")
        assert response.status_code == 401
        assert response.json() == {"error": "Not authenticated", "data": None, "status": 401}


async def test_publishing_needs_a_channel_a_key_and_a_bound() -> None:
    async with world(signing_keys=(KEY,)) as w:
        path = f"/v1/realtime/publish/tee?channel={RUN}"
        assert (await w.http.post(path, content=b"x")).status_code == 401
        w.http.headers["authorization"] = f"Bearer {KEY}"
        assert (await w.http.post(path, content=b"x")).status_code == 200
        nowhere = await w.http.post("/v1/realtime/publish/tee", content=b"x")
        assert (nowhere.status_code, nowhere.json()["error"][:8]) == (400, "channel:")
        large = await w.http.post(path, content=b"x" * 1_024_001)
        assert large.status_code == 413


async def test_a_body_that_never_ends_is_let_go() -> None:
    async with world() as w:
        stream, parts = Stream(), [{"type": "http.request", "body": b"part", "more_body": True}]

        async def receive() -> Message:
            return parts.pop() if parts else await stream.receive()

        path, query = "/v1/realtime/publish/tee", f"channel={RUN}".encode()
        scope = {"type": "http", "method": "POST", "path": path, "query_string": query}
        with w.engine.channels.listening(RUN) as listener:
            posting = asyncio.create_task(w.app({**scope, "headers": []}, receive, stream.send))
            await until(listener.wake.is_set)
            assert listener.take() == b"part"
            w.clock.advance(900)
            await posting
            assert stream.status == 200


@pytest.mark.parametrize(("size", "over"), [(MOST_WAITING, False), (MOST_WAITING + 1, True)])
def test_a_follower_that_falls_behind_is_let_go(size: int, over: bool) -> None:
    channels = Channels()
    with channels.listening("c") as listener:
        channels.publish("c", b"x" * size)
        assert listener.over is over


async def test_ops_after_the_result_change_nothing() -> None:
    async with world() as w:
        await w.post(complete(DONE["data"]))
        assert (await report(w, step(B))).status_code == 409
