"""Requests that are served on another event loop than asyncio's, such as trio's.

Those that use no steps pass through. Tasks, timers and the order of completion are asyncio's, so a
step says that it needs that, before anything was done.
"""

from __future__ import annotations

import logging
from typing import Any

from stephttp._adapters.asgi.messages import ASGIApp, Receive, Scope, Send, reply_with
from stephttp._adapters.asgi.request import (
    claims_reentry,
    identity,
    known_of_caller,
    neutral,
    paths_of,
)
from stephttp._core.replies import error_answer
from stephttp._run.checkpoints import RETRY_SOON
from stephttp._run.current import MARK, CurrentCall, current_call
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.http import Response
from stephttp.errors import UsageError

logger = logging.getLogger("stephttp")

_NEEDS_ASYNCIO = (
    "steps need asyncio, and this request is served on another event loop (trio?); run the "
    "application under a server or worker of asyncio (`hypercorn -k asyncio`, uvicorn, "
    'anyio with backend="asyncio")'
)


class OtherLoopCall(CurrentCall):
    """The call of a handler that cannot have a run."""

    __slots__ = ()
    can_have_run = False

    def scope(self) -> RunScope:
        """Raise `UsageError`."""
        raise UsageError(_NEEDS_ASYNCIO)


class _Request:
    """What an `OtherLoopCall` knows of its request."""

    def __init__(self, runtime: Runtime, scope: Scope) -> None:
        self.runtime = runtime
        self.run_id = ""
        self.started_ns = self.attempt = 0
        self.identity = identity(scope)
        self.surroundings = scope

    def run_made(self, scope: RunScope) -> None:
        """Never called: there is no run."""


async def pass_through(
    app: ASGIApp, runtime: Runtime, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call the application without a run, or refuse what would need one."""
    refusal = _refusal(runtime, scope)
    if refusal is not None:
        await reply_with(send, refusal, [])
        return

    call = OtherLoopCall(_Request(runtime, scope), _no_scope, None)
    token = current_call.set(call)
    scope[MARK] = ""
    try:
        await app(scope, receive, send)
    finally:
        scope.pop(MARK, None)
        call.leave()
        current_call.reset(token)


def _refusal(runtime: Runtime, scope: Scope) -> Response | None:
    """Return the answer to a request that would be given less than it asks for without a run."""
    request, result_path = neutral(scope, b""), runtime.settings.result_path
    if claims_reentry(scope):
        what = "the call that continues a run"
    elif result_path and result_path in paths_of(scope):
        what = "result_path"
    elif runtime.idempotency_key(request, known_of_caller(scope)) is not None:
        what = "an idempotency key"
    else:
        return None
    logger.error("stephttp: %s is refused with 503: %s", what, _NEEDS_ASYNCIO)
    return error_answer(503, f"{what}: {_NEEDS_ASYNCIO}", headers=RETRY_SOON)


def _no_scope(*_: Any) -> RunScope:
    raise UsageError(_NEEDS_ASYNCIO)
