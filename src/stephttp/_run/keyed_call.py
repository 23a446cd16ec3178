"""A first call with an idempotency key: it claims the key before the first step, and stores its
answer.

The request itself carries the key, or the handler gives it before its first step.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from functools import partial

from stephttp._client.flow import Flow, Invoke
from stephttp._core import replies
from stephttp._core.failures import describe
from stephttp._run.bounded_call import BoundedCall
from stephttp._run.callers import CallerOf
from stephttp._run.current import CurrentCall
from stephttp._run.idempotency import (
    Claimed,
    Key,
    claim,
    further_keys,
    key_of,
    key_of_request,
    not_stored,
    repeatable,
)
from stephttp._run.journal import Journal
from stephttp._run.keyed_journal import KeyedJournal
from stephttp._run.runtime import J
from stephttp._wire.http import Request, Response
from stephttp.errors import CannotWaitError

logger = logging.getLogger("stephttp")


class KeyedCall(BoundedCall):
    """What a first call does for an idempotency key. `FirstCall` sets its attributes.

    Attributes:
        run_id: a ULID.
        started_ns: when the call began, in nanoseconds since the epoch.
        current: whether it has a run, and its scope; set by subclasses.
    """

    __slots__ = (
        "_claimed",
        "_journal",
        "_keyed",
        "_stored",
        "current",
        "run_id",
        "started_ns",
    )

    run_id: str
    started_ns: int
    current: CurrentCall
    _journal: Journal | None
    _claimed: Claimed | None
    _keyed: bool
    """Whether this run holds an idempotency key."""
    _stored: bool
    """Whether the answer to that key was handed to the server."""

    @property
    @abstractmethod
    def _stored_answer(self) -> Response | None:
        """What another request with the same idempotency key was answered."""

    @abstractmethod
    def _is_too_large(self) -> bool:
        """Whether the body, as far as it was read, is too large for a request that waits."""

    @abstractmethod
    def _named_request(self) -> Request:
        """Return the request as far as it was read, with its route if that names the endpoint."""

    @abstractmethod
    def _new_journal(self, kind: type[J]) -> J:
        """Return a journal of the run."""

    @abstractmethod
    def _response(self) -> Response:
        """Return what the handler answered."""

    def _claim_at_once(self) -> Flow[bool]:
        """Claim the key that the request itself carries, if it does.

        Returns:
            Whether the handler is to be called. If not, `_stored_answer` is the answer, unless the
            caller has left; this call is over.
        """
        key = key_of_request(self.runtime.settings, self._request(b""), self._known_of_caller())
        if key is None:
            return True
        scope, continues = self.current.scope(), False
        scope.key_claimed = True
        try:
            if (yield Invoke(self._read_ahead, None)):
                self._claimed = yield from self._claim(key, named=False)
                continues = self._claimed.answer is None
        finally:
            if not continues:
                scope.close(None)
                self.current.leave()
        return continues

    def claim_late(self, text: str, scope: CallerOf | None) -> Flow[bool]:
        """Claim a key that the handler gave. Returns whether its steps are to run.

        Args:
            scope: says who the caller is; `None`: as configured.
        """
        runtime, run = self.runtime, self._run
        lock = f"key of {run.run_id}"
        yield from runtime.keyed_lock.acquire(lock)  # steps that run side by side claim together
        try:
            if self._claimed is None:
                if run.cannot_wait is not None:
                    raise CannotWaitError(
                        f"the idempotency key comes too late, because {run.cannot_wait}; "
                        "call stephttp.configure at the start of the handler"
                    )
                if not (yield Invoke(self._read_ahead, None)):
                    raise self._caller_left()
                endpoint = run.opts.id or self._named_request().endpoint
                key = key_of(runtime.settings, text, self._request(b""), endpoint, scope)
                self._claimed = yield from self._claim(key, named=True)
            return self._claimed.answer is None
        finally:
            runtime.keyed_lock.release(lock)

    def _claim(self, key: Key, *, named: bool) -> Flow[Claimed]:
        runtime = self.runtime
        if self._is_too_large():
            limit = self._largest()
            return Claimed(False, replies.error_answer(
                413, f"a request with an idempotency key may have a body of {limit} bytes"
            ))  # fmt: skip
        request = self._named_request()
        lease = self.current.scope().checkpointing.lease_ms
        journal = self._new_journal(KeyedJournal)  # before the claim, from which its lease counts
        claimed = yield from claim(runtime.checkpoints, self._run, request, key, lease)
        if claimed.held:
            self._keyed = True
            self._journal = journal
            journal.claimed(named=named)
            # Should the engine lose sight of this process, its call of the run waits here.
            lock, run_id = runtime.keyed_lock, self._run.run_id
            yield from lock.acquire(run_id)
            journal.let_go = partial(lock.release, run_id)
        return claimed

    def _store(self, error: BaseException | None) -> Flow[Response | None]:
        """Store the answer of a run that holds an idempotency key, before its caller gets it.

        Returns:
            What its caller gets; `None`: the handler's own answer.
        """
        journal = self._journal
        if self._stored or not isinstance(journal, KeyedJournal):
            return None
        self._stored = True
        answer, raised = self._answer, not self._status
        response = self._response()
        kept = repeatable(response, answer, raised=raised)
        complete = self.runtime.checkpoints.completed(
            kept,
            duration_ns=max(0, self.runtime.now_ns() - self.started_ns),
            error=None if error is None else describe(error),
            exact=True,
        )
        if self.runtime.settings.idempotency_header:
            request, known = self._named_request(), self._known_of_caller()
            complete.opts = further_keys(self.runtime.checkpoints, request, response, known)
        if answer is not None and answer.overflown:  # it has begun to go out
            journal.finish(complete)
            return None
        if not (yield from journal.store(complete)):
            logger.error(
                "stephttp: run %s: the answer to its idempotency key is not stored yet; its caller "
                "gets a 503, and the answer with the same key later", self._run.run_id,
            )  # fmt: skip
            return not_stored()
        return None if raised or kept is response else kept
