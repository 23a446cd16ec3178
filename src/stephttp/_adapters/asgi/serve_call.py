"""A call of an Inngest function (`serve`) under ASGI: it passes through the middleware as it is."""

from __future__ import annotations

from stephttp._adapters.asgi.messages import ASGIApp, Receive, Scope, Send
from stephttp._adapters.asgi.request import identity
from stephttp._run.current import current_call
from stephttp._run.runless import OF_A_FUNCTION, RunlessCall
from stephttp._run.runtime import Runtime


async def pass_on(
    app: ASGIApp, runtime: Runtime, scope: Scope, receive: Receive, send: Send
) -> None:
    """Call the application without a run. A forged call may reach an endpoint: it comes to
    no step."""
    call = RunlessCall(runtime, identity(scope), scope, OF_A_FUNCTION)
    token = current_call.set(call)
    try:
        await app(scope, receive, send)
    finally:
        current_call.reset(token)
        call.leave()
