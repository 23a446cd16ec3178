"""A first call under WSGI: the application is called in a context of its own.

All of it happens in a context of its own: what an instrumentation, or an application that a wait
has ended, leaves behind there does not reach the thread's next request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from stephttp._adapters.wsgi.answer import AnsweredCall
from stephttp._adapters.wsgi.messages import (
    GONE,
    Environ,
    StartResponse,
    WSGIApp,
    close,
    response_of,
)
from stephttp._adapters.wsgi.request import mounts
from stephttp._adapters.wsgi.scope import ThreadScope
from stephttp._run.current import MARK, CurrentCall, current_call, enter, refuse_inside, restore
from stephttp._run.hooks import Hooks, drive_blocking
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.http import Response
from stephttp.middleware import CallEnd

logger = logging.getLogger("stephttp")


class WSGIFirstCall(AnsweredCall):
    """One request from outside: the sync phase of a run."""

    __slots__ = ()

    def __init__(
        self, app: WSGIApp, runtime: Runtime, environ: Environ, start_response: StartResponse
    ) -> None:
        # `super` takes more instructions.
        AnsweredCall.__init__(self, app, runtime, environ, start_response)
        self.current = CurrentCall(self, ThreadScope, None)

    def respond(self, run_at_once: bool) -> Iterable[bytes]:
        """Call the application, and see to what comes of it.

        Args:
            run_at_once: whether the request has a run before that; see `Settings`.
        """
        if run_at_once and not self._prepare():
            return self.reply(self._stored_answer or GONE)
        environ, token = self._environ, None
        environ["wsgi.input"] = self._input
        chunks: Iterable[bytes] | None = None
        error: BaseException | None = None
        try:
            outer = current_call.get()
            if outer is not None and mounts(outer.identity, environ):
                refuse_inside(outer, self.current)
            token = enter(self.current)
            environ[MARK] = self.run_id
            if run_at_once and (hooks := self.current.scope().hooks) is not None:
                drive_blocking(hooks.open(), self.current.scope().wait_for)
            chunks = self._app(environ, self._start_response_for_app)
        except BaseException as raised:
            error = raised
        finally:
            if token is not None:
                restore(token)
                environ.pop(MARK, None)
        if error is None and chunks is not None and not self.current.suspended:
            return self._passed_on(chunks)
        if chunks is not None:
            error = self.in_context(lambda: close(chunks))
        if self._events_so_far is not None:
            return self._end_of_events(error)
        reply = self.end(error)
        error = None  # its traceback leads back here, and what it holds belongs to this context
        assert reply is not None, "the run waits, or `end` has raised"
        return self.reply(reply)

    def _prepare(self) -> bool:
        """Do what is configured to be done before the application is called.

        Returns:
            Whether it is to be called.
        """
        runtime, scope = self.runtime, self.current.scope()
        if runtime.settings.middleware:
            scope.hooks = Hooks.of(scope, self._request(b""))
        return not runtime.settings.has_keys or runtime.drive_sync(self._claim_at_once())

    def end(self, error: BaseException | None) -> Response | None:
        """Conclude the call of an application that has ended, with or without `error`.

        Returns:
            The reply, where it is not the handler's own.

        Raises:
            BaseException: `error`, if it is the application's own.
        """
        scope, reply = self.current.leave(), None
        if scope is not None:
            error, reply = self._end(scope, error)
        if error is not None:
            raise error
        return reply

    def _end(
        self, scope: RunScope, error: BaseException | None
    ) -> tuple[BaseException | None, Response | None]:
        """Conclude the run of an application that has ended, with or without `error`.

        Returns:
            What is to be raised, and the reply, where it is not the handler's own.
        """
        assert isinstance(scope, ThreadScope), "made by `current`"
        try:
            error = scope.end(error)
        except BaseException as raised:
            self._give_up(scope, raised)
            raise
        if scope.run.suspended and self._stored_answer is None and not self._drain():
            self._give_up(scope, None)
            return None, GONE
        if self._start is not None and (
            scope.run.used or self._journal or scope.hooks or self._events
        ):
            response = response_of(*self._start)
            self._status, self._headers = response.status, response.headers
        flow = self._conclude(scope, error)
        reply = None if flow is None else self.runtime.drive_sync(flow)
        if reply is not None and error is not None:
            self.log_hidden(error)
            error = None
        return error, reply

    def _give_up(self, scope: RunScope, error: BaseException | None) -> None:
        """Leave the run as it is, and tell the middleware that this call has no result."""
        if self._journal is not None:
            self._journal.abandon()
        scope.stream = None  # it leads back to the scope
        if scope.hooks is not None:
            drive_blocking(scope.hooks.over(CallEnd(None, error, False)), scope.wait_for)
