"""The record of a run that ended in its first request and never waited: one checkpoint, encoded
together with those of others.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import msgspec
from msgspec import Struct

from stephttp._client.api_calls import NEW_RUN
from stephttp._client.outbox import Item, Outbox
from stephttp._client.outbox_batch import Parcel
from stephttp._core.reports import run_complete
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
_GUESS = 1024
"""Bytes of a record that is not encoded yet."""


class Record(Struct, eq=False, gc=False):
    """What the server gets to know of a run that has ended."""

    checkpoints: Checkpoints
    run: Run
    ops: list[Op]
    request: Request
    response: Response
    """What the handler answered."""
    ended_ns: int
    duration_ns: int
    error: str | None
    """What the handler raised, in words."""

    def encode(self) -> bytes:
        """Return the checkpoint; without what is large, if no server would read that."""
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
        complete = run_complete(
            self.response, duration_ns=self.duration_ns, error=self.error, lossy=True
        )
        ops = [*self.ops, complete]
        return self.checkpoints.first_checkpoint(self.run, self.request, ops, at_ns=self.ended_ns)


class FinishedRun(Item):
    """A record in the outbox. Where two threads come to encode it at once, each makes the same of
    it."""

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        Item.__init__(self)  # `super` takes more instructions
        if record.request.body:
            shorten(record.request)
        self._record: Record | None = record

    def size(self) -> int:
        return Item.size(self) or _GUESS

    def take(self) -> Parcel | None:
        record = self._record
        if record is not None:
            self._parcel = Parcel(NEW_RUN, record.encode())
            self._record = None
        return self._parcel


def encode_together(outbox: Outbox, run: FinishedRun) -> None:
    """Encode the finished runs of an outbox, if enough of them wait for that.

    What waits when it is sent is encoded then: few runs in a long time do not wait for others.

    Args:
        run: another one, which is being put there.
    """
    outbox.unencoded.append(run)
    if len(outbox.unencoded) >= TOGETHER:
        runs, outbox.unencoded = outbox.unencoded, []
        with suppress(Exception):  # it is raised again, and logged, where that run is to be sent
            for one in runs:
                one.take()
        outbox.weigh(runs)
