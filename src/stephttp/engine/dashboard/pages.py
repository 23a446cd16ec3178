"""The pages: overview, runs, one run, events, one event, apps, and sending an event."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from stephttp.engine.dashboard import list_query
from stephttp.engine.dashboard.notices import notice_of
from stephttp.engine.dashboard.page_request import PageRequest
from stephttp.engine.dashboard.waterfall_layout import abridged, lay_out
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.timer import TimerKind
from stephttp.engine.reading import (
    EndpointRow,
    Overview,
    Paging,
    Period,
    RunDetail,
    RunFilter,
    RunState,
)

_MOST_ROWS = 300
"""Rows of a waterfall that are shown at once."""
_MOST_ENDPOINTS = 200
"""Endpoints that a page shows; an application may have one for each path."""
_BY_TIME = frozenset({TimerKind.SLEEP, TimerKind.RETRY, TimerKind.RESUME})
_EQUALS = re.compile(
    r"""\basync\.data\.([A-Za-z_][\w.]*)\s*==\s*("[^"\\]*"|'[^'\\]*'|-?\d+(?:\.\d+)?|true|false)"""
)


async def overview(request: PageRequest) -> Response:
    """Show figures of all endpoints."""
    name = request.http.query_params.get("span", "hour")
    if name not in list_query.PERIODS:
        raise Refused(f"span: {name[:64]!r} is not one of {', '.join(list_query.PERIODS)}")
    reader = request.engine.reader
    data = await reader.overview(Period[name.upper()])
    failed = await reader.runs(RunFilter(states=frozenset({RunState.FAILED})), Paging(limit=5))
    return request.render(
        "overview.html", period=name, periods=list_query.PERIODS, data=data, points=_points(data),
        endpoints=data.endpoints[:_MOST_ENDPOINTS], failed=failed.items,
    )  # fmt: skip


def _points(data: Overview) -> dict[str, list[Any]]:
    """Return the columns of the charts."""
    points = data.points
    return {
        "at": [point.start_ms // 1000 for point in points],
        "completed": [point.completed for point in points],
        "failed": [point.failed for point in points],
        "began": [point.began for point in points],
        "first_p50": [point.first_p50_ms for point in points],
        "first_p95": [point.first_p95_ms for point in points],
        "whole_p50": [point.whole_p50_ms for point in points],
        "whole_p95": [point.whole_p95_ms for point in points],
    }


async def runs(request: PageRequest) -> Response:
    """Show the list of runs."""
    fields = list_query.fields_of(request.http.query_params)
    query = list_query.parse(fields)
    reader, now_ms = request.engine.reader, request.engine.clock.now_ms()
    page = await reader.runs(query.run_filter(now_ms), list_query.paging(fields))
    slugs = await reader.slugs(_MOST_ENDPOINTS)
    if not page.items and not query.is_set and not slugs:
        return request.render("nothing.html", engine_url=engine_url(request))
    return request.render(
        "runs.html",
        query=query,
        page=page,
        slugs=sorted(slugs.union(query.endpoints)),
        states=list(RunState),
        periods=list_query.PERIODS,
        notice=notice_of(request.http.query_params),
    )


async def run(request: PageRequest) -> Response:
    """Show one run."""
    detail = await request.engine.reader.run(request.run_id)
    shows_all = request.http.query_params.get("rows") == "all"
    layout = lay_out(detail.spans, detail.steps, request.engine.clock.now_ms())
    rows = layout.rows if shows_all else abridged(layout.rows, _MOST_ROWS)
    return request.render(
        "run.html",
        run=detail,
        row=detail.row,
        layout=layout,
        rows=rows,
        hidden=len(layout.rows) - len(rows),
        can_resume=any(wait.kind in _BY_TIME and not wait.behind for wait in detail.waiting_for),
        guesses={wait.step_id: guess(wait.condition) for wait in detail.waiting_for},
        notice=notice_of(request.http.query_params),
    )


async def raw(request: PageRequest) -> Response:
    """Send a value of a run, unchanged, as a download."""
    detail = await request.engine.reader.run(request.run_id)
    part = request.http.path_params["part"]
    value = _part(detail, part, request.http.query_params.get("step"))
    if value is None:
        raise Refused(f"part: the run has no {part[:64]!r}", 404)
    name = f"{detail.row.run_id}-{part}.txt"
    return Response(
        value,
        media_type="application/octet-stream",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _part(detail: RunDetail, part: str, step_id: str | None) -> bytes | None:
    if step_id is None:
        answer = detail.result.body if detail.result else None
        return {"request": detail.request.body, "response": answer}.get(part)
    for step in detail.steps:
        if step.step_id == step_id:
            values = {"output": step.output, "input": step.opts, "error": step.error}
            return values.get(part)
    return None


def guess(condition: str | None) -> str:
    """Return data of an event that would fulfil a condition, as far as the text of it says."""
    data: dict[str, Any] = {}
    for path, literal in _EQUALS.findall(condition or ""):
        quoted = literal[0] in "'\""
        value = literal[1:-1] if quoted else msgspec.json.decode(literal)
        *parents, last = path.split(".")
        place = data
        for name in parents:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                return "{}"
        place[last] = value
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


async def events(request: PageRequest) -> Response:
    """Show the list of events."""
    fields = list_query.fields_of(request.http.query_params)
    query = list_query.parse(fields)
    reader, now_ms = request.engine.reader, request.engine.clock.now_ms()
    page = await reader.events(query.event_filter(now_ms), list_query.paging(fields))
    return request.render(
        "events.html",
        query=query,
        page=page,
        periods=list_query.PERIODS,
        engine_url=engine_url(request),
    )


async def event(request: PageRequest) -> Response:
    """Show one event."""
    detail = await request.engine.reader.event(request.http.path_params["event"])
    return request.render(
        "event.html", event=detail.row, runs=detail.runs,
        notice=notice_of(request.http.query_params),
    )  # fmt: skip


async def new_event(request: PageRequest) -> Response:
    """Show the editor for an event."""
    name = request.http.query_params.get("name", "")
    return request.render("send.html", name=name, data="{\n  \n}", id="", error=None)


async def apps(request: PageRequest) -> Response:
    """Show the applications, with their endpoints."""
    endpoints = await request.engine.reader.endpoints()
    if not endpoints:
        return request.render("nothing.html", engine_url=engine_url(request))
    origins: dict[str, list[Any]] = {}
    shown = _latest(endpoints)
    for one in shown:
        origins.setdefault(one.origin, []).append(one)
    hidden = len(endpoints) - len(shown)
    return request.render(
        "apps.html", origins=origins, hidden=hidden, engine_url=engine_url(request),
        waiting_by_origin=await request.engine.reader.waiting_by_origin(),
        trying=request.engine.executor.origins.trying,
    )  # fmt: skip


def _latest(endpoints: Sequence[EndpointRow]) -> list[EndpointRow]:
    """Return the endpoints that were seen last, at most as many as a page shows, in their order."""
    latest = heapq.nlargest(_MOST_ENDPOINTS, endpoints, key=lambda one: one.seen_ms)
    chosen = {one.fn_id for one in latest}
    return [one for one in endpoints if one.fn_id in chosen]


def engine_url(request: PageRequest) -> str:
    """Return the URL of this engine, as the browser has it."""
    return f"{request.http.url.scheme}://{request.http.headers.get('host', '')}"
