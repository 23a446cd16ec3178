"""Live pages: what has changed, sent to open pages as server-sent events; the pages then look
again.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from stephttp.engine.dashboard.page_request import PageRequest
from stephttp.engine.live.changes import ChangeListener, Update
from stephttp.engine.web.event_stream import ChangeEvents, EventSource, event_stream

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

MOST_LISTENERS = 200
"""Pages that can listen at once."""

_MOST_NAMED = 100
"""Runs that one message names; if more have changed, pages look at everything."""

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


async def live(request: PageRequest) -> Response:
    """Send what changes, for as long as the session lasts and at most `stream_lifetime`."""
    engine = request.engine
    if len(engine.changes) >= MOST_LISTENERS:
        message = "Too many pages listen already.\n"
        return PlainTextResponse(message, 503, {"retry-after": "30"})
    session = request.session
    expires_s = None if session is None else session.expires_s
    return stream(engine, None if expires_s is None else expires_s * 1000)


def stream(engine: Engine, end_ms: int | None = None) -> StreamingResponse:
    """Make the stream of changes, which ends at `end_ms` at the latest."""
    return event_stream(engine, _changes(engine), _HEADERS, end_ms)


class _PageUpdates(ChangeEvents):
    pause_ms = 200  # A busy engine changes more than anyone can read.

    def __init__(self, listener: ChangeListener, published: int) -> None:
        super().__init__(listener)
        # A page that was made before something else changed sees it by this number.
        self.opening = b"event: hello\ndata: %d\n\n" % published

    def written(self, changes: Update) -> bytes:
        if changes.over:
            return b""
        every = changes.lost or len(changes.run_ids) > _MOST_NAMED
        data = {
            "runs": [] if every else sorted(changes.run_ids),
            "all": every,
            "events": changes.events,
        }
        return b"data: " + msgspec.json.encode(data) + b"\n\n"


@contextmanager
def _changes(engine: Engine) -> Generator[EventSource]:
    with engine.changes.listening() as listener:
        yield _PageUpdates(listener, engine.changes.published)
