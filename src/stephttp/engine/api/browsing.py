"""What people look at: runs in full, how it all went, and what changes meanwhile."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from stephttp.engine.api.messages import (
    engine_of,
    paged,
    parse_limit,
    parse_run_id,
    parse_time,
    wrapped,
)
from stephttp.engine.clock import rfc3339
from stephttp.engine.feed import Changes
from stephttp.engine.models import Refused
from stephttp.engine.reading import (
    Durations,
    EndpointRow,
    Figures,
    Header,
    Overview,
    PageRequest,
    RunDetail,
    RunFilter,
    RunRow,
    Span,
    State,
    StepDetail,
    Wait,
    WaterfallSpan,
)

if TYPE_CHECKING:
    from stephttp.engine.app import Engine

_KEEP_ALIVE = b":\n\n"
_DIRECTIONS = ("older", "newer")
_LONGEST_TEXT = 1000


async def runs(request: Request) -> Response:
    """Runs, newest first, with filters."""
    engine = engine_of(request)
    wanted = read_filter(request.query_params)
    page = await engine.reader.runs(wanted, read_page(request.query_params))
    return paged(page, [_run(row) for row in page.items], engine.clock.now_ms())


async def run(request: Request) -> Response:
    """One run in full."""
    engine = engine_of(request)
    detail = await engine.reader.run(parse_run_id(request.path_params["run"]))
    return wrapped(_detail(detail), engine.clock.now_ms())


async def overview(request: Request) -> Response:
    """How it went in the last hour, day or week."""
    engine = engine_of(request)
    name = request.query_params.get("span", Span.HOUR.name.lower())
    if name.upper() not in Span.__members__:
        raise Refused(f"span: {name[:64]!r} is neither 'hour' nor 'day' nor 'week'")
    endpoint = request.query_params.get("endpoint") or None
    figures = await engine.reader.overview(Span[name.upper()], endpoint)
    return wrapped(_overview(figures), engine.clock.now_ms())


async def endpoints(request: Request) -> Response:
    """The endpoints that have reported runs."""
    engine = engine_of(request)
    rows = await engine.reader.endpoints()
    return wrapped([_endpoint(row) for row in rows], engine.clock.now_ms())


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
    text = query.get("text") or None
    if text is not None and len(text) > _LONGEST_TEXT:
        raise Refused(f"text: longer than {_LONGEST_TEXT} characters")
    after, before = query.get("after"), query.get("before")
    return RunFilter(
        endpoints=tuple(name for name in query.getlist("endpoint") if name),
        states=frozenset(_state(name) for name in query.getlist("status") if name),
        after_ms=parse_time(after, "after") if after else None,
        before_ms=parse_time(before, "before") if before else None,
        text=text,
        run_id=query.get("run_id") or None,
        rerun_of=query.get("rerun_of") or None,
    )


def read_page(query: QueryParams) -> PageRequest:
    """The part of a list that query parameters ask for.

    Raises:
        Refused: one of them is not acceptable; the text names it.
    """
    direction = query.get("direction") or _DIRECTIONS[0]
    if direction not in _DIRECTIONS:
        raise Refused(f"direction: {direction[:64]!r} is neither 'older' nor 'newer'")
    limit = parse_limit(query.get("limit"))
    return PageRequest(limit, query.get("cursor") or None, newer=direction == "newer")


def _state(name: str) -> State:
    try:
        return State(name.lower())
    except ValueError:
        known = ", ".join(State)
        raise Refused(f"status: {name[:64]!r} is not one of {known}") from None


def _run(row: RunRow) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "status": row.status.wire,
        "state": row.state.value,
        "function": row.endpoint,
        "method": row.method,
        "path": row.path,
        "began_at": rfc3339(row.began_ms),
        "started_at": rfc3339(row.created_ms),
        "first_phase_ms": row.first_ms,
        "ended_at": rfc3339(row.ended_ms),
        "attempt": row.attempt,
        "steps": row.step_count,
        "last_error": row.last_error,
        "error": _raw(row.error),
        "rerun_of": row.rerun_of,
        "went_async": row.went_async,
        "waiting_for": [wait_view(wait) for wait in row.waiting_for],
    }


def wait_view(wait: Wait) -> dict[str, Any]:
    """What a run waits for."""
    return {
        "kind": wait.kind.value,
        "step_id": wait.step_id,
        "step": wait.step,
        "key": wait.key,
        "condition": wait.condition,
        "due_at": rfc3339(wait.due_ms),
    }


def _detail(run: RunDetail) -> dict[str, Any]:
    request, result = run.request, run.result
    return {
        **_run(run.row),
        "app_id": run.app_id,
        "function_id": run.fn_id,
        "sdk": run.sdk,
        "event_id": run.event_id,
        "retries": run.retries,
        "request": {
            "method": request.method,
            "origin": request.origin,
            "path": request.path,
            "query": request.query,
            "content_type": request.content_type,
            "headers": _headers(request.headers),
            "sealed": request.sealed,
            "client": request.client,
            "body": _base64(request.body),
        },
        "response": result
        and {
            "status": result.status,
            "headers": _headers(result.headers),
            "body": _base64(result.body),
        },
        "step_list": [_step(step) for step in run.steps],
        "spans": [_span(span, run.row.began_ms) for span in run.spans],
        "events": [
            {
                "internal_id": event.event_id,
                "name": event.name,
                "step_id": event.step_id,
                "received": event.received,
            }
            for event in run.events
        ],
        "invoked_by": run.invoked_by
        and {"run_id": run.invoked_by[0], "step_id": run.invoked_by[1]},
        "reruns": list(run.reruns),
    }


def _headers(headers: tuple[Header, ...] | None) -> list[dict[str, Any]] | None:
    if headers is None:
        return None
    return [
        {"name": header.name, "value": header.value, "masked": header.masked} for header in headers
    ]


def _step(step: StepDetail) -> dict[str, Any]:
    return {
        "step_id": step.step_id,
        "id": step.id,
        "index": step.index,
        "name": step.name,
        "op": step.op,
        "state": step.state,
        "attempts": step.attempts,
        "started_at": rfc3339(round(step.started_ms)),
        "duration_ms": step.duration_ms,
        "due_at": rfc3339(step.due_ms),
        "opts": _raw(step.opts),
        "edited": _raw(step.edited),
        "output": _raw(step.output),
        "error": _raw(step.error),
    }


def _span(span: WaterfallSpan, began_ms: int) -> dict[str, Any]:
    return {
        "kind": span.kind.value,
        "step_id": span.step_id,
        "title": span.title,
        "offset_ms": span.start_ms - began_ms,
        "duration_ms": None if span.end_ms is None else span.end_ms - span.start_ms,
        "until": rfc3339(span.until_ms),
        "failed": span.failed,
        "error": _raw(span.error),
        "attempt": span.attempt,
        "tries": span.tries,
    }


def _overview(view: Overview) -> dict[str, Any]:
    return {
        "since": rfc3339(view.since_ms),
        "width_s": view.width_s,
        "open_runs": view.open_runs,
        "waiting": view.waiting,
        "total": _figures(view.total),
        "endpoints": [
            {
                "function_id": one.fn_id,
                "function": one.slug,
                "origin": one.origin,
                "open_runs": one.open_runs,
                **_figures(one.figures),
            }
            for one in view.endpoints
        ],
        "points": [
            {
                "start": rfc3339(point.start_ms),
                "began": point.began,
                "completed": point.completed,
                "failed": point.failed,
                "cancelled": point.cancelled,
                "went_async": point.went_async,
                "first_p50_ms": point.first_p50_ms,
                "first_p95_ms": point.first_p95_ms,
                "whole_p50_ms": point.whole_p50_ms,
                "whole_p95_ms": point.whole_p95_ms,
            }
            for point in view.points
        ],
    }


def _figures(one: Figures) -> dict[str, Any]:
    return {
        "began": one.began,
        "went_async": one.went_async,
        "completed": one.completed,
        "failed": one.failed,
        "cancelled": one.cancelled,
        "per_minute": one.per_minute,
        "error_rate": one.error_rate,
        "async_share": one.async_share,
        "first": _durations(one.first),
        "whole": _durations(one.whole),
    }


def _durations(one: Durations) -> dict[str, Any]:
    return {"p50_ms": one.p50_ms, "p95_ms": one.p95_ms, "p99_ms": one.p99_ms}


def _endpoint(row: EndpointRow) -> dict[str, Any]:
    return {
        "function_id": row.fn_id,
        "app_id": row.app_id,
        "function": row.slug,
        "origin": row.origin,
        "method": row.method,
        "path": row.path,
        "sdk": row.sdk,
        "retries": row.retries,
        "seen_at": rfc3339(row.seen_ms),
        "open_runs": row.open_runs,
        "failed_runs": row.failed_runs,
        "runs": row.runs,
        "last_failure": row.last_failed_run
        and {
            "run_id": row.last_failed_run,
            "error": _raw(row.last_error),
            "ended_at": rfc3339(row.last_error_ms),
        },
    }


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def _raw(json: bytes | None) -> Raw | None:
    return None if json is None else Raw(json)
