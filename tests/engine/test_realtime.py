"""Live streams and messages: `/v1/realtime` (docs/protocol.md 8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message

from stephttp.engine.live.channels import MOST_WAITING, STREAM, Channels

from .support import KEY, OTHER, RUN, World, answer, sleep, step, until, world


class Stream:
    """What a follower of a live stream gets, over raw ASGI: the test client would wait for its end.

    Attributes:
        status: of the answer.
        chunks: the parts of its body so far.
        over: whether the body is whole.
        stuck: cleared while the follower takes nothing.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.gone = asyncio.Event()
        self.over = False
        self.stuck = asyncio.Event()
        self.stuck.set()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message["headers"])
            return
        await self.stuck.wait()
        if message.get("body"):
            self.chunks.append(message["body"])
        self.over = not message.get("more_body")

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
            await until(lambda: stream.chunks[1:])
            metadata = b'event: inngest.metadata\ndata: {"runId":"%s"}\n\n' % RUN.encode()
            assert stream.chunks == [b":\n\n", metadata]
            event = b"event: x\ndata: 1\n\n"
            tee = f"/v1/realtime/publish/tee?channel={RUN}"
            assert (await w.http.post(tee, content=event)).status_code == 200
            await w.http.post(f"/v1/realtime/publish/tee?channel={OTHER}", content=event)
            await until(lambda: stream.chunks[2:])
            assert stream.chunks[2:] == [b"id: 1000001\n" + event]
            w.clock.advance(15)
            await until(lambda: stream.chunks[3:])
            assert stream.chunks[3:] == [b":\n\n"]
        assert len(w.engine.streams) == 0


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
            await until(lambda: not len(w.engine.streams))


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
        with w.engine.channels.listening([(RUN, STREAM)]) as listener:
            posting = asyncio.create_task(w.app({**scope, "headers": []}, receive, stream.send))
            await until(listener.wake.is_set)
            assert listener.take() == [b"part"]
            w.clock.advance(900)
            await posting
            assert stream.status == 200


@pytest.mark.parametrize(("size", "over"), [(MOST_WAITING, False), (MOST_WAITING + 1, True)])
def test_a_follower_that_falls_behind_is_let_go(size: int, over: bool) -> None:
    channels = Channels()
    with channels.listening([("c", STREAM)]) as listener:
        channels.tee("c", b"x" * size)
        assert listener.over is over
        # One that is stuck must not fill the memory.
        listener.over = True
        channels.tee("c", b"more")
        assert sum(map(len, listener.take())) == size


async def minted(w: World, *topics: str, channel: str = "orders") -> str:
    """A token for topics."""
    body = [{"channel": channel, "name": topic, "kind": "run"} for topic in topics]
    response = await w.http.post("/v1/realtime/token", json=body)
    assert response.status_code == 201, response.text
    assert list(response.json()) == ["jwt"]
    token: str = response.json()["jwt"]
    return token


async def publish(w: World, topic: str, content: bytes | Any, **query: str) -> None:
    params = {"channel": "orders", "topic": topic, **query}
    response = await w.http.post("/v1/realtime/publish", params=params, content=content)
    assert (response.status_code, response.content) == (200, b"")


async def test_messages_are_followed_by_topic() -> None:
    async with world() as w:
        token = await minted(w, "paid", "sent")
        async with following(w, token) as stream:
            await publish(w, "other", b"1")
            await publish(w, "paid", b"1", channel="elsewhere")
            await publish(w, "paid", b'{\n "a": [1]}', run_id=RUN, metadata='{"m": 1}')
            await publish(w, "sent", b"no JSON\n")
            await until(lambda: b"no JSON" in b"".join(stream.chunks))
        events = b"".join(stream.chunks[1:]).split(b"\n\n")
        assert events.pop() == b""
        first, second = (json.loads(event.removeprefix(b"data: ")) for event in events)
        created = first.pop("created_at")
        assert created.endswith("Z")
        assert first == {
            "kind": "data",
            "channel": "orders",
            "topic": "paid",
            "data": {"a": [1]},
            "env_id": "00000000-0000-4000-b000-000000000000",
            "run_id": RUN,
            "metadata": {"m": 1},
        }
        assert (second["topic"], second["data"]) == ("sent", "no JSON\n")
        assert "run_id" not in second


