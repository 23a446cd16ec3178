"""The journal of a run that holds an idempotency key: its answer is stored before it is sent,
within 20 s (docs/design.md 3.14).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from stephttp._client import api_calls
from stephttp._client.flow import Flow, Until
from stephttp._client.outbox_batch import Parcel
from stephttp._run.journal import Journal
from stephttp._wire.opcodes import Op

STORE_TIMEOUT = 20.0
"""Seconds that a caller waits until the answer to its idempotency key is stored."""


class KeyedJournal(Journal):
    """The checkpoints of a run that holds an idempotency key, or claims one; see `Journal`."""

    __slots__ = ("_named", "_stored", "let_go")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._named = True
        """Whether the server has the run under the name of its endpoint, once it has the run."""
        self._stored: Future[bool] | None = None
        """Whether the end is stored, where a caller waits for that."""
        self.let_go: Callable[[], None] | None = None
        """Called once, when the run is not in the hands of this call any more."""

    def claimed(self, *, named: bool) -> None:
        """Take note that the run was opened in the foreground, with a lease.

        Args:
            named: whether its endpoint was known by then.
        """
        with self._lock:
            self._named = named
            self.note_opened()

    def store(self, complete: Op) -> Flow[bool]:
        """Do what `finish` does, and wait until it is stored; the lease is kept until then.

        Returns:
            Whether it is stored. If not yet, further attempts follow in the background.
        """
        stored: Future[bool] = Future()
        with self._lock:
            self._stored = stored
            self.awaited = True
        self.finish(complete)
        yield Until(stored, STORE_TIMEOUT)
        return stored.done() and stored.result()

    @property
    def _keeps_lease(self) -> bool:
        return self._stored is not None

    def _update(self, ops: list[Op], lease: int | None) -> Parcel:
        named = None if self._named or lease is None else self._request()
        if named is None:
            return super()._update(ops, lease)
        # Our engine takes this for an update. The body of the request it has already.
        self._named, named.body = True, b""
        self.lease.held = True
        body = self._checkpoints.first_checkpoint(self._run, named, ops, lease)
        return Parcel(api_calls.NEW_RUN, body)

    def _release(self, *, stored: bool = False) -> None:
        super()._release(stored=stored)
        if self._stored is not None and not self._stored.done():
            self._stored.set_result(stored)
        let_go, self.let_go = self.let_go, None
        if let_go is not None:
            let_go()
