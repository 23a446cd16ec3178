"""Server-sent events: the one loop that writes them, with heartbeats.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from stephttp.engine.live.changes import ChangeListener, Update

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

KEEP_ALIVE = b":\n\n"
"""A comment, which clients ignore and proxies do not."""


def event_number(text: str) -> int:
    """Return the number of the last event that a client has, as it says it; 0 if it has none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


class EventSource:
    """What a stream tells. A subclass says where its events come from.

    Attributes:
        wake: set when there is something to take.
        opening: what the stream begins with, so that clients see at once that it is open.
        pause_ms: how long the stream rests after each event.
    """

    opening = KEEP_ALIVE
    pause_ms = 0

    def __init__(self, wake: asyncio.Event) -> None:
        self.wake = wake

    @property
    def over(self) -> bool:
        """Whether nothing will come any more: the engine stops, or the client is too slow."""
        raise NotImplementedError

    def take(self) -> bytes:
        """Return all events since the last time as they are sent; empty if nothing happened."""
        raise NotImplementedError


class ChangeEvents(EventSource):
    """The changes in the engine, as a stream. A subclass says how they are written.

    Args:
        listener: collects the changes.
    """

    def __init__(self, listener: ChangeListener) -> None:
        super().__init__(listener.wake)
        self._listener = listener
        self._over = False

    @property
    def over(self) -> bool:
        """Whether the engine stops."""
        return self._over

    def take(self) -> bytes:
        """Return what has changed since the last time, as it is sent."""
        changes = self._listener.take()
        self._over = changes.over
        return self.written(changes) if changes else b""

    def written(self, changes: Update) -> bytes:
        """Return what is sent of changes; empty for nothing."""
        raise NotImplementedError


def event_stream(
    engine: Engine,
    source: AbstractContextManager[EventSource],
    headers: Mapping[str, str],
    end_ms: int | None = None,
) -> StreamingResponse:
    """Answer with a stream of events, for at most `stream_lifetime`.

    Args:
        source: entered when the stream begins, and left when it ends or the client leaves.
        headers: of the response.
        end_ms: when the stream ends at the latest, if that may be earlier.
    """
    latest_ms = engine.clock.now_ms() + round(engine.settings.stream_lifetime * 1000)
    end_ms = latest_ms if end_ms is None else min(end_ms, latest_ms)
    body = _events(engine, source, end_ms)
    return StreamingResponse(body, headers=headers, media_type="text/event-stream")


async def _events(
    engine: Engine, listening: AbstractContextManager[EventSource], end_ms: int
) -> AsyncGenerator[bytes]:
    clock = engine.clock
    quiet = engine.settings.stream_keep_alive
    # When the client leaves, Starlette cancels this; nothing else need be done for that.
    with listening as source:
        yield source.opening
        sent = clock.monotonic()
        while not source.over and (left := (end_ms - clock.now_ms()) / 1000) > 0:
            await clock.wait_for(min(left, sent + quiet - clock.monotonic()), source.wake)
            events = source.take()
            if not events and clock.monotonic() >= sent + quiet:
                events = KEEP_ALIVE
            if not events:
                continue
            sent = clock.monotonic()
            yield events
            if source.pause_ms:
                await clock.wait_for(source.pause_ms / 1000)
