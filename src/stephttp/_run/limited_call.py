"""A first call whose endpoint refuses requests over its limits: it opens its run in the foreground
before the handler starts, or is answered 429.
"""

from __future__ import annotations

from stephttp._client.flow import Flow, Invoke
from stephttp._run.journal import Journal
from stephttp._run.keyed_call import KeyedCall
from stephttp.errors import UsageError


class LimitedCall(KeyedCall):
    """What a first call does for `refuse_over_limit`. `FirstCall` sets its attributes."""

    __slots__ = ("_opened_first",)

    _opened_first: bool
    """Whether the run was opened before its handler began."""

    def open_within_limits(self) -> Flow[bool]:
        """Open the run if its limits have room. Returns whether the handler is to begin.

        Raises:
            UsageError: a step has begun before, so it is too late to refuse the request.
        """
        if self.current.scope().has_begun or self._opened_first:
            raise UsageError(
                "refuse_over_limit: the request has come to a step, or to another endpoint with "
                "this option, before; leave it to one endpoint, and put steps into its handler"
            )
        if not (yield Invoke(self._read_ahead, None)):
            raise self._caller_left()
        if self._is_too_large():
            self._refused = self._too_large(self._request_body.size)
            return False
        from stephttp._run.first_openings import open_run  # few applications need it

        journal = self._new_journal(Journal)  # before the opening, from which its lease counts
        lease = self.current.scope().checkpointing.lease_ms
        request = self._named_request()
        self._refused = yield from open_run(self.runtime.checkpoints, self._run, request, lease)
        if self._refused is not None:
            return False
        journal.note_opened()
        self._journal, self._opened_first = journal, True
        return True
