"""Functions: registered, listed and invoked (docs/protocol.md 4.13, 9.1)."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from msgspec import UNSET, UnsetType
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stephttp._wire.durations import format_duration
from stephttp.engine.api.sdk.ingest import check_key
from stephttp.engine.functions.registry import read_registration
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.function import Function, Trigger
from stephttp.engine.model.function_ids import app_id
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.settings import VERSION
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.store import schedule_rows
from stephttp.engine.store.function_rows import load_functions
from stephttp.engine.store.schedule_rows import TriggerKey
from stephttp.engine.web.fields import AnswerBody, Time, Uuid
from stephttp.engine.web.invocation import invoke_function
from stephttp.engine.web.requests import engine_of, read_body
from stephttp.engine.web.responses import json_response


class AppRegistered(AnswerBody, omit_defaults=True):
    """The app is registered. `modified` is absent if nothing has changed."""

    ok: Literal[True]
    sync_id: Uuid
    app_id: Uuid
    modified: bool = False


class Removed(AnswerBody):
    """The app is removed."""

    ok: Literal[True]


class Invoked(AnswerBody):
    """The id of the event that started the function."""

    id: str
    status: Literal[200]


class TriggerView(AnswerBody, omit_defaults=True):
    """What starts a function: an event, or the time. `next_at`: when that is next."""

    event: str | UnsetType = UNSET
    expression: str | UnsetType = UNSET
    cron: str | UnsetType = UNSET
    jitter: str | UnsetType = UNSET
    next_at: Time | UnsetType = UNSET


class DevStep(AnswerBody):
    """Where a function is called."""

    id: str
    name: str
    uri: str
    retries: int


class FunctionView(AnswerBody, omit_defaults=True):
    """A function. `refused` says why it cannot be started, if it cannot; `paused`: it is not for
    now, because people have paused it."""

    id: Uuid
    name: str
    slug: str
    triggers: list[TriggerView]
    steps: list[DevStep]
    refused: str | UnsetType = UNSET
    paused: bool = False


class DevServer(AnswerBody):
    """What SDKs want to know of a dev server."""

    version: str
    functions: list[FunctionView]
    handlers: list[str]


async def dev(request: Request) -> Response:
    """Answer SDKs that look for a dev server."""
    engine = engine_of(request)
    if engine.settings.kind != "dev":
        raise HTTPException(404)
    known = await engine.store.read(_views)
    return json_response(DevServer(f"stephttp-{VERSION}", [view for _, view in known], []))


async def register(request: Request) -> Response:
    """Store an app with its functions."""
    engine = engine_of(request)
    kind = engine.settings.kind
    expected = request.headers.get("x-inngest-expected-server-kind", "")
    if expected and expected != kind:
        raise Refused(f"Expected server kind {expected[:20]}, got {kind}")
    body = await read_body(request, engine.settings.max_body)
    said = await read_registration(body, request.headers.get("x-inngest-sdk", ""))
    modified = await engine.functions.register(said)
    # An id for each time, as other servers give; nothing refers to it.
    sync_id = app_id(new_ulid(engine.clock.now_ms(), engine.rng))
    return json_response(AppRegistered(True, sync_id, said.app.app_id, modified))


async def remove(request: Request) -> Response:
    """Forget the app at an address."""
    url = request.query_params.get("url", "")
    if not await engine_of(request).functions.remove(url):
        raise Refused(f"url: there is no app at {url[:200]!r}", 404)
    return json_response(Removed(True))


async def listing(request: Request) -> Response:
    """List the functions of an app, by its name."""
    name = request.path_params["name"]
    wanted = app_id(name)
    known = await engine_of(request).store.read(_views)
    found = [view for app, view in known if app == wanted]
    if not found:
        raise Refused(f"name: there is no app {name[:200]!r} with functions", 404)
    return json_response(found)


async def invoke(request: Request) -> Response:
    """Start one function with an event that is for it alone."""
    engine = engine_of(request)
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    problem = check_key(request, key if scheme.lower() == "bearer" else "")
    if problem is not None:
        return problem
    body = await read_body(request, engine.settings.max_events_body)
    invocation = await invoke_function(engine, request.path_params["slug"], body)
    return json_response(Invoked(invocation.event_id, 200))


def _views(connection: sqlite3.Connection) -> list[tuple[str, FunctionView]]:
    """Return all functions, each with the id of its app."""
    due = schedule_rows.load_due_times(connection)
    return [(one.endpoint.app_id, _view(one, due)) for one in load_functions(connection)]


def _view(function: Function, due: Mapping[TriggerKey, int]) -> FunctionView:
    endpoint = function.endpoint
    uri = f"{endpoint.domain}{endpoint.path}" + (f"?{endpoint.query}" if endpoint.query else "")
    return FunctionView(
        id=endpoint.fn_id,
        name=function.name,
        slug=endpoint.slug,
        triggers=[
            _trigger_view(one, due.get((endpoint.fn_id, place)))
            for place, one in enumerate(function.triggers)
        ],
        steps=[DevStep("step", "step", uri, endpoint.retries)],
        refused=UNSET if endpoint.refused is None else endpoint.refused,
        paused=function.paused,
    )


def _trigger_view(trigger: Trigger, due_ms: int | None) -> TriggerView:
    if trigger.cron is None:
        return TriggerView(trigger.event, trigger.condition or UNSET)
    jitter = timedelta(milliseconds=trigger.jitter_ms)
    return TriggerView(
        cron=trigger.cron,
        jitter=format_duration(jitter) if jitter else UNSET,
        next_at=UNSET if due_ms is None else rfc3339(due_ms),
    )
