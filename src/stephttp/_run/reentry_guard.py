"""What a process remembers of re-entries: one of a run at a time, and each state that travels once.

See docs/design.md 3.11 and 3.13.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future

from stephttp._client.flow import Flow, Until
from stephttp._wire import stored_state
from stephttp._wire.http import Request

_FRESH_MS = round(stored_state.ASKS_AFTER * 1000)
"""Milliseconds for which a state that was sent can be taken. With an older one, the call would have
to ask before its first step anyway."""


ATTEMPT = b"x-stephttp-attempt"
"""On a re-entry by our engine: the exact number of attempts before (docs/design.md 3.8)."""
_ROOT = "step"
"""A server that sends this as the step wants the whole handler called."""


class KeyedLock:
    """Gives each name to one holder at a time, in the order in which they asked. Thread-safe."""

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start afresh, in a process that was forked."""
        self._lock = threading.Lock()
        self._queues: dict[str, deque[Future[None]]] = {}

    def acquire(self, name: str) -> Flow[bool]:
        """Wait until `name` is free, and take it. Call `release` afterwards.

        Returns:
            Whether another holder had it first.
        """
        mine: Future[None] = Future()
        with self._lock:
            queue = self._queues.setdefault(name, deque())
            queue.append(mine)
            if queue[0] is mine:
                return False
        try:
            yield Until(mine)
        except BaseException:
            self._give_up(name, mine)
            raise
        return True

    def contended(self, name: str) -> bool:
        """Whether others wait for `name` while it is held."""
        return len(self._queues.get(name, ())) > 1

    def release(self, name: str) -> None:
        """Give `name` to the next one that waits for it."""
        with self._lock:
            queue = self._queues[name]
            queue.popleft()
            if queue:
                queue[0].set_result(None)
            else:
                del self._queues[name]

    def _give_up(self, name: str, mine: Future[None]) -> None:
        with self._lock:
            waits = not mine.done()
            if waits:
                self._queues[name].remove(mine)
        if not waits:
            self.release(name)


def target_of(request: Request) -> str | None:
    """Return the hash of the one step that a server asks for."""
    target = request.header(b"x-inngest-step-id")
    return target if target not in ("", _ROOT) else None


def takes_turns(request: Request) -> bool:
    """Whether a call waits for others of its run: not if another server than ours asks for one
    step, which it does for several at the same time (docs/protocol.md 13.2)."""
    return bool(request.header(ATTEMPT)) or target_of(request) is None


def sent_ns(request: Request) -> int:
    """Return when the state was sent that came with a re-entry, in nanoseconds since the epoch."""
    return int(request.header(stored_state.SENT.encode())) * 1_000_000


class Deliveries:
    """The states of runs that came along and were taken: each by one process, once. Thread-safe.

    The engine names the process that may take a state. Any other has to ask for it, and so has a
    second delivery: a step may have been acknowledged meanwhile (docs/design.md 3.13).
    """

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start afresh, in a process that was forked."""
        self._lock = threading.Lock()
        self._taken: dict[tuple[str, ...], int] = {}
        self._latest_ms = 0
        self.process = os.urandom(12).hex()
        """The name of this process, for the engine."""

    def take(self, request: Request, now_ms: int) -> bool:
        """Return whether the state that came with a re-entry may be used, which is once so."""
        sent = request.header(stored_state.SENT.encode())
        if request.header(stored_state.RECEIVER.encode()) != self.process or not sent.isdecimal():
            return False
        names = (b"x-run-id", *(name.encode() for name in stored_state.CALL_HEADERS))
        call = tuple(request.header(name) for name in names)
        with self._lock:
            self._latest_ms = max(self._latest_ms, now_ms)
            # What was forgotten must stay too old, also after the clock went back.
            fresh = abs(self._latest_ms - int(sent)) <= _FRESH_MS
            if not fresh or call in self._taken:
                return False
            self._taken[call] = now_ms
            while (oldest := next(iter(self._taken))) != call:
                if self._latest_ms - self._taken[oldest] <= 3 * _FRESH_MS:
                    break
                del self._taken[oldest]
            return True
