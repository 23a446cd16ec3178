"""One replay: the call of the application, cut off from its server, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import httpx2
from msgspec.structs import replace as changed_settings

from stephttp._run.current import HandlerCall, current_call
from stephttp._run.runless import RunlessCall
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.call_signatures import request_target
from stephttp.errors import UsageError
from stephttp.testing.history import History, as_bytes
from stephttp.testing.places_in_code import known_origins
from stephttp.testing.replayed_state import ORIGIN, ReplayedState
from stephttp.testing.verdicts import Replay, judge
from stephttp.testing.watched_call import LoggedErrors, WatchedCall

T = TypeVar("T")

_NOT_DURABLE = UsageError(
    "this request does not pass the stephttp middleware, so its steps would run; a replay runs "
    "none. Give the application with its middleware"
)


async def replayed(
    history: History,
    runtimes: Collection[Runtime],
    caller: httpx2.AsyncBaseTransport,
    watched: Callable[[HandlerCall, RunScope], WatchedCall] = WatchedCall,
) -> Replay:
    """Replay a run.

    Args:
        history: of the run.
        runtimes: of the application's providers.
        caller: calls the application.
        watched: watches the call of its handler.
    """
    calls: list[WatchedCall] = []

    def watch(call: HandlerCall, scope: RunScope) -> None:
        calls.append(watched(call, scope))
        scope.run.stop()

    state = ReplayedState(history.run.id, history.state())
    with LoggedErrors() as logged, cut_off(runtimes, state, watch):
        reply, error = await _sent(_request_of(history), caller)
    return judge(history, calls, reply, error or logged.last)


async def cut_off_from_servers(runtimes: Collection[Runtime], work: Awaitable[T]) -> T:
    """Await something while providers are cut off from their servers."""
    with cut_off(runtimes, ReplayedState("", b"{}"), lambda call, scope: scope.run.stop()):
        return await work


@contextmanager
def cut_off(
    runtimes: Collection[Runtime],
    state: ReplayedState,
    watch: Callable[[HandlerCall, RunScope], None],
) -> Generator[None]:
    """Cut providers off from their servers while the block runs.

    Args:
        runtimes: of the providers.
        state: what answers instead.
        watch: sees the runs that are made.
    """
    with ExitStack() as stack:
        stack.enter_context(known_origins())
        for runtime in runtimes:
            settings = changed_settings(
                runtime.settings, base_url=ORIGIN, event_base_url="", env="", dev=True
            )
            transport = state.transport()
            stack.enter_context(
                runtime.replaced(settings, transport=transport, sync_transport=transport)
            )
            runtime.watch = watch
        outside = RunlessCall(next(iter(runtimes)), ("replay",), {}, _NOT_DURABLE)
        token = current_call.set(outside)
        stack.callback(current_call.reset, token)
        yield


async def _sent(
    request: httpx2.Request, caller: httpx2.AsyncBaseTransport
) -> tuple[httpx2.Response, BaseException | None]:
    """Send a request to the application. Returns its response, and what it raised."""
    status, body = 500, b""
    try:
        response = await caller.handle_async_request(request)
        status = response.status_code
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        async for chunk in response.stream:
            body += chunk
    except Exception as error:
        return httpx2.Response(status, content=body), error
    finally:
        await caller.aclose()
    return httpx2.Response(status, content=body), None


def _request_of(history: History) -> httpx2.Request:
    """Return the call of the server that continues the run."""
    request = history.request
    url = httpx2.URL(request.origin or "http://replayed").copy_with(
        raw_path=request_target(request.path, request.query).encode()
    )
    headers = {
        "user-agent": "stephttp replay",
        "content-type": request.content_type or "application/json",
        "x-run-id": history.run.id,
        "x-inngest-signature": "",
        "x-inngest-req-version": "1",
        "x-stephttp-attempt": "0",
    }
    return httpx2.Request(request.method, url, headers=headers, content=as_bytes(request.body))
