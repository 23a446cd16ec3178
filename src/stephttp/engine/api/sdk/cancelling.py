"""`DELETE /v1/runs/{run}` and `/v1/cancellations`: cancels one run (docs/protocol.md 4.5,
4.9), or all that started in a period (4.10).
"""

from __future__ import annotations

import sqlite3
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import asdict
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model import tokens
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.inputs import Cancellation
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.web.fields import AnswerBody, Time, Uuid
from stephttp.engine.web.requests import (
    engine_of,
    parse_optional_time,
    parse_run_id,
    parse_time,
    read_json,
)
from stephttp.engine.web.responses import wrapped
from stephttp.engine.work import cancellations


class CancellationRequest(Struct, rename={"condition": "if"}):
    """Which runs are to be cancelled: those of a function that began in a period."""

    app_id: str | None = None
    function_id: str | None = None
    started_before: str | None = None
    started_after: str | None = None
    condition: str | None = None


class CancellationView(AnswerBody, rename={"condition": "if"}):
    """An order to cancel all runs of a function that began in a period."""

    id: str
    environment_id: Uuid
    app_id: str
    function_id: str
    started_after: Time | None
    started_before: Time
    condition: str | None
    created_at: Time


class NewCancellation(CancellationView, rename={"condition": "if"}):
    """The same, and how many runs were cancelled at once."""

    cancelled: int


_REQUIRED = ("app_id", "function_id", "started_before")
_REQUEST = msgspec.json.Decoder(CancellationRequest)


async def cancel(request: Request) -> Response:
    """End a run as cancelled; to do so again, or too late, changes nothing."""
    await engine_of(request).cancel(parse_run_id(request.path_params["run"]))
    return Response()


async def cancel_legacy(request: Request) -> Response:
    """End a run as cancelled; at this older path, too late is an error."""
    run_id = parse_run_id(request.path_params["run"])
    if not await engine_of(request).cancel(run_id):
        raise Refused(f"run_id: run {run_id} has ended already", 409)
    return Response(status_code=204)


async def create(request: Request) -> Response:
    """Cancel the runs of a function that began in a period."""
    engine = engine_of(request)
    message = await read_json(request, _REQUEST)
    missing = [f"{name} is required" for name in _REQUIRED if not getattr(message, name)]
    if missing:
        raise Refused("\n".join(missing))
    now_ms = engine.clock.now_ms()
    if message.condition:
        expressions.check(message.condition, "if", expressions.CANCEL_NAMES)
    cancellation = Cancellation(
        cancellation_id=tokens.new_ulid(now_ms, engine.rng),
        app=message.app_id or "",
        function=message.function_id or "",
        started_after_ms=parse_optional_time(message.started_after, "started_after"),
        started_before_ms=parse_time(message.started_before or "", "started_before"),
        condition=message.condition or None,
        created_ms=now_ms,
    )
    after_ms = cancellation.started_after_ms
    if after_ms is not None and after_ms >= cancellation.started_before_ms:
        raise Refused("started_after: must lie before started_before")
    count = await engine.bulk.cancel_started(cancellation)
    return wrapped(NewCancellation(**asdict(_view(cancellation)), cancelled=count), now_ms)


async def listing(request: Request) -> Response:
    """List the cancellations that are kept, newest first."""
    engine = engine_of(request)
    return wrapped(await engine.store.read(_listing), engine.clock.now_ms())


async def delete(request: Request) -> Response:
    """Delete a cancellation, so that runs that begin from now on are not cancelled."""
    unit = partial(cancellations.delete, cancellation_id=request.path_params["id"])
    await engine_of(request).store.write(unit)
    return Response(status_code=204)


def _listing(connection: sqlite3.Connection) -> list[CancellationView]:
    rows = connection.execute(QUERIES["cancellations"])
    return [_view(Cancellation(*row)) for row in rows]


def _view(cancellation: Cancellation) -> CancellationView:
    return CancellationView(
        id=cancellation.cancellation_id,
        environment_id=tokens.ENVIRONMENT_ID,
        app_id=cancellation.app,
        function_id=cancellation.function,
        started_after=rfc3339(cancellation.started_after_ms),
        started_before=rfc3339(cancellation.started_before_ms),
        condition=cancellation.condition,
        created_at=rfc3339(cancellation.created_ms),
    )
