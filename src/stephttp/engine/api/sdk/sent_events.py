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

from stephttp.engine.api.run_parts import EventRun
from stephttp.engine.model import tokens
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import RunStatus
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
    run_id, created_ms, *_ = _began(connection, event_id)[0]
    _, trigger = load_trigger(connection, run_id)
    return _view(event_id, created_ms, msgspec.json.encode(trigger))


def _runs(connection: sqlite3.Connection, event_id: str) -> list[EventRun]:
    is_stored = connection.execute(QUERIES["event_view"], (event_id,)).fetchone() is not None
    return [
        EventRun(
            run_id=run_id,
            run_started_at=rfc3339(created_ms),
            function_id=fn_id,
            function_version=0,
            environment_id=tokens.ENVIRONMENT_ID,
            event_id=event_id,
            status=RunStatus(status).wire,
            ended_at=rfc3339(ended_ms),
        )
        for run_id, created_ms, fn_id, _, status, ended_ms in _began(
            connection, event_id, is_stored=is_stored
        )
    ]


def _began(
    connection: sqlite3.Connection, event_id: str, *, is_stored: bool = False
) -> list[tuple[str, int, str, str, str, int | None]]:
    rows = connection.execute(QUERIES["event_runs"], (event_id,)).fetchall()
    if not rows and not is_stored:
        raise Refused(f"event: there is no event {event_id[:_LONGEST_SHOWN]!r}", 404)
    return rows


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
