"""Realtime channels with topics, and their listeners. Nothing is kept for later listeners."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from stephttp.engine.model.values import Topic

MOST_WAITING = 2 * 1024 * 1024
"""Bytes that may wait for one listener; the stream of one that falls further behind ends."""

STREAM = "$stream"
"""The topic of a run's channel (its id) in which SDKs follow what the handler writes."""


class ChannelListener:
    """Holds what has arrived for one listener until that takes it.

    Args:
        frame: makes bytes of a message for this listener.
        raw: whether it gets streams of bytes, too.

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
        """Add a part. One that does not fit ends the stream, since a gap would not be noticed."""
        if not self.over:
            self._parts.append(part)
            self._size += len(part)
            self.over = self._size > MOST_WAITING
        self.wake.set()

    def message(self, message: bytes) -> None:
        """Add a message, given as JSON."""
        self.put(self._frame(message))

    def take(self) -> list[bytes]:
        """Return and forget all that has arrived, in its order."""
        self.wake.clear()
        taken = list(self._parts)
        self._parts.clear()
        self._size = 0
        return taken


def as_event(message: bytes) -> bytes:
    """Write a message as a server-sent event."""
    return b"data: " + message + b"\n\n"


def as_it_is(message: bytes) -> bytes:
    """Leave a message as it is."""
    return message


class Channels:
    """The channels of an engine, each with topics."""

    def __init__(self) -> None:
        self._listeners: dict[Topic, set[ChannelListener]] = {}
        self._released = False

    @contextmanager
    def listening(
        self,
        topics: Iterable[Topic],
        frame: Callable[[bytes], bytes] = as_event,
        *,
        raw: bool = True,
    ) -> Generator[ChannelListener]:
        """Provide a listener of topics while the block runs.

        Args:
            topics: what it listens to at first.
            frame: makes bytes of a message for this listener.
            raw: whether it also gets streams of bytes, which have no frame.
        """
        listener = ChannelListener(frame, raw=raw)
        listener.over = self._released
        self.join(listener, topics)
        try:
            yield listener
        finally:
            self.leave(listener, list(listener.topics))

    def join(self, listener: ChannelListener, topics: Iterable[Topic]) -> None:
        """Listen to further topics."""
        for topic in topics:
            listener.topics.add(topic)
            self._listeners.setdefault(topic, set()).add(listener)

    def leave(self, listener: ChannelListener, topics: Iterable[Topic]) -> None:
        """Listen to these topics no longer."""
        for topic in topics:
            listener.topics.discard(topic)
            there = self._listeners.get(topic, set())
            there.discard(listener)
            if not there:
                self._listeners.pop(topic, None)

    def publish(self, topic: Topic, message: bytes) -> None:
        """Hand a message (JSON) to all listeners of a topic."""
        for listener in self._listeners.get(topic, ()):
            listener.message(message)

    def tee(self, channel: str, part: bytes) -> None:
        """Hand a part of a stream of bytes to all that follow the stream."""
        for listener in self._listeners.get((channel, STREAM), ()):
            if listener.raw:
                listener.put(part)

    def release(self) -> None:
        """End the streams of all listeners, because the engine stops."""
        self._released = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.over = True
                listener.wake.set()

    def __len__(self) -> int:
        """Return the number of listeners."""
        return len({one for listeners in self._listeners.values() for one in listeners})
