"""What is pushed, where a server, a caller or the engine fails, or several threads come at once."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx2
import pytest

import stephttp
from stephttp import step, stream
from stephttp._adapters.asgi import event_answer
from stephttp._adapters.asgi.event_answer import EventAnswer
from stephttp._run.frame_sender import FrameSender
from stephttp._run.run_stream import RunStream
from stephttp._wire import stored_state, stream_frames
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step as blocking_step
from stephttp.sync import stream as blocking

EVENTS = [(b"accept", b"text/event-stream")]
Serve = Callable[[httpx2.Request], httpx2.Response]


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


def provider_of(serve: Serve, **options: Any) -> Provider:
    environ = {"INNGEST_DEV": "1"}
    settings = resolve("http://app", base_url="http://engine", environ=environ, **options)
    transport = httpx2.MockTransport(serve)
    return Provider(settings, transport=transport, sync_transport=transport, pause=_at_once)


def taken(request: httpx2.Request, **headers: str) -> httpx2.Response:
    """The answer of a server that takes a checkpoint."""
    data: dict[str, Any] = {}
    if request.url.path == "/v1/http/runs":
        run_id = json.loads(request.content)["run_id"]
        data = {"run_id": run_id, "fn_id": "f", "app_id": "a", "token": "secret"}
    return httpx2.Response(200, json={"data": data}, headers=headers)


def reads(*_: Any) -> Callable[[bytes], None]:
    """`start_response` of a server whose caller takes everything at once."""

    def write(data: bytes) -> None:
        pass

    return write


async def asked(app: Any, headers: list[tuple[bytes, bytes]], path: str = "/") -> list[Any]:
    """What an ASGI application sends."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    await app(scope, receive, send)
    return sent


def environ(path: str = "/", **more: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http",
        "wsgi.multithread": True, **more,
    }  # fmt: skip


