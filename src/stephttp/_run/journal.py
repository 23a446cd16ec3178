"""`Checkpointing.safe`: reports the steps of a run to the server while its first request is still
being answered.

Used with `Checkpointing.safe` and the like; `keyed_journal` has that of a run which holds an
idempotency key. A journal is one item of the outbox: it is queued at most once, and says all there
is to say when its turn comes. So a run that ends quickly is one checkpoint, as without a journal.

With our engine the run holds a lease from the first checkpoint on. With a plain server the same
checkpoints go out, without it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from itertools import takewhile

from stephttp._client import api_calls
from stephttp._client.background import TimerHandle
from stephttp._client.flow import Flow, Until
from stephttp._client.leases import Leases, RunLease
from stephttp._client.outbox import Item, Outbox
from stephttp._client.outbox_batch import Parcel
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.reports import kept_bytes
from stephttp._core.run import Run
from stephttp._run.checkpoints import Checkpoints, shorten
from stephttp._run.lease_fence import LeaseFence
from stephttp._wire.http import Request
from stephttp._wire.opcodes import Op, OpCode
from stephttp.errors import APIError, APIStatusError

logger = logging.getLogger("stephttp")

HAND_OVER_TIMEOUT = 10.0
"""Seconds that a run which goes async waits for a plain server to take its opening."""


class Journal(Item):
    """The checkpoints of one run. Thread-safe: handler and outbox may be in different threads.

    Args:
        run: the run.
        request: returns the request that began it; `None` while its body is not complete, and then
            nothing is sent.
        mode: when to send.
        later: calls something after so many seconds.
    """

    __slots__ = (
        "_abandoned", "_checkpoints", "_closed", "_final", "_later", "_lock", "_outbox", "_request",
        "_run", "_sending", "_settled", "_timer", "fence", "lease", "mode", "opened", "token",
    )  # fmt: skip

    def __init__(
        self,
        run: Run,
        request: Callable[[], Request | None],
        mode: Checkpointing,
        *,
        checkpoints: Checkpoints,
        outbox: Outbox,
        leases: Leases,
        later: Callable[[float, Callable[[], None]], TimerHandle],
    ) -> None:
        super().__init__()
        self._lock = threading.RLock()  # taken before the outbox's own, never after it
        self._run = run
        self._request = request
        self.mode = mode
        self._checkpoints = checkpoints
        self._outbox = outbox
        self.lease = RunLease(leases, run.run_id, mode.lease_ms, checkpoints.keys)
        self.fence = LeaseFence(run, self.lease)
        self._later = later
        self._timer: TimerHandle | None = None
        self._sending: list[Op] = []
        self._final: Op | None = None
        self._closed = False
        self._abandoned = False
        self._settled: Future[None] | None = None
        self.opened = False
        """Whether the server has the run."""
        self.token = ""
        """The output token that a plain server gave."""

    @property
    def handed_over(self) -> bool:
        """Whether the run was left to a call in the foreground."""
        return self._closed

    @property
    def unconfirmed(self) -> list[Op]:
        """Ops that are under way."""
        return self._sending

    def note_opened(self) -> None:
        """Take note that the run was opened in the foreground, with a lease."""
        with self._lock:
            self.opened = True
            self.lease.hold(self.fence.lost)

    def begin(self, mode: Checkpointing) -> None:
        """Take note that the first step begins.

        Args:
            mode: when to send from now on.
        """
        with self._lock:
            self.mode, self.lease.asked_ms = mode, mode.lease_ms
            if self.mode.buffered_steps == 1:
                self._post()
            self.note()

    def note(self) -> None:
        """Take note that a step may have ended."""
        with self._lock:
            count = self._run.finished_count
            if self.mode.buffered_steps is not None and count >= self.mode.buffered_steps:
                self._post()
            elif count and self.mode.max_interval is not None and self._timer is None:
                seconds = self.mode.max_interval / timedelta(seconds=1)
                self._timer = self._later(seconds, self._post)

    def finish(self, complete: Op) -> None:
        """Take note that the request has been answered; `complete` says how."""
        with self._lock:
            self._final = complete
            self._post()
            if not self.held:  # no room in the outbox
                self.abandon()

    def abandon(self) -> None:
        """Send what there is, and let the lease run out: the run is not continued here."""
        with self._lock:
            self._abandoned = True
            self._release()
            if self._final is None and self.opened and self._run.finished_count:
                self._post()
            self._stop_timer()

    def hand_over(self) -> Flow[None]:
        """Leave the run to a call in the foreground by which it goes async."""
        with self._lock:
            self._closed = self.fence.is_over = True
            self._stop_timer()
            self._release()
            if self._parcel is not None and self.held:
                self._settled = Future()
        if self.lease.length_ms is None:  # a plain server takes an opening once only
            yield from self.settle()

    def settle(self) -> Flow[None]:
        """Wait for what was under way when the run was handed over: is the run opened by it?"""
        if self._settled is not None:
            yield Until(self._settled, HAND_OVER_TIMEOUT)

    def size(self) -> int:
        size = sum(map(kept_bytes, [*self._sending, *([self._final] if self._final else [])]))
        request = None if self.opened else self._request()
        return 512 + size + self._run.unreported.kept_bytes + (len(request.body) if request else 0)

    def take(self) -> Parcel | None:
        with self._lock:
            self.lease.asked_again()
            if self._parcel is None and not self._closed:
                self._parcel = self._write()
            return self._parcel

    def answered(self, body: bytes) -> None:
        if (not self.opened and not self._closed) or self._settled is not None:
            self.token = api_calls.read_token(body) or self.token

    def delivered(self, error: APIError | None) -> bool:
        with self._lock:
            self._parcel, self._sending = None, []
            if error is None:
                self.opened = True
                self.lease.delivered()
            elif isinstance(error, APIStatusError) and error.status in _LOST:
                self.fence.lost()
            else:
                super().delivered(error)
                self._closed = self.fence.is_over = True
            if self._settled is not None and not self._settled.done():
                self._settled.set_result(None)
            if self._closed:
                self._release(stored=error is None)
                return False
            if self._final is None and self.lease.held and not self._abandoned:
                self.lease.hold(self.fence.lost)
            return self._has_news()

    def _write(self) -> Parcel | None:
        """Encode all there is to say now; `None` for nothing."""
        run, final, lease = self._run, self._final, self.lease.length_ms
        request = None if self.opened else self._request()
        if not self.opened and request is None:
            return None
        if request is not None and final is not None:
            shorten(request)
        self._stop_timer()
        self._sending = run.take_finished()
        taken = 0 if request is None else 2 * len(request.body)
        now, *later = self._checkpoints.portions(self._sending, already=taken)
        if later:  # more than a server reads of one request: the rest follows
            run.unreported.requeue(self._sending[len(now) :])
            self._sending, final = now, None
        ops = self._sending if final is None else [*self._sending, final]
        if not ops and request is None and (lease is None or self.lease.held):
            return None  # all was said already
        if final is not None:
            self._closed = self.fence.is_over = True
            if not self._keeps_lease:
                self.lease.release()
        if request is None:
            return self._update(ops, lease)
        if final is None:
            blind = self._checkpoints.keys.features is None
            if blind:  # a failed step makes a plain server call at once
                ops = list(takewhile(lambda op: op.op is not OpCode.STEP_FAILED, ops))
                run.unreported.requeue(self._sending[len(ops) :])
                self._sending = ops
            ops = [self._checkpoints.remember(run, request), *ops]
            self.lease.held = lease is not None
            if blind:
                # Ours may take the opening while its answer is lost, and the process dies; a plain
                # server does not read the field.
                lease = self.lease.ask()
        else:
            lease = None  # a run that has ended already
        body = self._checkpoints.first_checkpoint(run, request, ops, lease)
        return Parcel(api_calls.NEW_RUN, body)

    @property
    def _keeps_lease(self) -> bool:
        """Whether the lease is kept until the end of the run is stored."""
        return False

    def _update(self, ops: list[Op], lease: int | None) -> Parcel:
        """Encode what is new of a run that the server has."""
        body = self._checkpoints.further_checkpoint(self._run, ops, lease)
        self.lease.held = lease is not None
        return Parcel(api_calls.steps_path(self._run.run_id), body)

    def _has_news(self) -> bool:
        if self._final is not None:
            return True
        if self.lease.length_ms is not None and not self.lease.held and not self._abandoned:
            return True  # opened before the server was known to give leases
        buffered = self.mode.buffered_steps
        return buffered is not None and self._run.finished_count >= buffered

    def _post(self) -> None:
        with self._lock:
            self._stop_timer()
            if not self._closed and (self._final is not None or self._request() is not None):
                self._outbox.put(self)

    def _release(self, *, stored: bool = False) -> None:
        """Drop the lease: the run is not in the hands of this call any more.

        Args:
            stored: its end is stored.
        """
        self.lease.release()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_LOST = frozenset({409, 410})
