"""`/v1/stephttp/functions`: what people see of functions, and do: pause, resume and invoke them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model.function import Function
from stephttp.engine.store.function_rows import load_functions
from stephttp.engine.web.fields import AnswerBody, RunId, Uuid
from stephttp.engine.web.invocation import invoke_function
from stephttp.engine.web.requests import engine_of, read_body
from stephttp.engine.web.responses import wrapped


class StartedBy(AnswerBody):
    """What starts a function: an event, or the time, as a cron expression."""

    event: str | None
    condition: str | None
    cron: str | None


class FunctionItem(AnswerBody):
    """A function. `not_started` says why nothing starts it, if nothing does, also because it is
    `paused`."""

    function_id: Uuid
    function: str
    name: str
    app_id: Uuid
    origin: str
    triggers: list[StartedBy]
    retries: int
    paused: bool
    not_started: str | None


class PausedFunction(AnswerBody):
    """Whether a function is paused now, and whether it was not so before."""

    paused: bool
    modified: bool


class InvokedFunction(AnswerBody):
    """The event that is for the function alone, and the run. `run_id` is `null` if the options of
    the function let the run start later."""

    internal_id: str
    run_id: RunId | None


async def functions(request: Request) -> Response:
    """List the functions that apps register."""
    engine = engine_of(request)
    known = await engine.store.read(load_functions)
    return wrapped([_item(one) for one in known], engine.clock.now_ms())


async def pause(request: Request) -> Response:
    """Pause a function."""
    return await _set_paused(request, paused=True)


async def resume(request: Request) -> Response:
    """Resume a function that is paused."""
    return await _set_paused(request, paused=False)


async def invoke(request: Request) -> Response:
    """Start one function, with the permission that a signing key gives."""
    engine = engine_of(request)
    body = await read_body(request, engine.settings.max_events_body)
    done = await invoke_function(engine, request.path_params["function"], body)
    return wrapped(InvokedFunction(done.event_id, done.run_id), engine.clock.now_ms())


async def _set_paused(request: Request, *, paused: bool) -> Response:
    engine = engine_of(request)
    modified = await engine.functions.set_paused(request.path_params["function"], paused=paused)
    return wrapped(PausedFunction(paused, modified), engine.clock.now_ms())


def _item(function: Function) -> FunctionItem:
    endpoint = function.endpoint
    return FunctionItem(
        function_id=endpoint.fn_id,
        function=endpoint.slug,
        name=function.name,
        app_id=endpoint.app_id,
        origin=endpoint.domain,
        triggers=[
            StartedBy(one.event or None, one.condition, one.cron) for one in function.triggers
        ],
        retries=endpoint.retries,
        paused=function.paused,
        not_started=function.why_not_started,
    )
