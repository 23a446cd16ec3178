"""Live streams: who listens to which channel. Nothing is kept for those who come later."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

MOST_WAITING = 2 * 1024 * 1024
"""Bytes that may wait for one listener; one that falls further behind is let go."""


class Listener:
    """What has arrived for one listener and was not taken yet.

    Attributes:
        wake: set when something has arrived, or the stream is over.
        over: nothing will arrive any more.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.over = False
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def put(self, chunk: bytes) -> None:
        """Something has arrived."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MOST_WAITING:
            self.over = True
        self.wake.set()

    def take(self) -> bytes:
        """All that has arrived; empty if nothing has."""
        self.wake.clear()
        taken = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        return taken


class Channels:
    """The channels of an engine. The channel of a run is its id."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}
        self._released = False

    @contextmanager
    def listening(self, channel: str) -> Generator[Listener]:
        """A listener of a channel, while the block runs."""
        listener = Listener()
        listener.over = self._released
        listeners = self._listeners.setdefault(channel, set())
        listeners.add(listener)
        try:
            yield listener
        finally:
            listeners.discard(listener)
            if not listeners and self._listeners.get(channel) is listeners:
                del self._listeners[channel]

    def publish(self, channel: str, chunk: bytes) -> None:
        """Hand a part of a stream to everybody who listens."""
        for listener in self._listeners.get(channel, ()):
            listener.put(chunk)

    def release(self) -> None:
        """Let every listener go: the engine stops."""
        self._released = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.over = True
                listener.wake.set()

    def __len__(self) -> int:
        """How many listen."""
        return sum(map(len, self._listeners.values()))


def failed_event(body: bytes) -> bytes:
    """What ends the stream of a run that failed: SDKs send nothing themselves then."""
    response = {
        "body": body.decode("utf-8", "replace"),
        "statusCode": 500,
        "headers": {"content-type": "application/json"},
    }
    data = msgspec.json.encode({"status": "failed", "response": response})
    return b"event: inngest.response\ndata: " + data + b"\n\n"
