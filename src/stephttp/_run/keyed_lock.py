"""A lock for each name, for tasks and threads alike."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future

from stephttp._client.flow import Flow, Until


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
