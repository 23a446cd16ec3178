"""`/v1/realtime`: tokens for topics, and listening by server-sent events or websocket
(docs/protocol.md 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Raw, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from stephttp.engine.api.sdk.streaming import follow_run
from stephttp.engine.live.channels import STREAM, ChannelListener, as_it_is
from stephttp.engine.model import tokens
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.values import Topic
from stephttp.engine.web.event_stream import EventSource, event_stream
from stephttp.engine.web.fields import AnswerBody
from stephttp.engine.web.requests import decode, engine_of, read_json
from stephttp.engine.web.responses import error_response, json_response

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_SSE_HEADERS = {
    "cache-control": "no-cache",
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "Content-Type",
}
_MINTED_LIFETIME = 60
"""Seconds in which a token from `token` must be used."""
_MOST_TOPICS = 1000
"""Topics of one listener."""
_NOT_ALLOWED, _GOING_AWAY = 1008, 1001
"""Codes of RFC 6455, 7.4.1."""
_LONGEST_REASON = 100
"""Characters; RFC 6455 lets a reason have 123 bytes."""

_Name = Annotated[str, Meta(min_length=1, max_length=512)]


class TopicName(Struct):
    """A topic, as SDKs name it. Runs are the only kind."""

    channel: _Name
    name: _Name
    kind: str = "run"


class NewToken(AnswerBody):
    """What opens topics: as `token` in the query of `sse` and `connect`."""

    jwt: str


class ClientMessage(Struct):
    """A message of a websocket's client: `sub` with a token, `unsub` with topics, or `ping`."""

    kind: str
    data: Raw = Raw(b"null")


_TOPICS = msgspec.json.Decoder(Annotated[list[TopicName], Meta(min_length=1, max_length=100)])
_MESSAGE = msgspec.json.Decoder(ClientMessage)
_TEXT = msgspec.json.Decoder(str)


async def token(request: Request) -> Response:
    """Make a token that lets its bearer listen to topics."""
    engine = engine_of(request)
    wanted = await read_json(request, _TOPICS)
    now_ms = engine.clock.now_ms()
    jwt = tokens.realtime_token(
        _pairs(wanted), engine.store.secret, now_ms // 1000, _MINTED_LIFETIME,
        tokens.new_ulid(now_ms, engine.rng),
    )  # fmt: skip
    return json_response(NewToken(jwt), 201)


async def sse(request: Request) -> Response:
    """Follow topics by server-sent events: what is published from now on.

    Of a run, all that its stream keeps comes first, and it ends with the answer of the handler.
    """
    engine = engine_of(request)
    topics = _topics(engine, request.query_params.get("token"), request.headers)
    if topics is None:
        headers = {"access-control-allow-origin": "*"}
        return error_response("Not authenticated", 401, headers)
    if len(topics) == 1 and topics[0][1] == STREAM:
        return follow_run(engine, topics[0][0], request, _SSE_HEADERS)
    return event_stream(engine, _messages(engine, topics), _SSE_HEADERS)


async def connect(websocket: WebSocket) -> None:
    """Follow topics by websocket: each message of the topics is one of the connection.

    Streams of bytes (`publish/tee`) are not messages, so only `sse` has them. A client may change
    what it listens to, see `ClientMessage`; what is not understood ends the connection.
    """
    engine: Engine = websocket.app.state.engine
    topics = _topics(engine, websocket.query_params.get("token"), websocket.headers)
    if topics is None:
        await websocket.close()  # not accepted yet: 403
        return
    await websocket.accept()
    with engine.channels.listening(topics, as_it_is, raw=False) as listener:
        reading = asyncio.create_task(_obey(websocket, engine, listener))
        sending = asyncio.create_task(_send(websocket, listener))
        try:
            await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            sending.cancel()
            refusal, _ = await asyncio.gather(reading, sending, return_exceptions=True)
    with suppress(WebSocketDisconnect, RuntimeError):  # it may be closed already
        if isinstance(refusal, Refused):
            await websocket.close(_NOT_ALLOWED, str(refusal)[:_LONGEST_REASON])
        elif listener.over:
            await websocket.close(_GOING_AWAY, "the engine stops, or messages were not read")


async def _send(websocket: WebSocket, listener: ChannelListener) -> None:
    while not listener.over:
        await listener.wake.wait()
        for message in listener.take():
            await websocket.send_text(message.decode())


async def _obey(websocket: WebSocket, engine: Engine, listener: ChannelListener) -> None:
    while (received := await websocket.receive())["type"] == "websocket.receive":
        body = received.get("bytes") or (received.get("text") or "").encode()
        message = decode(_MESSAGE, body)
        if message.kind == "ping":
            listener.put(b'{"kind":"pong"}')
        elif message.kind == "sub":
            topics = _topics(engine, decode(_TEXT, bytes(message.data)), {})
            if topics is None:
                raise Refused("data: Not authenticated")
            if len(listener.topics.union(topics)) > _MOST_TOPICS:
                raise Refused(f"data: more than {_MOST_TOPICS} topics")
            engine.channels.join(listener, topics)
        elif message.kind == "unsub":
            # By itself: msgspec 0.23 has decoders of a list that are not ones of a sequence.
            names = decode(_TOPICS, bytes(message.data))
            engine.channels.leave(listener, _pairs(names))
        else:
            raise Refused(f"kind: {message.kind[:64]!r} is not one of sub, unsub, ping")


def _topics(engine: Engine, token: str | None, headers: Mapping[str, str]) -> list[Topic] | None:
    """Return what a client may listen to; `None`: it has no token for that."""
    if token is None:
        token = headers.get("authorization", "").partition(" ")[2]
    now_s = int(engine.clock.now())
    return tokens.read_realtime_token(token.strip(), engine.store.secret, now_s)


def _pairs(topics: Sequence[TopicName]) -> list[Topic]:
    return [(topic.channel, topic.name) for topic in topics]


class _Messages(EventSource):
    def __init__(self, listener: ChannelListener) -> None:
        super().__init__(listener.wake)
        self._listener = listener

    @property
    def over(self) -> bool:
        return self._listener.over

    def take(self) -> bytes:
        return b"".join(self._listener.take())


@contextmanager
def _messages(engine: Engine, topics: Sequence[Topic]) -> Generator[EventSource]:
    with engine.channels.listening(topics) as listener:
        yield _Messages(listener)
