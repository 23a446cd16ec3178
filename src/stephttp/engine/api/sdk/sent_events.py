"""`GET /v1/events`: reads events (docs/protocol.md 4.8). Unlike the real server's, errors
have their status.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.run_parts import EndedRun, stored
from stephttp.engine.model import tokens
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import outcomes_of
from stephttp.engine.store.run_triggers import load_trigger
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.web.fields import AnswerBody, Time, Uuid
from stephttp.engine.web.requests import engine_of, parse_limit, parse_optional_time
from stephttp.engine.web.responses import wrapped

_LONGEST_SHOWN = 64


class EventView(AnswerBody):
    """An event as it was sent, and what the engine knows of it."""

    internal_id: str
    account_id: Uuid
    environment_id: Uuid
    source: str
    source_id: None
    received_at: Time
    data: Any
    id: str
    name: str
    ts: int
    meta: Any | UnsetType = UNSET
    user: Any | UnsetType = UNSET
    v: str | UnsetType = UNSET


async def listing(request: Request) -> Response:
    """List events that were sent, newest first; `cursor` is the last internal id on the page before
    this."""
    engine = engine_of(request)
    query = request.query_params
    values = {
        "limit": parse_limit(query.get("limit")),
        "cursor": query.get("cursor") or None,
        "name": query.get("name") or None,
        "after_ms": parse_optional_time(query.get("received_after"), "received_after"),
        "before_ms": parse_optional_time(query.get("received_before"), "received_before"),
    }
    data = await engine.store.read(partial(_listing, values=values))
    return wrapped(data, engine.clock.now_ms())


async def event(request: Request) -> Response:
    """Return one event, by its internal id; also the one that began a run."""
    engine = engine_of(request)
    unit = partial(_event, event_id=request.path_params["event"])
    return wrapped(await engine.store.read(unit), engine.clock.now_ms())


async def runs(request: Request) -> Response:
    """List the runs that an event began."""
    engine = engine_of(request)
    unit = partial(_runs, event_id=request.path_params["event"])
    return wrapped(await engine.store.read(unit), engine.clock.now_ms())


def _listing(connection: sqlite3.Connection, values: dict[str, Any]) -> list[EventView]:
    cursor = values["cursor"]
    if cursor and connection.execute(QUERIES["event_view"], (cursor,)).fetchone() is None:
        raise Refused(f"cursor: there is no event {cursor[:_LONGEST_SHOWN]!r}")
    rows = connection.execute(QUERIES["event_list"], values).fetchall()
    return [_view(*row) for row in rows]


def _event(connection: sqlite3.Connection, event_id: str) -> EventView:
    row = connection.execute(QUERIES["event_view"], (event_id,)).fetchone()
    if row is not None:
        return _view(*row)
    found = outcomes_of(connection, event_id, most=1)
    if not found:
        raise _unknown(event_id)
    _, trigger = load_trigger(connection, found[0].run_id)
    return _view(event_id, found[0].created_ms, msgspec.json.encode(trigger))


def _runs(connection: sqlite3.Connection, event_id: str) -> list[EndedRun]:
    found = outcomes_of(connection, event_id)
    if not found and connection.execute(QUERIES["event_view"], (event_id,)).fetchone() is None:
        raise _unknown(event_id)
    return [
        EndedRun(
            run_id=run.run_id,
            run_started_at=rfc3339(run.created_ms),
            function_id=run.fn_id,
            function_version=0,
            environment_id=tokens.ENVIRONMENT_ID,
            event_id=event_id,
            status=run.status.wire,
            ended_at=rfc3339(run.ended_ms),
            output=stored(run.output) if run.status.ended else UNSET,
        )
        for run in found
    ]


def _unknown(event_id: str) -> Refused:
    return Refused(f"event: there is no event {event_id[:_LONGEST_SHOWN]!r}", 404)


def _view(event_id: str, received_ms: int, body: bytes) -> EventView:
    return EventView(
        internal_id=event_id,
        account_id=tokens.ACCOUNT_ID,
        environment_id=tokens.ENVIRONMENT_ID,
        source="",
        source_id=None,
        received_at=rfc3339(received_ms),
        **msgspec.json.decode(body),
    )
