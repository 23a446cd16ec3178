"""One at a time, for tasks and threads alike."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future

from stephttp._client.flow import Flow, Until


class KeyedLock:
    """Lets one at a time through for each name, in the order in which they came. Thread-safe."""

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start anew, in a process that was forked."""
        self._lock = threading.Lock()
        self._queues: dict[str, deque[Future[None]]] = {}

    def enter(self, name: str) -> Flow[bool]:
        """Wait for one's turn. After it, call `leave`.

        Returns:
            Whether somebody was before us.
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

    def awaited(self, name: str) -> bool:
        """Whether somebody waits behind whose turn it is."""
        return len(self._queues.get(name, ())) > 1

    def leave(self, name: str) -> None:
        """Let the next one in."""
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
            self.leave(name)
