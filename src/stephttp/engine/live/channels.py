"""Live streams: who listens to which topics. Nothing is kept for those who come later."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

import msgspec

from stephttp.engine.model.run import Topic

MOST_WAITING = 2 * 1024 * 1024
"""Bytes that may wait for one listener; one that falls further behind is let go."""

STREAM = "$stream"
"""The topic of a run's channel (its id) in which SDKs follow what the handler writes."""


class Listener:
    """What has arrived for one listener and was not taken yet.

    Args:
        frame: how it gets messages.
        raw: whether it gets streams of bytes.

    Attributes:
        wake: set when something has arrived, or the stream is over.
        over: nothing will arrive any more.
    """

    def __init__(self, frame: Callable[[bytes], bytes], *, raw: bool) -> None:
        self.wake = asyncio.Event()
        self.over = False
        self.topics: set[Topic] = set()
        self.raw = raw
        self._frame = frame
        self._parts: deque[bytes] = deque()
        self._size = 0

    def put(self, part: bytes) -> None:
        """Something has arrived. What does not fit ends it: a gap would not be noticed."""
        if not self.over:
            self._parts.append(part)
            self._size += len(part)
            self.over = self._size > MOST_WAITING
        self.wake.set()

    def message(self, message: bytes) -> None:
        """A message has arrived, as JSON."""
        self.put(self._frame(message))

    def take(self) -> list[bytes]:
        """All that has arrived, in its order."""
        self.wake.clear()
        taken = list(self._parts)
        self._parts.clear()
        self._size = 0
        return taken


def as_event(message: bytes) -> bytes:
    """A message as server-sent event."""
    return b"data: " + message + b"\n\n"


def as_it_is(message: bytes) -> bytes:
    """A message by itself."""
    return message


class Channels:
    """The channels of an engine, each with topics."""

    def __init__(self) -> None:
        self._listeners: dict[Topic, set[Listener]] = {}
        self._released = False

    @contextmanager
    def listening(
        self,
        topics: Iterable[Topic],
        frame: Callable[[bytes], bytes] = as_event,
        *,
        raw: bool = True,
    ) -> Generator[Listener]:
        """A listener of topics, while the block runs.

        Args:
            topics: what it listens to at first.
            frame: how it gets messages.
            raw: whether it also gets streams of bytes, which have no frame.
        """
        listener = Listener(frame, raw=raw)
        listener.over = self._released
        self.join(listener, topics)
        try:
            yield listener
        finally:
            self.leave(listener, list(listener.topics))

    def join(self, listener: Listener, topics: Iterable[Topic]) -> None:
        """Listen to further topics."""
        for topic in topics:
            listener.topics.add(topic)
            self._listeners.setdefault(topic, set()).add(listener)

    def leave(self, listener: Listener, topics: Iterable[Topic]) -> None:
        """Listen to these topics no longer."""
        for topic in topics:
            listener.topics.discard(topic)
            there = self._listeners.get(topic, set())
            there.discard(listener)
            if not there:
                self._listeners.pop(topic, None)

    def publish(self, topic: Topic, message: bytes) -> None:
        """Hand a message (JSON) to everybody who listens."""
        for listener in self._listeners.get(topic, ()):
            listener.message(message)

    def tee(self, channel: str, part: bytes) -> None:
        """Hand a part of a stream of bytes to everybody who follows it."""
        for listener in self._listeners.get((channel, STREAM), ()):
            if listener.raw:
                listener.put(part)

    def release(self) -> None:
        """Let every listener go: the engine stops."""
        self._released = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.over = True
                listener.wake.set()

    def __len__(self) -> int:
        """How many listen."""
        return len({one for listeners in self._listeners.values() for one in listeners})


def failed_event(body: bytes) -> bytes:
    """What ends the stream of a run that failed: SDKs send nothing themselves then."""
    response = {
        "body": body.decode("utf-8", "replace"),
        "statusCode": 500,
        "headers": {"content-type": "application/json"},
    }
    data = msgspec.json.encode({"status": "failed", "response": response})
    return b"event: inngest.response\ndata: " + data + b"\n\n"
