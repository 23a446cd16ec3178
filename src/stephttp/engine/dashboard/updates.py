"""What has changed, told to open pages as server-sent events; they then look again themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from stephttp.engine.dashboard.page_request import PageRequest

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

MOST_LISTENERS = 200
"""Pages that can listen at once."""

_MOST_NAMED = 100
"""Runs that one message names; if more have changed, pages look at everything."""

_PAUSE_MS = 200
"""Between two messages: a busy engine changes more than anybody can read."""


async def live(request: PageRequest) -> Response:
    """The stream of changes, for as long as the session lasts and at most `stream_lifetime`."""
    engine = request.engine
    if len(engine.feed) >= MOST_LISTENERS:
        message = "Too many pages listen already.\n"
        return PlainTextResponse(message, 503, {"retry-after": "30"})
    end_ms = engine.clock.now_ms() + round(engine.settings.stream_lifetime * 1000)
    if request.session is not None and request.session.expires_s is not None:
        end_ms = min(end_ms, request.session.expires_s * 1000)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    stream = _follow(engine, end_ms)
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _follow(engine: Engine, end_ms: int) -> AsyncGenerator[bytes]:
    clock = engine.clock
    quiet_ms = round(engine.settings.stream_keep_alive * 1000)
    never = asyncio.Event()
    with engine.feed.listening() as listener:
        # A page that was made before something else changed sees it by this number.
        yield b"event: hello\ndata: %d\n\n" % engine.feed.published
        while (now_ms := clock.now_ms()) < end_ms:
            await clock.wait_until(min(end_ms, now_ms + quiet_ms), listener.wake)
            changes = listener.take()
            if changes.over:
                return
            if not changes:
                yield b":\n\n"
                continue
            every = changes.lost or len(changes.run_ids) > _MOST_NAMED
            told = {
                "runs": [] if every else sorted(changes.run_ids),
                "all": every,
                "events": changes.events,
            }
            yield b"data: " + msgspec.json.encode(told) + b"\n\n"
            await clock.wait_until(clock.now_ms() + _PAUSE_MS, never)