async def test_a_message_may_have_several_topics() -> None:
    async with world() as w:
        with w.engine.channels.listening([("c", "a"), ("c", "b")]) as listener:
            await w.http.post("/v1/realtime/publish?channel=c&topic=a&topic=b", content=b"1")
            taken = [json.loads(part.removeprefix(b"data: ")) for part in listener.take()]
        assert [message["topic"] for message in taken] == ["a", "b"]


async def test_a_stream_of_text_is_published_in_pieces() -> None:
    async with world() as w:
        with w.engine.channels.listening([("orders", "t")], bytes, raw=False) as listener:
            headers = {"content-type": "text/stream; charset=utf-8"}
            text = "\u20ac" * 700
            response = await w.http.post(
                "/v1/realtime/publish?channel=orders&topic=t",
                content=text.encode() + b"\xe2",
                headers=headers,
            )
            assert response.status_code == 200
            start, *chunks, end = map(json.loads, listener.take())
            assert (start["kind"], end["kind"]) == ("datastream-start", "datastream-end")
            assert start["data"] == end["data"] == chunks[0]["stream_id"]
            assert {chunk["kind"] for chunk in chunks} == {"chunk"}
            assert all(len(chunk["data"].encode()) <= 1026 for chunk in chunks)
            assert "".join(chunk["data"] for chunk in chunks) == text + "\ufffd"
            large = await w.http.post(
                "/v1/realtime/publish?channel=orders&topic=t",
                content=b"x" * (1024 * 1000 + 1),
                headers=headers,
            )
            assert large.status_code == 413
            kinds = [json.loads(message)["kind"] for message in listener.take()]
            assert kinds == ["datastream-start", *["chunk"] * 1000, "datastream-end"]


@pytest.mark.parametrize(
    ("query", "size", "status", "field"),
    [
        ("topic=t", 1, 400, "channel"),
        ("channel=c", 1, 400, "topic"),
        ("channel=c&topic=", 1, 400, "topic"),
        ("channel=c&" + "&".join(f"topic=t{n}" for n in range(101)), 1, 400, "topic"),
        ("channel=c&topic=t&metadata=x", 1, 400, "metadata"),
        ("channel=c&topic=t", 512 * 1024 + 1, 413, "body"),
    ],
)
async def test_messages_that_cannot_be_published(
    query: str, size: int, status: int, field: str
) -> None:
    async with world() as w:
        with w.engine.channels.listening([("c", "t")]) as listener:
            response = await w.http.post(f"/v1/realtime/publish?{query}", content=b"1" * size)
            assert response.status_code == status
            assert response.json()["error"].startswith(f"{field}: ")
            assert listener.take() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "body"),
        (b"[]", "body"),
        (b"[1]", "[0]"),
        (b'[{"channel":"c"}]', "[0]"),
        (b'[{"channel":"","name":"t"}]', "[0].channel"),
    ],
)
async def test_tokens_that_cannot_be_made(body: bytes, field: str) -> None:
    async with world() as w:
        response = await w.http.post("/v1/realtime/token", content=body)
        assert response.status_code == 400
        assert response.json()["error"].startswith(f"{field}: ")


async def test_a_minted_token_lasts_a_minute_and_needs_the_signing_key() -> None:
    async with world(signing_keys=(KEY,)) as w:
        path = "/v1/realtime/publish?channel=c&topic=t"
        for refused in (await w.http.post("/v1/realtime/token", json=[]), await w.http.post(path)):
            assert refused.status_code == 401
        w.http.headers["authorization"] = f"Bearer {KEY}"
        token = await minted(w, "t")
        w.clock.advance(60)
        assert (await w.http.get(f"/v1/realtime/sse?token={token}")).status_code == 401


