"""`/v1/stephttp/...`: what people look at; runs with their filters, events, endpoints,
overview, and changes as they happen.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.manage.event_views import event_in_full, event_item
from stephttp.engine.api.manage.overview_views import endpoint_item, overview_answer
from stephttp.engine.api.manage.run_views import run_in_full, run_item
from stephttp.engine.live.changes import Update
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import EventFilter, Paging, Period, RunFilter, RunState
from stephttp.engine.web.event_stream import ChangeEvents, EventSource, event_stream
from stephttp.engine.web.requests import (
    engine_of,
    parse_limit,
    parse_optional_time,
    parse_run_id,
)
from stephttp.engine.web.responses import paged, wrapped

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_DIRECTIONS = ("older", "newer")
_LONGEST_TEXT = 1000


async def runs(request: Request) -> Response:
    """List runs, newest first, by filters."""
    engine = engine_of(request)
    wanted = read_filter(request.query_params)
    page = await engine.reader.runs(wanted, read_page(request.query_params))
    return paged(page, [run_item(row) for row in page.items], engine.clock.now_ms())


async def run(request: Request) -> Response:
    """Return one run in full."""
    engine = engine_of(request)
    detail = await engine.reader.run(parse_run_id(request.path_params["run"]))
    return wrapped(run_in_full(detail), engine.clock.now_ms())


async def overview(request: Request) -> Response:
    """Return how all endpoints have done in the last hour, day or week."""
    engine = engine_of(request)
    name = request.query_params.get("span", Period.HOUR.name.lower())
    if name.upper() not in Period.__members__:
        raise Refused(f"span: {name[:64]!r} is neither 'hour' nor 'day' nor 'week'")
    endpoint = request.query_params.get("endpoint") or None
    figures = await engine.reader.overview(Period[name.upper()], endpoint)
    return wrapped(overview_answer(figures), engine.clock.now_ms())


async def endpoints(request: Request) -> Response:
    """List the endpoints that have reported runs."""
    engine = engine_of(request)
    rows = await engine.reader.endpoints()
    return wrapped([endpoint_item(row) for row in rows], engine.clock.now_ms())


async def events(request: Request) -> Response:
    """List events, newest first, by filters."""
    engine = engine_of(request)
    query = request.query_params
    wanted = EventFilter(
        name=query.get("name") or None,
        after_ms=parse_optional_time(query.get("after"), "after"),
        before_ms=parse_optional_time(query.get("before"), "before"),
        text=_text(query),
    )
    page = await engine.reader.events(wanted, read_page(query))
    return paged(page, [event_item(row) for row in page.items], engine.clock.now_ms())


async def event(request: Request) -> Response:
    """Return one event, with the runs that sent it or waited for it."""
    engine = engine_of(request)
    found = await engine.reader.event(request.path_params["event"])
    return wrapped(event_in_full(found), engine.clock.now_ms())


async def changes(request: Request) -> Response:
    """Follow what changes, as server-sent events."""
    engine = engine_of(request)
    return event_stream(engine, _changes(engine), {"cache-control": "no-cache"})


class _NamedChanges(ChangeEvents):
    def written(self, changes: Update) -> bytes:
        kind = b"over" if changes.over else b"changes"
        data = {
            "run_ids": sorted(changes.run_ids),
            "events": changes.events,
            "lost": changes.lost,
        }
        return b"event: " + kind + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


@contextmanager
def _changes(engine: Engine) -> Generator[EventSource]:
    with engine.changes.listening() as listener:
        yield _NamedChanges(listener)


def read_filter(query: QueryParams) -> RunFilter:
    """Return the filter that query parameters describe.

    Raises:
        Refused: one of them is not acceptable; the text names it.
    """
    return RunFilter(
        endpoints=tuple(name for name in query.getlist("endpoint") if name),
        states=frozenset(_state(name) for name in query.getlist("status") if name),
        after_ms=parse_optional_time(query.get("after"), "after"),
        before_ms=parse_optional_time(query.get("before"), "before"),
        text=_text(query),
        run_id=query.get("run_id") or None,
        rerun_of=query.get("rerun_of") or None,
    )


def read_page(query: QueryParams) -> Paging:
    """Return the part of a list that query parameters ask for.

    Raises:
        Refused: one of them is not acceptable; the text names it.
    """
    direction = query.get("direction") or _DIRECTIONS[0]
    if direction not in _DIRECTIONS:
        raise Refused(f"direction: {direction[:64]!r} is neither 'older' nor 'newer'")
    limit = parse_limit(query.get("limit"))
    return Paging(limit, query.get("cursor") or None, newer=direction == "newer")


def _text(query: QueryParams) -> str | None:
    text = query.get("text") or None
    if text is not None and len(text) > _LONGEST_TEXT:
        raise Refused(f"text: longer than {_LONGEST_TEXT} characters")
    return text


def _state(name: str) -> RunState:
    try:
        return RunState(name.lower())
    except ValueError:
        known = ", ".join(RunState)
        raise Refused(f"status: {name[:64]!r} is not one of {known}") from None
