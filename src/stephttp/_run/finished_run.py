"""The record of a run that ended in its first request and never waited: one checkpoint, encoded
together with those of others.
"""

from __future__ import annotations

import logging

import msgspec
from msgspec import Struct

from stephttp._client.api_calls import NEW_RUN
from stephttp._client.outbox import Item, Outbox
from stephttp._client.outbox_batch import Parcel
from stephttp._core.reports import kept_bytes
from stephttp._core.run import Run
from stephttp._run.checkpoints import Checkpoints, shorten
from stephttp._wire.http import Request, Response
from stephttp._wire.limits import MAX_CHECKPOINT_BYTES
from stephttp._wire.opcodes import Op

logger = logging.getLogger("stephttp")

TOGETHER = 16
"""So many records are encoded in a row, at the end of one request. Then each takes half the time:
what the framework does in between would empty the processor's caches. More would keep alive what
many requests left, which the garbage collector has to look at."""
SMALL = 64 * 1024
"""Bytes of a record that may wait for others. A larger one would hold a request up that is not its
own, and hold more than the outbox has room for."""
_HEAD = 1024
"""Bytes of a record without bodies and results, roughly."""


_init = Item.__init__  # `super`, or to look it up each time, takes more instructions


class Record(Struct, eq=False, gc=False):
    """What the server gets to know of a run that has ended."""

    checkpoints: Checkpoints
    run: Run
    """What is read of it stays, whatever code outlives the handler: options, retries, limits."""
    ops: list[Op]
    request: Request
    response: Response
    """What the handler answered."""
    started_ns: int
    ended_ns: int
    error: str | None
    """What the handler raised, in words."""

    def encode(self) -> bytes:
        """Return the checkpoint. What is large goes, if no server would read it with that."""
        checkpoint = self._encode()
        size = len(checkpoint)
        if size <= MAX_CHECKPOINT_BYTES:
            return checkpoint
        self.request.body = self.response.body = b""
        what = "bodies"
        checkpoint = self._encode()
        if len(checkpoint) > MAX_CHECKPOINT_BYTES:
            for op in self.ops:
                op.data, op.opts = msgspec.UNSET, None
            what = "bodies and results"
            checkpoint = self._encode()
        logger.warning(
            "stephttp: the record of run %s has %d bytes, which is too many; %s are left out of it",
            self.run.run_id, size, what,
        )  # fmt: skip
        return checkpoint

    def _encode(self) -> bytes:
        duration_ns = max(0, self.ended_ns - self.started_ns)  # the clock may have been set
        complete = self.checkpoints.completed(
            self.response, duration_ns=duration_ns, error=self.error
        )
        ops = [*self.ops, complete]
        return self.checkpoints.first_checkpoint(self.run, self.request, ops, at_ns=self.ended_ns)


class FinishedRun(Item):
    """A record in the outbox. Where two threads come to encode a small one at once, each makes the
    same of it."""

    __slots__ = ("_record", "bytes")

    def __init__(self, record: Record) -> None:
        _init(self)
        if record.request.body:
            shorten(record.request)
        self._record: Record | None = record
        bodies = len(record.request.body) + len(record.response.body)
        self.bytes = _HEAD + bodies + sum(map(kept_bytes, record.ops))
        """How many there are, roughly until it is encoded."""

    def size(self) -> int:
        return self.bytes

    def take(self) -> Parcel | None:
        record = self._record
        if record is not None:
            try:
                body = record.encode()
                self._parcel, self.bytes = Parcel(NEW_RUN, body), len(body)
            except Exception:
                run_id = record.run.run_id
                logger.exception("stephttp: run %s cannot be encoded and is not recorded", run_id)
            self._record = None
        return self._parcel


class FinishedRuns:
    """Puts finished runs into an outbox, and encodes them in groups.

    Those that are sent before their group is full are encoded then.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Leave what waits to the parent."""
        self._group: list[FinishedRun] = []

    def put(self, run: FinishedRun) -> None:
        """Put a run into the outbox, if that has room, and encode its group, if that is full.
        Threads may do so at once: at worst, a run is left out of the groups."""
        if run.bytes > SMALL:
            run.take()
            self._outbox.put(run)
        elif self._outbox.put(run):
            self._group.append(run)
            if len(self._group) >= TOGETHER:
                group, self._group = self._group, []
                for one in group:
                    one.take()