class Socket:
    """A websocket that is connected to the engine."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._said.put_nowait({"type": "websocket.connect"})

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        return await self._said.get()

    def say(self, wish: Any) -> None:
        text = wish if isinstance(wish, str) else json.dumps(wish)
        self._said.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1000})

    @property
    def heard(self) -> list[Any]:
        return [json.loads(m["text"]) for m in self.sent if m["type"] == "websocket.send"]


@asynccontextmanager
async def connected(w: World, token: str, **headers: str) -> AsyncGenerator[Socket]:
    socket = Socket()
    scope = {
        "type": "websocket",
        "path": "/v1/realtime/connect",
        "query_string": f"token={token}".encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    task = asyncio.create_task(w.app(scope, socket.receive, socket.send))
    await until(lambda: socket.sent)
    yield socket
    socket.leave()
    await task
    assert len(w.engine.channels) == 0


async def test_messages_come_by_websocket() -> None:
    async with world() as w, connected(w, await minted(w, "paid")) as socket:
        assert socket.sent[0]["type"] == "websocket.accept"
        await publish(w, "sent", b"0")
        await publish(w, "paid", b'{"a": 1}')
        await until(lambda: socket.heard)
        assert [(m["topic"], m["data"]) for m in socket.heard] == [("paid", {"a": 1})]
        # Further topics, and fewer.
        socket.say({"kind": "sub", "data": await minted(w, "sent")})
        await until(lambda: len(w.engine.channels._listeners) == 2)
        socket.say({"kind": "unsub", "data": [{"channel": "orders", "name": "paid"}]})
        await until(lambda: len(w.engine.channels._listeners) == 1)
        await publish(w, "paid", b"1")
        await publish(w, "sent", b"2")
        socket.say({"kind": "ping"})
        await until(lambda: len(socket.heard) == 3)
        assert socket.heard[1]["data"] == 2
        assert socket.heard[2] == {"kind": "pong"}


async def test_streams_of_bytes_are_no_messages() -> None:
    async with world() as w:
        token = (await w.post(step()))["realtime_token"]
        async with connected(w, token) as socket:
            await w.http.post(f"/v1/realtime/publish/tee?channel={RUN}", content=b"event: x\n\n")
            await publish(w, STREAM, b"1", channel=RUN)
            await until(lambda: socket.heard)
            assert [message["data"] for message in socket.heard] == [1]


@pytest.mark.parametrize(
    "wish",
    [
        "no JSON",
        {"kind": "what"},
        {"kind": "sub", "data": "a.b.c"},
        {"kind": "sub", "data": 1},
        {"kind": "unsub", "data": []},
    ],
)
async def test_what_a_client_says_that_is_not_understood_ends_its_connection(wish: Any) -> None:
    async with world() as w, connected(w, await minted(w, "t")) as socket:
        socket.say(wish)
        await until(lambda: socket.sent[-1]["type"] == "websocket.close")
        assert socket.sent[-1]["code"] == 1008
        assert socket.sent[-1]["reason"]


async def test_websockets_end_with_the_engine() -> None:
    async with world() as w, connected(w, await minted(w, "t")) as socket:
        w.engine.drain()
        await until(lambda: socket.sent[-1]["type"] == "websocket.close")
        assert socket.sent[-1]["code"] == 1001


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "https://evil.example"}, {"host": "evil.example"}],
    ids=["no token", "another site's page", "a name that leads here"],
)
async def test_websockets_that_are_not_accepted(headers: dict[str, str]) -> None:
    async with world(trusted_hosts=("engine.test",)) as w:
        token = await minted(w, "t") if headers else "a.b.c"
        async with connected(w, token, **headers) as socket:
            assert [message["type"] for message in socket.sent] == ["websocket.close"]
