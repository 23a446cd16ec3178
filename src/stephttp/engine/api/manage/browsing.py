"""What people look at: runs in full, how it all went, and what changes meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from stephttp.engine.api.manage import views
from stephttp.engine.live.changes import Changes
from stephttp.engine.model.run import Refused
from stephttp.engine.reading import EventFilter, Paging, Period, RunFilter, RunState
from stephttp.engine.web.requests import (
    engine_of,
    paged,
    parse_limit,
    parse_run_id,
    parse_time,
    wrapped,
)

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_KEEP_ALIVE = b":\n\n"
_DIRECTIONS = ("older", "newer")
_LONGEST_TEXT = 1000


async def runs(request: Request) -> Response:
    """Runs, newest first, with filters."""
    engine = engine_of(request)
    wanted = read_filter(request.query_params)
    page = await engine.reader.runs(wanted, read_page(request.query_params))
    return paged(page, [views.run_view(row) for row in page.items], engine.clock.now_ms())


async def run(request: Request) -> Response:
    """One run in full."""
    engine = engine_of(request)
    detail = await engine.reader.run(parse_run_id(request.path_params["run"]))
    return wrapped(views.detail_view(detail), engine.clock.now_ms())


async def overview(request: Request) -> Response:
    """How it went in the last hour, day or week."""
    engine = engine_of(request)
    name = request.query_params.get("span", Period.HOUR.name.lower())
    if name.upper() not in Period.__members__:
        raise Refused(f"span: {name[:64]!r} is neither 'hour' nor 'day' nor 'week'")
    endpoint = request.query_params.get("endpoint") or None
    figures = await engine.reader.overview(Period[name.upper()], endpoint)
    return wrapped(views.overview_view(figures), engine.clock.now_ms())


async def endpoints(request: Request) -> Response:
    """The endpoints that have reported runs."""
    engine = engine_of(request)
    rows = await engine.reader.endpoints()
    return wrapped([views.endpoint_view(row) for row in rows], engine.clock.now_ms())


async def events(request: Request) -> Response:
    """Events, newest first, with filters."""
    engine = engine_of(request)
    query = request.query_params
    after, before = query.get("after"), query.get("before")
    wanted = EventFilter(
        name=query.get("name") or None,
        after_ms=parse_time(after, "after") if after else None,
        before_ms=parse_time(before, "before") if before else None,
        text=_text(query),
    )
    page = await engine.reader.events(wanted, read_page(query))
    return paged(page, [views.event_view(row) for row in page.items], engine.clock.now_ms())


async def event(request: Request) -> Response:
    """One event, with the runs that had to do with it."""
    engine = engine_of(request)
    found = await engine.reader.event(request.path_params["event"])
    return wrapped(views.event_detail_view(found), engine.clock.now_ms())


async def changes(request: Request) -> Response:
    """Follow what changes, as server-sent events."""
    engine = engine_of(request)
    stream = _follow(engine)
    headers = {"cache-control": "no-cache"}
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _follow(engine: Engine) -> AsyncGenerator[bytes]:
    clock, settings = engine.clock, engine.settings
    end_ms = clock.now_ms() + round(settings.stream_lifetime * 1000)
    quiet_ms = round(settings.stream_keep_alive * 1000)
    with engine.feed.listening() as listener:
        yield _KEEP_ALIVE
        said_ms = clock.now_ms()
        over = False
        while not over and clock.now_ms() < end_ms:
            await clock.wait_until(min(end_ms, said_ms + quiet_ms), listener.wake)
            news = listener.take()
            over = news.over
            if news or clock.now_ms() >= said_ms + quiet_ms:
                said_ms = clock.now_ms()
                yield _event(news) if news else _KEEP_ALIVE


def _event(news: Changes) -> bytes:
    told = {"run_ids": sorted(news.run_ids), "events": news.events, "lost": news.lost}
    name = b"over" if news.over else b"changes"
    return b"event: " + name + b"\ndata: " + msgspec.json.encode(told) + b"\n\n"


def read_filter(query: QueryParams) -> RunFilter:
    """The filter that query parameters describe.

    Raises:
        Refused: one of them is not acceptable; the text names it.
    """
    after, before = query.get("after"), query.get("before")
    return RunFilter(
        endpoints=tuple(name for name in query.getlist("endpoint") if name),
        states=frozenset(_state(name) for name in query.getlist("status") if name),
        after_ms=parse_time(after, "after") if after else None,
        before_ms=parse_time(before, "before") if before else None,
        text=_text(query),
        run_id=query.get("run_id") or None,
        rerun_of=query.get("rerun_of") or None,
    )


def read_page(query: QueryParams) -> Paging:
    """The part of a list that query parameters ask for.

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
