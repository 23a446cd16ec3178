"""`POST /v1/realtime/publish`: what listeners of topics get (docs/protocol.md 8.5)."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from stephttp._wire.json import UNREADABLE
from stephttp.engine.model import tokens
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.refused import Refused
from stephttp.engine.web.requests import engine_of, media_type_of, read_body

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_MOST_PUBLISHED = 512 * 1024
_PIECE = 1024
_MOST_PIECES = 1000
_MOST_TOPICS = 100
_STREAM_TYPE = "text/stream"


async def publish(request: Request) -> Response:
    """Send a message to all who listen to the topics: the body, as JSON or else as text.

    A body of the type `text/stream` is passed on piece by piece, as it comes.
    """
    engine = engine_of(request)
    query = request.query_params
    channel = channel_of(request, "where to publish")
    topics = [topic for topic in query.getlist("topic") if topic]
    if not 0 < len(topics) <= _MOST_TOPICS:
        raise Refused(f"topic: from one to {_MOST_TOPICS} must be named, not {len(topics)}")
    about: dict[str, Any] = {"channel": channel, "env_id": tokens.ENVIRONMENT_ID}
    if query.get("run_id"):
        about["run_id"] = query["run_id"]
    if query.get("metadata"):
        about["metadata"] = _metadata(query["metadata"])
    send = partial(_send, engine, topics, about)
    if media_type_of(request) == _STREAM_TYPE:
        await while_it_may_last(engine, _pieces(request, engine, send))
    else:
        send("data", data=_as_json(await read_body(request, _MOST_PUBLISHED)))
    return Response()


def _send(engine: Engine, topics: list[str], about: dict[str, Any], kind: str, **more: Any) -> None:
    """Make a message for each topic, and publish it."""
    made = {"kind": kind, "created_at": rfc3339(engine.clock.now_ms()), **about, **more}
    for topic in topics:
        message = msgspec.json.encode({**made, "topic": topic})
        engine.channels.publish((about["channel"], topic), message)


async def _pieces(request: Request, engine: Engine, send: Any) -> None:
    stream_id = tokens.new_ulid(engine.clock.now_ms(), engine.rng)
    send("datastream-start", data=stream_id)
    try:
        decoder, left = codecs.getincrementaldecoder("utf-8")("replace"), _MOST_PIECES
        async for chunk in request.stream():
            for start in range(0, len(chunk), _PIECE):
                if not left:
                    raise Refused(f"body: more than {_MOST_PIECES} pieces", 413)
                left -= 1
                piece = decoder.decode(chunk[start : start + _PIECE])
                if piece:
                    send("chunk", stream_id=stream_id, data=piece)
        rest = decoder.decode(b"", final=True)
        if rest:
            send("chunk", stream_id=stream_id, data=rest)
    except ClientDisconnect:
        pass  # What had arrived is passed on.
    finally:
        send("datastream-end", data=stream_id)


async def while_it_may_last(engine: Engine, work: Awaitable[None]) -> None:
    """Wait for work, but cut it off when it has taken as long as a stream may last."""
    over = asyncio.Event()
    passing = asyncio.ensure_future(work)
    passing.add_done_callback(lambda _: over.set())
    try:
        await engine.clock.wait_for(engine.settings.stream_lifetime, over)
        if passing.done():
            await passing
    finally:
        passing.cancel()


def channel_of(request: Request, what: str) -> str:
    channel = request.query_params.get("channel")
    if not channel:
        raise Refused(f"channel: must name {what}")
    return channel


def _metadata(text: str) -> Raw:
    raw = _json(text.encode())
    if raw is None:
        raise Refused("metadata: not JSON")
    return raw


def _as_json(body: bytes) -> Any:
    raw = _json(body)
    return body.decode("utf-8", "replace") if raw is None else raw


def _json(text: bytes) -> Raw | None:
    """Return JSON in one line, as server-sent events need it; `None` if it is not JSON."""
    try:
        msgspec.json.decode(text)
        return Raw(msgspec.json.format(text, indent=-1))
    except UNREADABLE:
        return None
