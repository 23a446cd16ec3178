"""`/v1/realtime`: the live stream of a run, as SDKs' streaming clients read it (PROTOCOL 8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from stephttp.engine.api.messages import engine_of, error_response
from stephttp.engine.models import Refused
from stephttp.engine.tokens import read_realtime_token

if TYPE_CHECKING:
    from stephttp.engine.app import Engine

_MOST_TEED = 1_024_000
_KEEP_ALIVE = b":\n\n"
_SSE_HEADERS = {
    "cache-control": "no-cache",
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "Content-Type",
}


async def sse(request: Request) -> Response:
    """Follow a run's stream: what is published from now on."""
    engine = engine_of(request)
    token = request.query_params.get("token")
    if token is None:
        token = request.headers.get("authorization", "").partition(" ")[2]
    channel = read_realtime_token(token.strip(), engine.store.secret, int(engine.clock.now()))
    if channel is None:
        headers = {"access-control-allow-origin": "*"}
        return error_response("Not authenticated", 401, headers)
    stream = _follow(engine, channel)
    return StreamingResponse(stream, headers=_SSE_HEADERS, media_type="text/event-stream")


async def tee(request: Request) -> Response:
    """Hand the bytes of the body to whoever follows the channel, as they come."""
    engine = engine_of(request)
    channel = request.query_params.get("channel")
    if not channel:
        raise Refused("channel: must name the run whose stream this is")
    over = asyncio.Event()
    passing = asyncio.create_task(_pass_on(request, engine, channel))
    passing.add_done_callback(lambda _: over.set())
    end_ms = engine.clock.now_ms() + round(engine.settings.stream_lifetime * 1000)
    try:
        # JS never ends the body that it began in a re-entry which did not finish the run.
        while not over.is_set() and engine.clock.now_ms() < end_ms:
            await engine.clock.wait_until(end_ms, over)
    finally:
        passing.cancel()
    if over.is_set():
        await passing
    return Response()


async def _pass_on(request: Request, engine: Engine, channel: str) -> None:
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > _MOST_TEED:
                raise Refused(f"body: larger than {_MOST_TEED} bytes", 413)
            if chunk:
                engine.channels.publish(channel, chunk)
    except ClientDisconnect:
        pass  # What had arrived is passed on.


async def _follow(engine: Engine, channel: str) -> AsyncGenerator[bytes]:
    clock, settings = engine.clock, engine.settings
    end_ms = clock.now_ms() + round(settings.stream_lifetime * 1000)
    quiet_ms = round(settings.stream_keep_alive * 1000)
    with engine.channels.listening(channel) as listener:
        yield _KEEP_ALIVE
        said_ms = clock.now_ms()
        while not listener.over and clock.now_ms() < end_ms:
            await clock.wait_until(min(end_ms, said_ms + quiet_ms), listener.wake)
            chunk = listener.take()
            if not chunk and clock.now_ms() >= said_ms + quiet_ms:
                chunk = _KEEP_ALIVE
            if chunk:
                said_ms = clock.now_ms()
                yield chunk
