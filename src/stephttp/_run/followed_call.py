"""A first call whose handler pushes values (`stream.push`), and whose caller may follow the
stream.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from stephttp._client.flow import Flow
from stephttp._run.limited_call import LimitedCall
from stephttp._run.scope import RunScope
from stephttp._wire.http import Response, wants_events

if TYPE_CHECKING:
    from stephttp._run.run_stream import Listener, RunStream


class FollowedCall(LimitedCall):
    """What a first call does for its stream. `FirstCall` sets its attributes."""

    __slots__ = ("_gets_events", "_leaving")

    _gets_events: bool
    """Whether the caller gets events."""
    _leaving: tuple[Future[None], Callable[[], bool]] | None
    """Done when the server has what was pushed, and whether that is being sent: the end of the run
    is reported behind it."""

    @abstractmethod
    def _conclude(
        self, scope: RunScope, error: BaseException | None
    ) -> Flow[Response | None] | None:
        """Record how the run ended, or let it wait; see `FirstCall`."""

    @abstractmethod
    def delivers_first(self) -> bool:
        """Whether the end of the run is delivered before its caller has the whole response."""

    def _conclude_stream(
        self, scope: RunScope, error: BaseException | None
    ) -> Flow[Response | None]:
        """Do as `_conclude`, once the server has what the handler pushed, if it needs that."""
        stream, scope.stream = scope.stream, None
        assert stream is not None
        if self._run.suspended and self._stored_answer is None and self._refused is None:
            yield from stream.hand_over()
        elif not self.delivers_first() and not self._keyed:
            # The caller of a run that has ended does not wait for the engine. But those who follow
            # it get its end only behind what was pushed.
            busy = stream.leave()
            if busy is not None:
                self._leaving = (busy, stream.sender.is_alive)
        else:
            yield from stream.finish()
        return (yield from self._conclude(scope, error) or ())

    def open_stream(self, scope: RunScope) -> RunStream:
        """Begin to take what the handler pushes; see `FirstCallOfRun`.

        It goes to the caller, if that asked for events. Our engine gets it when the run is left to
        it, and at once where it gets the steps at once.
        """
        from stephttp._run.run_stream import begin

        request = self._request(b"")
        self._gets_events = not self._has_begun() and wants_events(request)
        listener = self._begin_events(scope) if self._gets_events else None
        return begin(scope, listener, request)

    @abstractmethod
    def _has_begun(self) -> bool:
        """Return whether the handler's response has begun."""

    @abstractmethod
    def _begin_events(self, scope: RunScope) -> Listener:
        """Make events the answer of this call, and what the handler answers their end."""

    def _last_of_events(self, reply: Response | None, error: BaseException | None) -> bytes:
        """Return what ends an answer of events.

        Args:
            reply: of the SDK, if it is not the handler's own.
            error: what the handler has raised.
        """
        from stephttp._run.event_answers import end_of, end_of_own

        if reply is not None:
            return end_of(reply)
        too_large = self._answer is not None and self._answer.overflown
        return end_of_own(self._response() if self._status else None, error, too_large=too_large)
