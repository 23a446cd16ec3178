"""How long a WSGI thread is held for a caller who waits at `result_path`, so that one thread stays
free.

A caller who waits has a thread to itself, and the call of the server by which its run ends needs
one as well. So one thread at least is never held for longer than a moment. No server says how many
threads it has; those that have served a request are known to exist.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from stephttp._wire.result_address import SHORTEST_HOLD

_UNPROVEN = 5.0
"""Seconds for which the only known thread of a server with threads is held: there may be no other,
whatever the server says."""

_MOST_KNOWN = 10_000
"""Threads; a server that makes one for each request has any number of them."""


class Holds:
    """The threads of one process, and how many of them are held. Thread-safe."""

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start afresh, in a process that was forked."""
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        self._held = 0

    def seen(self) -> None:
        """Note that this thread serves requests."""
        if len(self._threads) < _MOST_KNOWN:
            self._threads.add(threading.get_ident())

    @contextmanager
    def taken(self, seconds: float, *, threaded: bool) -> Generator[float]:
        """Hold this thread while the block runs; provides for how long that may be.

        Args:
            seconds: what is wanted.
            threaded: whether the process has more than one thread for requests, as it says.
        """
        self.seen()
        with self._lock:
            known = len(self._threads)
            longest = seconds if known > 1 else _UNPROVEN
            long = threaded and self._held < max(1, known - 1)
            self._held += long
        try:
            yield min(seconds, longest if long else SHORTEST_HOLD)
        finally:
            with self._lock:
                self._held -= long
