"""`ASGIMiddleware`: tells first calls, re-entries, `result_path` and calls of `serve` apart.

A request from outside is a first call: what the handler sends goes out at once, and a finished run
is recorded afterwards. A re-entry is a call of the server: the handler's response is the run's
result, not the answer. A call of a function of `serve`, of another SDK, passes through.
"""

from __future__ import annotations

import logging
from typing import Any

from stephttp._adapters.asgi.first_call import ASGIFirstCall
from stephttp._adapters.asgi.messages import ASGIApp, Message, Send
from stephttp._adapters.asgi.other_loops import pass_through
from stephttp._adapters.asgi.reentry import reenter
from stephttp._adapters.asgi.request import claims_reentry, is_serve_call, neutral, paths_of
from stephttp._adapters.asgi.result import serve_result
from stephttp._adapters.asgi.scope import task_context
from stephttp._adapters.asgi.serve_call import pass_on
from stephttp._run import database_watch
from stephttp._run.current import MARK
from stephttp._run.runtime import SHUTDOWN_TIMEOUT, HasRuntime
from stephttp.errors import ConfigurationError

__all__ = ["ASGIApp", "ASGIMiddleware"]

logger = logging.getLogger("stephttp")


class ASGIMiddleware:
    """Makes the endpoints of an ASGI application durable.

    Use `provider.asgi(app)`, or `app.add_middleware(stephttp.ASGIMiddleware, provider=provider)`.
    Everything but HTTP requests passes through; at the end of the lifespan, finished runs that
    are still on their way are delivered.

    Args:
        app: the application.
        provider: what `stephttp.setup` returned.
    """

    def __init__(self, app: ASGIApp, provider: HasRuntime) -> None:
        database_watch.watch_loaded()
        self.app = app
        self.runtime = provider.runtime
        self._result_path = self.runtime.settings.result_path
        self._run_at_once = self.runtime.settings.needs_run_at_once

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if MARK in scope:
                raise ConfigurationError(
                    "the stephttp middleware is applied twice to this application; apply it once"
                )
            try:
                context = task_context()
            except RuntimeError:  # no event loop of asyncio runs
                await pass_through(self.app, self.runtime, scope, receive, send)
                return
            if self._result_path and self._result_path in paths_of(scope):
                await serve_result(self.runtime, neutral(scope, b""), receive, send)
            elif claims_reentry(scope):
                if is_serve_call(scope):
                    await pass_on(self.app, self.runtime, scope, receive, send)
                else:
                    await reenter(self.app, self.runtime, scope, receive, send)
            else:
                call = ASGIFirstCall(self.app, self.runtime, scope, receive, send, context)
                await call.respond(self._run_at_once)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, self._attended(send))
        else:
            await self.app(scope, receive, send)

    def _attended(self, send: Send) -> Send:
        """Return `send` of the lifespan, for what is done when the application has started, so that
        it may set the environment, and when it ends."""

        async def attended_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.runtime.preload()
            ends = message["type"].startswith("lifespan.shutdown.")
            if ends and not await self.runtime.aclose(SHUTDOWN_TIMEOUT):
                logger.warning(
                    "stephttp: %d finished runs were not delivered before the shutdown",
                    self.runtime.outbox.depth,
                    extra={"outbox_depth": self.runtime.outbox.depth},
                )
            await send(message)

        return attended_send
