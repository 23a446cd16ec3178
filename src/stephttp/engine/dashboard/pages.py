"""What can be seen: overview, runs, events, applications."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from stephttp.engine.dashboard import list_address
from stephttp.engine.dashboard.notices import notice_of
from stephttp.engine.dashboard.page_request import Visit
from stephttp.engine.dashboard.waterfall_rows import timeline
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.timer import TimerKind
from stephttp.engine.reading import (
    EndpointRow,
    Overview,
    PageRequest,
    RunDetail,
    RunFilter,
    Span,
    State,
)

_MOST_ROWS = 300
"""Rows of a waterfall that are shown at once."""
_MOST_ENDPOINTS = 200
"""Endpoints that a page shows: there may be one for each path."""
_BY_TIME = frozenset({TimerKind.SLEEP, TimerKind.RETRY, TimerKind.RESUME})
_EQUALS = re.compile(
    r"""\basync\.data\.([A-Za-z_][\w.]*)\s*==\s*("[^"\\]*"|'[^'\\]*'|-?\d+(?:\.\d+)?|true|false)"""
)


async def overview(visit: Visit) -> Response:
    """How all endpoints do."""
    name = visit.request.query_params.get("span", "hour")
    if name not in list_address.SPANS:
        raise Refused(f"span: {name[:64]!r} is none of {', '.join(list_address.SPANS)}")
    reader = visit.engine.reader
    data = await reader.overview(Span[name.upper()])
    failed = await reader.runs(RunFilter(states=frozenset({State.FAILED})), PageRequest(limit=5))
    return visit.page(
        "overview.html", span=name, spans=list_address.SPANS, data=data, points=_points(data),
        endpoints=data.endpoints[:_MOST_ENDPOINTS], failed=failed.items,
    )  # fmt: skip


def _points(data: Overview) -> dict[str, list[Any]]:
    """Columns for the charts."""
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


async def runs(visit: Visit) -> Response:
    """The list of runs."""
    fields = list_address.fields_of(visit.request.query_params)
    wanted = list_address.read(fields)
    reader, now_ms = visit.engine.reader, visit.engine.clock.now_ms()
    page = await reader.runs(wanted.runs(now_ms), list_address.part(fields))
    slugs = await reader.slugs(_MOST_ENDPOINTS)
    if not page.items and not wanted.is_set and not slugs:
        return visit.page("nothing.html", engine_url=engine_url(visit))
    return visit.page(
        "runs.html",
        wanted=wanted,
        page=page,
        slugs=sorted(slugs.union(wanted.endpoints)),
        states=list(State),
        spans=list_address.SPANS,
        notice=notice_of(visit.request.query_params),
    )


async def run(visit: Visit) -> Response:
    """One run."""
    detail = await visit.engine.reader.run(visit.run_id)
    shows_all = visit.request.query_params.get("rows") == "all"
    picture = timeline(detail.spans, detail.steps, visit.engine.clock.now_ms())
    rows = picture.rows if shows_all else picture.rows[:_MOST_ROWS]
    return visit.page(
        "run.html",
        run=detail,
        row=detail.row,
        picture=picture,
        rows=rows,
        hidden=len(picture.rows) - len(rows),
        can_resume=any(wait.kind in _BY_TIME for wait in detail.waiting_for),
        guesses={wait.step_id: guess(wait.condition) for wait in detail.waiting_for},
        notice=notice_of(visit.request.query_params),
    )


async def raw(visit: Visit) -> Response:
    """A value of a run, as it is, to keep."""
    detail = await visit.engine.reader.run(visit.run_id)
    part = visit.request.path_params["part"]
    value = _part(detail, part, visit.request.query_params.get("step"))
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
    """Data of an event that would fulfil a condition, as far as that can be told from it."""
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


async def events(visit: Visit) -> Response:
    """The list of events."""
    fields = list_address.fields_of(visit.request.query_params)
    wanted = list_address.read(fields)
    reader, now_ms = visit.engine.reader, visit.engine.clock.now_ms()
    page = await reader.events(wanted.events(now_ms), list_address.part(fields))
    return visit.page(
        "events.html",
        wanted=wanted,
        page=page,
        spans=list_address.SPANS,
        engine_url=engine_url(visit),
    )


async def event(visit: Visit) -> Response:
    """One event."""
    detail = await visit.engine.reader.event(visit.request.path_params["event"])
    return visit.page(
        "event.html", event=detail.row, runs=detail.runs,
        notice=notice_of(visit.request.query_params),
    )  # fmt: skip


async def new_event(visit: Visit) -> Response:
    """The editor for an event."""
    name = visit.request.query_params.get("name", "")
    return visit.page("send.html", name=name, data="{\n  \n}", id="", error=None)


async def apps(visit: Visit) -> Response:
    """What has connected."""
    endpoints = await visit.engine.reader.endpoints()
    if not endpoints:
        return visit.page("nothing.html", engine_url=engine_url(visit))
    origins: dict[str, list[Any]] = {}
    shown = _latest(endpoints)
    for one in shown:
        origins.setdefault(one.origin, []).append(one)
    hidden = len(endpoints) - len(shown)
    return visit.page("apps.html", origins=origins, hidden=hidden, engine_url=engine_url(visit))


def _latest(endpoints: Sequence[EndpointRow]) -> list[EndpointRow]:
    """Those that were seen last, as many as can be shown, in their order."""
    latest = heapq.nlargest(_MOST_ENDPOINTS, endpoints, key=lambda one: one.seen_ms)
    chosen = {one.fn_id for one in latest}
    return [one for one in endpoints if one.fn_id in chosen]


def engine_url(visit: Visit) -> str:
    """Where applications find this engine, as the browser found it."""
    return f"{visit.request.url.scheme}://{visit.request.headers.get('host', '')}"
