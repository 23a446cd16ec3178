"""The call of the application in a replay, cut off from its server, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import httpx2
from msgspec.structs import replace

from stephttp._core.call_state import ENDED
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, SUSPEND, Step
from stephttp._run.current import HandlerCall, current_call
from stephttp._run.echoes import echoes_suspension
from stephttp._run.runless import RunlessCall
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.call_signatures import request_target
from stephttp.errors import Suspended, UsageError
from stephttp.testing.history import History, as_bytes
from stephttp.testing.places_in_code import known_origins
from stephttp.testing.quiet_deaths import forget_errors_here
from stephttp.testing.replayed_state import ORIGIN, ReplayedState
from stephttp.testing.verdicts import Replay, judge
from stephttp.testing.watched_call import LoggedErrors, WatchedCall

T = TypeVar("T")

_NOT_DURABLE = UsageError(
    "this request does not pass the stephttp middleware, so its steps would run; a replay runs "
    "none. Give the application with its middleware"
)

_STEP_OUTSIDE = UsageError(
    "the application comes to a step when it starts or ends, and a replay runs none; start it "
    "without its lifespan"
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
        execute_nothing(scope.run)

    state = ReplayedState(history.run.id, history.state())
    with LoggedErrors() as logged, cut_off(runtimes, state, watch):
        reply, error = await _sent(_request_of(history), caller)
    return judge(history, calls, reply, error or logged.last)


async def cut_off_from_servers(runtimes: Collection[Runtime], work: Awaitable[T]) -> T:
    """Await something while providers are cut off from their servers.

    Raises:
        UsageError: it comes to a step that it cannot pass.
    """
    with cut_off(runtimes, ReplayedState("", b"{}"), lambda _, scope: execute_nothing(scope.run)):
        try:
            return await work
        except Suspended as stopped:
            raise _STEP_OUTSIDE from stopped


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
        stack.enter_context(answered(runtimes, state))
        for runtime in runtimes:
            runtime.watch = watch
        outside = RunlessCall(next(iter(runtimes)), ("replay",), {}, _NOT_DURABLE)
        token = current_call.set(outside)
        stack.callback(current_call.reset, token)
        yield


@contextmanager
def answered(runtimes: Collection[Runtime], state: ReplayedState) -> Generator[None]:
    """Let something answer in the place of the providers' servers while the block runs.

    Args:
        runtimes: of the providers.
        state: what answers.
    """
    with ExitStack() as stack:
        for runtime in runtimes:
            settings = replace(
                runtime.settings, base_url=ORIGIN, event_base_url="", env="", dev=True
            )
            transport = state.transport()
            stack.enter_context(
                runtime.replaced(settings, transport=transport, sync_transport=transport)
            )
        yield


def execute_nothing(run: Run) -> None:
    """Let a run give out no step to be executed, whatever its state.

    A run that has ended executes steps as plain code, and the code of a handler may outlive its
    run: tasks behind the response, and threads that nothing waits for.

    Args:
        run: in which the handler is not at a step yet.
    """

    def left(step: Step) -> Step:
        if step.verdict is not EXECUTE:
            return step
        if run.state is ENDED or (run.cannot_wait is not None and not run.resumed):
            # The caller has its answer, so that no run is left to be ended.
            forget_errors_here()
            raise Suspended(f"step {step.step_id!r}: a replay runs none")
        run.yield_to_another_run()
        return replace(step, verdict=SUSPEND)

    def begin(step_id: str, retries: int | None = None, branch: str = "") -> Step:
        return left(run.resolve(step_id, retries, branch))

    def renew(step: Step, now_ns: int, *, body: bool = False) -> Step:
        if body and not run.unwinding:
            return left(replace(step, verdict=EXECUTE))
        return Run.renew(run, step, now_ns)

    run.stop()
    vars(run).update(begin=begin, renew=renew)


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
    except BaseException as error:
        if not echoes_suspension(error):
            raise
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
