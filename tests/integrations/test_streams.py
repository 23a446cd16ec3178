"""What handlers push: straight to the caller in the first call, by the engine after a wait."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import Response
from flask import Flask

import stephttp
from stephttp import step, stream
from stephttp._run import frame_sender
from stephttp._wire import stream_frames
from stephttp._wire.ids import hash_step_id
from stephttp._wire.stream_frames import COMMIT, LOST, METADATA, REDIRECT, RESPONSE, ROLLBACK
from stephttp.sync import step as blocking_step
from stephttp.sync import stream as blocking
from tests.durable import APP, Durable, durable
from tests.realserver import RealServer
from tests.styles import STYLES, serving

NAP = timedelta(minutes=1)
EVENTS = {"accept": "text/event-stream"}
A, B = hash_step_id("a"), hash_step_id("b")


def seen(body: bytes) -> list[Any]:
    """A stream in short: pushed values (in pairs with their steps), marks, and what ends it."""
    found: list[Any] = []
    for frame in stream_frames.read(body):
        if frame.event == stream_frames.STREAM:
            value = json.loads(frame.data)
            found.append((value, frame.step) if frame.step else value)
        elif frame.event in (COMMIT, ROLLBACK):
            found.append((frame.event.removeprefix("inngest."), frame.step))
        elif frame.event == RESPONSE:
            data = json.loads(frame.data)
            found.append((data["status"], data["response"]["statusCode"], data["response"]["body"]))
        elif frame.event not in (METADATA, REDIRECT):
            found.append(frame.event)
    return found


def names(body: bytes) -> list[str]:
    return [frame.event for frame in stream_frames.read(body)]


async def continued(world: Durable, first: bytes) -> bytes:
    """What follows at the address that a first call names, once its run has ended."""
    (redirect,) = [f for f in stream_frames.read(first) if f.event == REDIRECT]
    data = json.loads(redirect.data)
    assert data["url"].startswith(
        (f"http://engine.test/v1/http/runs/{data['runId']}/output?", f"{APP}/r?")
    )
    assert first.endswith(b"\n\n")
    run_id = data["runId"]
    await world.engine.idle()
    while (await world.api.get(f"/v1/runs/{run_id}")).json()["data"]["status"] == "Running":
        await world.turn()
    client = world.client if data["url"].startswith(APP) else world.api
    answer = await client.get(data["url"])
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.status_code == 200
    return answer.content


@STYLES
async def test_the_caller_gets_what_is_pushed_and_the_answer_at_the_end(style: str) -> None:
    async def on_loop() -> Any:
        stream.push("before")

        async def body() -> int:
            await stream.push({"n": 1})
            return 1

        await step.run("a", body)
        stream.push(b"\xc3\xa4")
        return {"done": True}

    def in_thread() -> Any:
        blocking.push("before")

        def body() -> int:
            blocking.push({"n": 1})
            return 1

        blocking_step.run("a", body)
        blocking.push(b"\xc3\xa4")
        return {"done": True}

    async with serving(style, on_loop, in_thread) as world:
        answer = await world.client.get("/", headers=EVENTS)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-run-id"]
        *pushed, (status, code, body) = seen(answer.content)
        assert pushed == ["before", ({"n": 1}, A), ("commit", A), "\u00e4"]
        assert (status, code, json.loads(body)) == ("succeeded", 200, {"done": True})
        assert names(answer.content)[0] == METADATA
        # A caller who asked for nothing gets the answer as ever.
        plain = await world.client.get("/")
        assert plain.json() == {"done": True}
        # And the run is recorded as it would be without all this.
        assert await world.provider.wait()
        assert await world.status(answer) == "Completed"


@STYLES
async def test_after_a_wait_the_stream_continues_at_the_engine(style: str) -> None:
    async def on_loop() -> Any:
        stream.push(1)
        await step.run("a", stream.push, "a")
        stream.push(2)
        await step.sleep("nap", NAP)
        stream.push(3)
        await step.run("b", stream.push, "b")
        stream.push(4)
        return "ok"

    def in_thread() -> Any:
        blocking.push(1)
        blocking_step.run("a", blocking.push, "a")
        blocking.push(2)
        blocking_step.sleep("nap", NAP)
        blocking.push(3)
        blocking_step.run("b", blocking.push, "b")
        blocking.push(4)
        return "ok"

    async with serving(style, on_loop, in_thread) as world:
        first = (await world.client.get("/", headers=EVENTS)).content
        assert seen(first) == [1, ("a", A), ("commit", A), 2]
        assert (names(first)[0], names(first)[-1]) == (METADATA, REDIRECT)
        later = seen(await continued(world, first))
        assert later[:-1] == [3, ("b", B), ("commit", B), 4]
        assert later[-1][:2] == ("succeeded", 200)


@STYLES
async def test_one_who_was_not_there_gets_all_of_it(style: str) -> None:
    async def on_loop() -> Any:
        stream.push(1)
        await step.run("a", stream.push, "a")
        await step.sleep("nap", NAP)
        stream.push(2)

    def in_thread() -> Any:
        blocking.push(1)
        blocking_step.run("a", blocking.push, "a")
        blocking_step.sleep("nap", NAP)
        blocking.push(2)

    async with serving(style, on_loop, in_thread) as world:
        redirect = await world.client.get("/")
        run_id = redirect.headers["x-run-id"]
        await world.follow(redirect)
        topic = [{"channel": run_id, "name": "$stream"}]
        token = (await world.api.post("/v1/realtime/token", json=topic)).json()["jwt"]
        late = (await world.api.get(f"/v1/realtime/sse?token={token}")).content
        assert seen(late)[:-1] == [1, ("a", A), ("commit", A), 2]


@STYLES
async def test_what_a_failed_step_pushed_is_taken_back(style: str) -> None:
    tries: list[int] = []

    def fail_twice() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")

    async def on_loop() -> Any:
        stephttp.configure(retries=3)

        async def body() -> None:
            stream.push(len(tries))
            fail_twice()

        await step.run("a", body)
        return "ok"

    def in_thread() -> Any:
        stephttp.configure(retries=3)

        def body() -> None:
            blocking.push(len(tries))
            fail_twice()

        blocking_step.run("a", body)
        return "ok"

    async with serving(style, on_loop, in_thread) as world:
        first = (await world.client.get("/", headers=EVENTS)).content
        assert seen(first) == [(0, A), ("rollback", A)]
        later = seen(await continued(world, first))
        assert later[:-1] == [(1, A), ("rollback", A), (2, A), ("commit", A)]


@STYLES
async def test_a_failure_that_the_handler_sees_takes_back_as_well(style: str) -> None:
    async def on_loop() -> Any:
        async def body() -> None:
            stream.push(1)
            raise ValueError("no")

        try:
            await step.run("a", body)
        except ValueError:
            stream.push("sorry")

    def in_thread() -> Any:
        def body() -> None:
            blocking.push(1)
            raise ValueError("no")

        try:
            blocking_step.run("a", body)
        except ValueError:
            blocking.push("sorry")

    async with serving(style, on_loop, in_thread) as world:
        answer = await world.client.get("/", headers=EVENTS)
        assert seen(answer.content)[:-1] == [(1, A), ("rollback", A), "sorry"]


@STYLES
async def test_a_caller_of_a_run_that_waits_at_once_is_sent_on(style: str) -> None:
    async def on_loop() -> Any:
        await step.sleep("nap", NAP)
        stream.push(1)

    def in_thread() -> Any:
        blocking_step.sleep("nap", NAP)
        blocking.push(1)

    async with serving(style, on_loop, in_thread) as world:
        first = await world.client.get("/", headers=EVENTS)
        assert (first.status_code, names(first.content)) == (200, [METADATA, REDIRECT])
        assert first.headers["content-type"] == "text/event-stream"
        assert seen(await continued(world, first.content))[:-1] == [1]
        # An `EventSource` reads the events of any address.
        source = await world.client.get("/", headers={**EVENTS, "cache-control": "no-cache"})
        assert source.status_code == 303


@STYLES
async def test_a_stream_continues_on_the_origin_of_the_application(style: str) -> None:
    async def on_loop() -> Any:
        await step.sleep("nap", NAP)
        stream.push(1)

    def in_thread() -> Any:
        blocking_step.sleep("nap", NAP)
        blocking.push(1)

    async with serving(style, on_loop, in_thread, result_path="/r") as world:
        first = (await world.client.get("/", headers=EVENTS)).content
        assert seen(await continued(world, first))[:-1] == [1]
        (redirect,) = [f for f in stream_frames.read(first) if f.event == REDIRECT]
        url = json.loads(redirect.data)["url"]
        again = await world.client.get(url, headers={"last-event-id": "1000001"})
        assert seen(again.content)[:-1] == []


@STYLES
async def test_pipes_pass_on_what_they_push(style: str) -> None:
    parts = [b"\xe2\x82", b"\xac!", b"\xff"]

    async def letters() -> AsyncIterator[str]:
        for letter in "abc":
            yield letter

    async def on_loop() -> Any:
        async def body() -> list[Any]:
            numbers = [item async for item in stream.pipe([1, None])]
            return [numbers, await stream.pipe(letters()), await stream.pipe(parts)]

        return await step.run("a", body)

    def in_thread() -> Any:
        def body() -> list[Any]:
            numbers = list(blocking.pipe([1, None]))
            text, whole = "".join(blocking.pipe("abc")), b"".join(blocking.pipe(parts))
            return [numbers, text, whole.decode("utf-8", "replace")]

        return blocking_step.run("a", body)

    async with serving(style, on_loop, in_thread) as world:
        answer = await world.client.get("/", headers=EVENTS)
        *pushed, commit, (_, _, body) = seen(answer.content)
        assert [value for value, _ in pushed] == [1, None, "a", "b", "c", "\u20ac!", "\ufffd"]
        assert commit == ("commit", A)
        assert json.loads(body) == [[1, None], "abc", "\u20ac!\ufffd"]


@pytest.mark.parametrize("value", [float("nan"), object(), {1: object()}, b"\xff", "\ud800"])
@STYLES
async def test_values_without_a_json_form_are_refused_for_every_caller(
    style: str, value: Any
) -> None:
    async def on_loop() -> Any:
        with pytest.raises(ValueError, match=r"^stream\.push: "):
            stream.push(value)
        return "refused"

    def in_thread() -> Any:
        with pytest.raises(ValueError, match=r"^stream\.push: "):
            blocking.push(value)
        return "refused"

    async with serving(style, on_loop, in_thread) as world:
        assert (await world.client.get("/")).json() == "refused"
        # Nothing was pushed, so the answer is a plain one.
        assert (await world.client.get("/", headers=EVENTS)).json() == "refused"


async def test_a_step_may_just_return_a_pipe() -> None:
    async def on_loop() -> Any:
        return await step.run("a", lambda: stream.pipe(["x", "y"]))

    async with serving("async", on_loop, on_loop) as world:
        answer = await world.client.get("/", headers=EVENTS)
        assert seen(answer.content) == [
            ("x", A), ("y", A), ("commit", A), ("succeeded", 200, '"xy"'),
        ]  # fmt: skip


async def test_outside_of_requests_nothing_happens() -> None:
    stream.push(1)
    await stream.push(1)
    blocking.push(1)
    assert list(blocking.pipe([1, 2])) == [1, 2]
    assert await stream.pipe(["a", "b"]) == "ab"
    with pytest.raises(ValueError, match="cannot be sent"):
        stream.push(object())
    with pytest.raises(TypeError, match="cannot be iterated"):
        stream.pipe(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        blocking.pipe(1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="joins text"):
        await stream.pipe([1])  # type: ignore[misc]


async def test_the_answer_keeps_its_status_and_headers() -> None:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def handler() -> Response:
        stream.push(1)
        return Response("text", 418, {"x-a": "b"})

    @app.get("/fails")
    async def fails() -> None:
        stream.push(1)
        raise RuntimeError("no")

    async with durable(lambda provider: provider.asgi(app)) as world:
        answer = await world.client.get("/", headers=EVENTS)
        last = json.loads(stream_frames.read(answer.content)[-1].data)
        assert last["response"]["headers"]["x-a"] == "b"
        assert seen(answer.content) == [1, ("succeeded", 418, "text")]
        failed = httpx2.AsyncClient(transport=world.to_app.inner(), base_url="http://app.test")
        answer = await failed.get("/fails", headers=EVENTS)
        assert seen(answer.content) == [1, ("failed", 500, "Internal Server Error")]
        await failed.aclose()


async def test_a_wsgi_handler_that_fails_ends_the_stream() -> None:
    flask = Flask("app")

    @flask.get("/")
    def handler() -> Any:
        blocking.push(1)
        raise RuntimeError("no")

    @flask.get("/pieces")
    def pieces() -> Any:
        def body() -> Iterator[str]:
            yield "a"
            blocking.push(2)
            yield "b"

        blocking.push(1)
        return flask.response_class(body(), status=201)

    async with durable(lambda provider: provider.wsgi(flask), wsgi=True) as world:
        answer = await world.client.get("/", headers=EVENTS)
        assert seen(answer.content)[0] == 1
        assert seen(answer.content)[1][:2] == ("failed", 500)
        answer = await world.client.get("/pieces", headers=EVENTS)
        assert seen(answer.content) == [1, 2, ("succeeded", 201, "ab")]


async def test_what_is_pushed_once_the_response_has_begun_is_not_for_this_caller() -> None:
    async def on_loop() -> Any:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            await stream.push(1)
            yield b"b"

        from starlette.responses import StreamingResponse

        return StreamingResponse(body())

    async with serving("async", on_loop, on_loop) as world:
        assert (await world.client.get("/", headers=EVENTS)).text == "ab"


async def test_each_push_arrives_while_the_handler_works() -> None:
    gate, arrived = asyncio.Event(), asyncio.Event()

    async def on_loop() -> Any:
        stream.push("first")
        await gate.wait()
        return "ok"

    async with serving("async", on_loop, on_loop) as world:
        chunks: list[bytes] = []

        async def send(message: Any) -> None:
            if message.get("body"):
                chunks.append(message["body"])
                if b"first" in message["body"]:
                    arrived.set()

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http", "method": "GET", "path": "/", "query_string": b"", "root_path": "",
            "raw_path": b"/", "scheme": "http", "http_version": "1.1", "server": ("a", 80),
            "client": ("b", 1), "headers": [(b"accept", b"text/event-stream")],
        }  # fmt: skip
        call = asyncio.create_task(world.to_app.app(scope, receive, send))
        await arrived.wait()
        assert not call.done()
        gate.set()
        await call
        assert seen(b"".join(chunks))[-1][0] == "succeeded"


async def test_a_slow_caller_holds_up_a_handler_that_awaits() -> None:
    from stephttp._adapters.asgi.event_answer import EventAnswer

    taken: list[bytes] = []
    ready = asyncio.Event()

    async def send(message: Any) -> None:
        await ready.wait()
        taken.append(message.get("body", b""))

    events = EventAnswer(send, [], lambda call: call())
    events.put(b"x" * 70_000)
    behind = events.catch_up()
    assert behind is not None
    waiting = asyncio.ensure_future(behind)
    await asyncio.sleep(0)
    assert not waiting.done()
    for _ in range(200):
        events.put(b"y" * 70_000)
    ready.set()
    await waiting
    assert events.catch_up() is None
    await events.finish(b"end")
    sent = b"".join(taken)
    assert len(sent) < 9_000_000
    assert sent.count(LOST.encode()) == 1
    assert sent.endswith(b"end")
    events.put(b"late")
    assert b"".join(taken) == sent


@STYLES
async def test_an_inngest_server_forwards_what_later_calls_push(style: str) -> None:
    """It keeps nothing, so each push is sent once, and the answer with the last ones."""
    from fastapi import FastAPI
    from flask import jsonify

    async def on_loop() -> Any:
        stream.push(1)
        await step.run("a", stream.push, "a")
        await step.sleep("nap", NAP)
        stream.push(2)
        await step.run("b", stream.push, "b")
        return {"n": 3}

    def in_thread() -> Any:
        blocking.push(1)
        blocking_step.run("a", blocking.push, "a")
        blocking_step.sleep("nap", NAP)
        blocking.push(2)
        blocking_step.run("b", blocking.push, "b")
        return {"n": 3}

    server = RealServer(wsgi=style == "wsgi")
    provider = server.provider()
    if style == "wsgi":
        flask = Flask("app")
        flask.get("/")(lambda: jsonify(in_thread()))
        server.app = provider.wsgi(flask)
    else:
        app = FastAPI()
        app.get("/", response_model=None)(on_loop if style == "async" else in_thread)
        server.app = provider.asgi(app)
    async with server.client() as client:
        first = await client.get("/", headers=EVENTS)
        assert seen(first.content) == [1, ("a", A), ("commit", A)]
        (redirect,) = [f for f in stream_frames.read(first.content) if f.event == REDIRECT]
        url = json.loads(redirect.data)["url"]
        assert url == "http://inngest.test/v1/realtime/sse?token=r"
        assert server.forwarded == {}
        await server.work()
        (forwarded,) = server.forwarded.values()
        assert names(forwarded)[0] == METADATA
        *pushed, (status, code, body) = seen(forwarded)
        assert pushed == [2, ("b", B), ("commit", B)]
        assert (status, code, json.loads(body)) == ("succeeded", 200, {"n": 3})
    assert await provider.aclose()


async def test_with_safe_checkpoints_the_engine_has_what_is_pushed_at_once() -> None:
    """So that one who comes meanwhile sees it, and nothing is pushed twice if this process dies."""
    gate = asyncio.Event()

    async def on_loop() -> Any:
        stream.push(1)

        async def body() -> None:
            stream.push("a")
            await gate.wait()

        await step.run("a", body)
        stream.push(2)

    safe = stephttp.Checkpointing.safe
    async with serving("async", on_loop, on_loop, checkpointing=safe) as world:
        call = asyncio.ensure_future(world.client.get("/", headers=EVENTS))
        kept: list[Any] = []
        while len(kept) < 2:
            await asyncio.sleep(0)
            for run_id in await world.engine.store.read(_streams):
                kept = list((await world.engine.streams.read(run_id)).frames)
        gate.set()
        answer = await call
        # The caller knows early where to go if this process dies.
        assert seen(answer.content)[:-1] == [1, ("a", A), ("commit", A), 2]
        assert names(answer.content).count(REDIRECT) == 1
        assert await world.provider.wait()
        later = await continued(world, answer.content)
        assert seen(later)[-1][:2] == ("succeeded", 200)
        part = await world.engine.streams.read(answer.headers["x-run-id"])
        body = b"".join(stream_frames.written(frame) for _, frame in part.frames)
        assert seen(body) == [1, ("a", A), ("commit", A), 2]
        assert [number for number, _ in part.frames] == [1, 2, 3, 4]


class SlowTee:
    """Lets nothing that is pushed through to the engine before `gate` is set.

    Attributes:
        gate: set to let it through.
        asked: set once something waits for that.
    """

    def __init__(self, world: Durable) -> None:
        self.gate, self.asked = asyncio.Event(), asyncio.Event()
        self._send = world.to_engine.handle_async_request
        world.to_engine.handle_async_request = self  # type: ignore[method-assign]

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if "/publish/tee" in str(request.url):
            self.asked.set()
            await self.gate.wait()
        return await self._send(request)


def _pushing(style: str, world_options: dict[str, Any]) -> Any:
    async def on_loop() -> Any:
        await step.run("a", lambda: stream.push("a"))
        stream.push("last")

    def in_thread() -> Any:
        blocking_step.run("a", lambda: blocking.push("a"))
        blocking.push("last")

    safe = stephttp.Checkpointing.safe
    return serving(style, on_loop, in_thread, checkpointing=safe, **world_options)


@pytest.mark.parametrize("style", ["async", "blocking"])
@pytest.mark.parametrize("keyed", [False, True])
async def test_those_who_follow_get_the_end_behind_what_was_pushed(style: str, keyed: bool) -> None:
    options = {"idempotency_header": "idempotency-key"} if keyed else {}
    async with _pushing(style, options) as world:
        tee = SlowTee(world)
        call = asyncio.ensure_future(world.client.get("/", headers={"idempotency-key": "1"}))
        await tee.asked.wait()
        if not keyed:
            run_id = (await call).headers["x-run-id"]
            for _ in range(50):
                await asyncio.sleep(0)
            assert world.provider.runtime.outbox.depth, "aclose waits for it"
            assert (await world.api.get(f"/v1/runs/{run_id}")).json()["data"]["status"] == "Running"
        tee.gate.set()
        run_id = (await call).headers["x-run-id"]
        assert await world.provider.wait()
        assert (await world.api.get(f"/v1/runs/{run_id}")).json()["data"]["status"] == "Completed"
        part = await world.engine.streams.read(run_id)
        body = b"".join(stream_frames.written(frame) for _, frame in part.frames)
        assert seen(body) == [("a", A), ("commit", A), "last"]


async def test_a_server_that_does_not_take_what_was_pushed_gets_the_end_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_sender, "_PATIENCE", 0.01)
    async with _pushing("async", {}) as world:
        tee = SlowTee(world)
        run_id = (await world.client.get("/")).headers["x-run-id"]
        assert await world.provider.wait()
        assert (await world.api.get(f"/v1/runs/{run_id}")).json()["data"]["status"] == "Completed"
        tee.gate.set()


def _streams(connection: sqlite3.Connection) -> list[str]:
    return [run_id for (run_id,) in connection.execute("SELECT run_id FROM streams")]


async def test_an_engine_that_is_away_gets_what_was_pushed_when_it_is_back() -> None:
    async def on_loop() -> Any:
        await step.sleep("nap", NAP)
        for number in range(3):
            world.to_engine.down = number == 1
            await step.run(f"s{number}", stream.push, number)
        return "ok"

    async with serving("async", on_loop, on_loop) as world:
        first = (await world.client.get("/", headers=EVENTS)).content
        later = seen(await continued(world, first))
        assert [entry[0] for entry in later if isinstance(entry[0], int)] == [0, 1, 2]


async def test_a_stream_that_is_too_long_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def on_loop() -> Any:
        await step.sleep("nap", NAP)
        for _ in range(40):
            await stream.push("x" * 50_000)
        return "ok"

    async with serving("async", on_loop, on_loop) as world:
        first = (await world.client.get("/", headers=EVENTS)).content
        later = seen(await continued(world, first))
        assert later[-2:] == [LOST, ("succeeded", 200, '"ok"')]
        assert later[0] == "x" * 50_000
        assert len(later) == 22
        assert "the engine keeps no more of its stream" in caplog.text


@pytest.mark.parametrize(
    ("options", "origin"),
    [
        # In development the caller says where it is, or the proxy for it.
        ({}, "http://shop.example"),
        ({"trusted_proxies": ["127.0.0.1"]}, "https://shop.example"),
        ({"serve_origin": "http://internal:8000"}, APP),
    ],
)
@STYLES
async def test_a_stream_continues_at_a_whole_address_of_this_api(
    options: dict[str, Any], origin: str, style: str
) -> None:
    async def on_loop() -> None:
        stream.push("first")
        await step.sleep("nap", NAP)

    def in_thread() -> None:
        blocking.push("first")
        blocking_step.sleep("nap", NAP)

    async with serving(style, on_loop, in_thread, result_path="/r", **options) as world:
        headers = {**EVENTS, "host": "shop.example", "x-forwarded-proto": "https"}
        first = (await world.client.get("/", headers=headers)).content
        (redirect,) = [f for f in stream_frames.read(first) if f.event == REDIRECT]
        assert json.loads(redirect.data)["url"].startswith(f"{origin}/r?")