@pytest.mark.parametrize("pushes", [True, False])
async def test_a_caller_who_cannot_follow_gets_the_address_of_the_result(pushes: bool) -> None:
    def serve(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/realtime/token":
            return httpx2.Response(400, json={"error": "no"})
        return taken(request, **{"x-inngest-server-kind": "cloud"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if pushes:
            stream.push(1)
        await step.sleep("nap", timedelta(days=1))

    provider = provider_of(serve)
    sent = await asked(provider.asgi(app), EVENTS)
    if pushes:
        (*_, last) = stream_frames.read(b"".join(each.get("body", b"") for each in sent))
        answer = json.loads(last.data)["response"]
        assert (last.event, answer["statusCode"]) == (stream_frames.RESPONSE, 303)
        assert "token=secret" in answer["headers"]["location"]
    else:
        assert sent[0]["status"] == 303
    assert sent[-1].get("more_body", False) is False
    assert await provider.aclose()


async def test_a_call_that_cannot_conclude_leaves_no_task_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stephttp._adapters.asgi.first_call import ASGIFirstCall

    def fail(*_: Any) -> Any:
        raise OSError("broken")

    monkeypatch.setattr(ASGIFirstCall, "_conclude_stream", fail)
    begun: list[asyncio.Task[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream.push(1)
        begun.extend(each for each in asyncio.all_tasks() if each.get_name() == "stephttp-events")

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        await asyncio.Event().wait()  # the caller reads nothing

    scope = {"type": "http", "method": "GET", "path": "/", "headers": EVENTS}
    with pytest.raises(OSError, match="broken"):
        await provider_of(taken).asgi(app)(scope, receive, send)
    assert [task.cancelling() for task in begun] == [1]
    await asyncio.wait(begun)


def test_the_caller_of_a_run_that_has_ended_does_not_wait_for_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stephttp._run.frame_sender._PATIENCE", 3600)
    tee, answered = threading.Event(), threading.Event()

    def serve(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/tee"):
            tee.set()
            assert answered.wait(60)
        return taken(request, **{stored_state.FEATURES: stored_state.STREAMS_FEATURE})

    def app(environ: Any, start_response: Any) -> Any:
        blocking.push(1)
        blocking_step.run("a", int)
        assert tee.wait(60)
        start_response("200 OK", [])
        return [b"x"]

    provider = provider_of(serve, checkpointing=stephttp.Checkpointing.safe)
    bodies: list[list[bytes]] = []

    def request() -> None:
        call = environ(HTTP_ACCEPT="text/event-stream")
        bodies.append(list(provider.wsgi(app)(call, reads)))

    call = threading.Thread(target=request, daemon=True)
    call.start()
    call.join(60)
    early = not call.is_alive()
    answered.set()
    call.join(60)
    assert early
    assert stream_frames.read(bodies[0][-1])[-1].event == stream_frames.RESPONSE
    assert provider.close(60)


def test_a_slow_caller_holds_up_no_other_run() -> None:
    entered, gate = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        blocking.push(1)
        start_response("200 OK", [])
        return [b"x"]

    def slow(*_: Any) -> Any:
        def write(data: bytes) -> None:
            entered.set()
            assert gate.wait(60)

        return write

    def request(start: Any) -> threading.Thread:
        call = environ(HTTP_ACCEPT="text/event-stream")
        thread = threading.Thread(target=lambda: list(wrapped(call, start)), daemon=True)
        thread.start()
        return thread

    wrapped = provider_of(taken).wsgi(app)
    first = request(slow)
    assert entered.wait(60)
    second = request(reads)
    second.join(60)
    free = not second.is_alive()
    gate.set()
    first.join(60)
    second.join(60)
    assert free


async def test_one_task_at_a_time_sends_events() -> None:
    sent: list[bytes] = []
    busy = most = 0

    async def send(message: Any) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        if message.get("body") == b"second":
            await gate.wait()
        sent.append(message.get("body", b""))
        busy -= 1

    late, raced, gate = [b"second"], asyncio.Event(), asyncio.Event()

    class Raced(EventAnswer):
        def _take(self) -> list[bytes]:
            taken = super()._take()
            if not taken and late:  # another thread pushes just now
                self.put(late.pop())
                raced.set()
            return taken

    events = Raced(send, [], lambda call: call())
    events.put(b"first")
    await raced.wait()
    end = asyncio.ensure_future(events.finish(b"last"))
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()
    await end
    assert sent == [b"", b"first", b"second", b"last"]
    assert most == 1


async def test_a_caller_who_reads_nothing_does_not_hold_up_its_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_answer, "PATIENCE", 0.0)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])
        await asyncio.Event().wait()

    events = EventAnswer(send, [], lambda call: call())
    events.put(b"x" * 100_000)
    caught_up = events.catch_up()
    assert caught_up is not None
    await caught_up
    events.put(b"y")
    await events.finish(b"last")
    assert sent == ["http.response.start"]
    assert events.catch_up() is None


async def test_the_end_is_not_sent_to_a_caller_who_left() -> None:
    tries: list[Any] = []

    async def send(message: Any) -> None:
        tries.append(message["type"])
        raise OSError("gone")

    events = EventAnswer(send, [], lambda call: call())
    events.put(b"x")
    await events.finish(b"last")
    assert tries == ["http.response.start"]
    await EventAnswer(send, [], lambda call: call()).finish(b"last")  # who left before any event


def test_a_push_leaves_a_response_alone_that_has_begun() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])

        def body() -> Iterator[bytes]:
            blocking.push(1)
            yield b"own"

        return body()

    starts: list[str] = []
    written: list[bytes] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> Any:
        starts.append(status)
        return written.append

    call = environ(HTTP_ACCEPT="text/event-stream")
    assert list(provider_of(taken).wsgi(app)(call, start)) == [b"own"]
    assert (starts, written) == (["200 OK"], [])


def test_what_is_pushed_while_a_flush_looks_is_sent_once() -> None:
    begun: list[Any] = []

    class Scope:
        dispatch = begun.append

    class Raced:
        """A lock behind which another thread pushes, the first time."""

        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.late = [b"late"]

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()
            if self.late:
                sender.put(self.late.pop())

    sender = FrameSender(Scope, "call", keeps=True)  # type: ignore[arg-type]
    sender._lock = Raced()  # type: ignore[assignment]
    assert list(sender.flush()) == []  # what the other thread began is its own
    assert len(begun) == 1


async def test_a_call_that_pushes_leaves_no_reference_cycles() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        stream.push(1)
        if scope["path"] == "/cut":
            raise asyncio.CancelledError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    provider = provider_of(lambda _: httpx2.Response(200, json={"data": {}}))
    wrapped = provider.asgi(app)
    again = [
        (b"x-run-id", b"01M8J1100SQ04HN0KGPMACDA7P"), (b"x-inngest-signature", b"t=1&s=2"),
        (b"x-inngest-generation-id", b"1"), (b"x-inngest-job-id", b"j"),
    ]  # fmt: skip
    for path, headers in (("/", again), ("/", EVENTS), ("/cut", [])):
        gc.collect()
        gc.disable()
        try:
            with suppress(asyncio.CancelledError):
                await asked(wrapped, headers, path)
            under_way = asyncio.all_tasks() - {asyncio.current_task()}
            if under_way:
                await asyncio.wait(under_way)
                del under_way
            left = [each for each in gc.get_objects() if type(each) is RunStream]
        finally:
            gc.enable()
        assert left == [], (path, headers)
