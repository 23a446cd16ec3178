"""A first call with middleware: `before_response` and `after_call` at its end."""

from __future__ import annotations

from abc import abstractmethod

from stephttp._client.flow import Flow
from stephttp._run.followed_call import FollowedCall
from stephttp._run.hooks import Hooks, as_flow
from stephttp._wire.http import Response
from stephttp.middleware import CallEnd


class HookedCall(FollowedCall):
    """What a first call does for middleware. `FirstCall` sets its attributes."""

    __slots__ = ()

    @abstractmethod
    def _end_run(self, error: BaseException | None) -> Flow[Response | None] | None:
        """Record how the run ended, or let it wait. Returns what does so, if anything does."""

    def _conclude_with_hooks(
        self, hooks: Hooks, error: BaseException | None
    ) -> Flow[Response | None]:
        """Do what `_end_run` does, and call the middleware."""
        run = self._run
        hooks.ctx.request.route = self._route()
        yield from as_flow(hooks.close(error))
        try:
            reply = yield from self._end_run(error) or ()
        except Exception as raised:
            yield from as_flow(hooks.over(CallEnd(None, raised, False)))
            raise
        if reply is not None:
            yield from as_flow(hooks.before_response(reply))
        answer = Response(self._status, self._headers) if self._status else reply
        ended = not run.suspended or self._refused is not None
        yield from as_flow(hooks.over(CallEnd(answer, error, ended)))
        return reply
