"""Requests on another event loop than asyncio's, such as trio's: they pass through, and a step says
that it needs asyncio.

Those that use no steps pass through. Tasks, timers and the order of completion are asyncio's, so a
step says that it needs that, before anything was done.
"""

from __future__ import annotations

import logging

from stephttp._adapters.asgi.messages import ASGIApp, Receive, Scope, Send, reply_with
from stephttp._adapters.asgi.request import (
    claims_reentry,
    identity,
    is_serve_call,
    known_of_caller,
    neutral,
    paths_of,
)
from stephttp._adapters.asgi.serve_call import pass_on
from stephttp._core.replies import RETRY_SOON, error_answer
from stephttp._run.current import MARK, current_call
from stephttp._run.idempotency import key_of_request
from stephttp._run.runless import RunlessCall
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Response
from stephttp.errors import UsageError

logger = logging.getLogger("stephttp")

_NEEDS_ASYNCIO = (
    "steps need asyncio, and this request is served on another event loop (trio?); run the "
    "application under a server or worker of asyncio (`hypercorn -k asyncio`, uvicorn, "
    'anyio with backend="asyncio")'
)


async def pass_through(
    app: ASGIApp, runtime: Runtime, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call the application without a run, or refuse what would need one."""
    if claims_reentry(scope) and is_serve_call(scope):
        await pass_on(app, runtime, scope, receive, send)
        return
    refusal = _refusal(runtime, scope)
    if refusal is not None:
        await reply_with(send, refusal, [])
        return

    call = RunlessCall(runtime, identity(scope), scope, UsageError(_NEEDS_ASYNCIO))
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
    elif key_of_request(runtime.settings, request, known_of_caller(scope)) is not None:
        what = "an idempotency key"
    else:
        return None
    logger.error("stephttp: %s is refused with 503: %s", what, _NEEDS_ASYNCIO)
    return error_answer(503, f"{what}: {_NEEDS_ASYNCIO}", headers=RETRY_SOON)
