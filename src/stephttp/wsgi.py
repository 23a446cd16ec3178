"""`WSGIMiddleware`, for threads: tells first calls, re-entries, `result_path` and calls of `serve`
apart.

A request from outside is a first call: what the handler answers goes out as it comes, and a
finished run is recorded afterwards. A re-entry is a call of the server: the handler's response is
the run's result, not the answer. A call of a function of `serve`, of another SDK, passes through.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Iterable
from contextvars import copy_context
from typing import Any

from stephttp._adapters.wsgi.first_call import WSGIFirstCall
from stephttp._adapters.wsgi.messages import WSGIApp
from stephttp._adapters.wsgi.reentry import reenter
from stephttp._adapters.wsgi.request import claims_reentry, is_serve_call, neutral, path_of
from stephttp._adapters.wsgi.result import serve_result
from stephttp._adapters.wsgi.serve_call import pass_on
from stephttp._run import database_watch
from stephttp._run.current import MARK
from stephttp._run.runtime import SHUTDOWN_TIMEOUT, HasRuntime, Runtime
from stephttp.errors import ConfigurationError

__all__ = ["WSGIApp", "WSGIMiddleware"]

logger = logging.getLogger("stephttp")


class WSGIMiddleware:
    """Makes the endpoints of a WSGI application durable.

    Use `provider.wsgi(app)`; in Flask `app.wsgi_app = provider.wsgi(app.wsgi_app)`. Finished runs
    are delivered by threads; what is left at the exit of the process is delivered then.

    Args:
        app: the application.
        provider: what `stephttp.setup` returned.
    """

    def __init__(self, app: WSGIApp, provider: HasRuntime) -> None:
        database_watch.watch_loaded()
        self.app = app
        self.runtime = provider.runtime
        self._result_path = self.runtime.settings.result_path
        self._run_at_once = self.runtime.settings.needs_run_at_once
        atexit.register(_drain, weakref.ref(self.runtime))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if MARK in environ:
            raise ConfigurationError(
                "the stephttp middleware is applied twice to this application; apply it once"
            )
        runtime = self.runtime
        if threading.Lock is not runtime.locks_are:
            runtime.renew_locks()
        if self._result_path:
            runtime.holds.seen()
            if path_of(environ) == self._result_path:
                return serve_result(runtime, neutral(environ, b""), environ, start_response)
        if claims_reentry(environ):
            if is_serve_call(environ):
                return pass_on(self.app, runtime, environ, start_response)
            runtime.holds.seen()
            return copy_context().run(reenter, self.app, runtime, environ, start_response)
        call = WSGIFirstCall(self.app, runtime, environ, start_response)
        return call.context.run(call.respond, self._run_at_once)


def _drain(reference: weakref.ref[Runtime]) -> None:
    """Deliver what is left, at the exit of the process. A process that was forked inherits this."""
    runtime = reference()
    if runtime is not None and not runtime.close(SHUTDOWN_TIMEOUT):
        logger.warning(
            "stephttp: %d finished runs were not delivered before the exit", runtime.outbox.depth,
            extra={"outbox_depth": runtime.outbox.depth},
        )  # fmt: skip
