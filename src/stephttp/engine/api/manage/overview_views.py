"""The JSON of endpoints and of the overview, as people see them."""

from __future__ import annotations

from stephttp.engine.api.run_parts import ReportedError, stored
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.reading import (
    Durations,
    EndpointFigures,
    EndpointRow,
    Figures,
    Overview,
    Point,
)
from stephttp.engine.web.fields import AnswerBody, RunId, Time, Uuid


class EndpointOverview(AnswerBody):
    """Figures of one endpoint, and how many of its runs have not ended."""

    function_id: Uuid
    function: str
    origin: str
    open_runs: int
    began: int
    went_async: int
    completed: int
    failed: int
    cancelled: int
    per_minute: float
    error_rate: float | None
    async_share: float | None
    first: Durations
    whole: Durations


class PointView(AnswerBody):
    """Figures of a part of the period."""

    start: Time
    began: int
    completed: int
    failed: int
    cancelled: int
    went_async: int
    first_p50_ms: float | None
    first_p95_ms: float | None
    whole_p50_ms: float | None
    whole_p95_ms: float | None


class OverviewAnswer(AnswerBody):
    """How all endpoints have done since a time. Each point stands for `width_s` seconds; `waiting`
    counts the runs that are in the background now."""

    since: Time
    width_s: int
    open_runs: int
    waiting: int
    total: Figures
    endpoints: list[EndpointOverview]
    points: list[PointView]


class LastFailure(AnswerBody):
    """The latest run of an endpoint that failed."""

    run_id: RunId
    error: ReportedError | None
    ended_at: Time


class EndpointItem(AnswerBody):
    """An endpoint, as its latest run described it. `runs` and `failed_runs` count since the
    beginning, including what is no longer stored."""

    function_id: Uuid
    app_id: Uuid
    function: str
    origin: str
    method: str
    path: str
    sdk: str
    retries: int
    seen_at: Time
    open_runs: int
    failed_runs: int
    runs: int
    last_failure: LastFailure | None


def overview_answer(overview: Overview) -> OverviewAnswer:
    """Describe how all endpoints have done."""
    return OverviewAnswer(
        since=rfc3339(overview.since_ms),
        width_s=overview.width_s,
        open_runs=overview.open_runs,
        waiting=overview.waiting,
        total=overview.total,
        endpoints=[_endpoint(one) for one in overview.endpoints],
        points=[_point(one) for one in overview.points],
    )


def _endpoint(one: EndpointFigures) -> EndpointOverview:
    figures = one.figures
    return EndpointOverview(
        function_id=one.fn_id,
        function=one.slug,
        origin=one.origin,
        open_runs=one.open_runs,
        began=figures.began,
        went_async=figures.went_async,
        completed=figures.completed,
        failed=figures.failed,
        cancelled=figures.cancelled,
        per_minute=figures.per_minute,
        error_rate=figures.error_rate,
        async_share=figures.async_share,
        first=figures.first,
        whole=figures.whole,
    )


def _point(point: Point) -> PointView:
    return PointView(
        start=rfc3339(point.start_ms),
        began=point.began,
        completed=point.completed,
        failed=point.failed,
        cancelled=point.cancelled,
        went_async=point.went_async,
        first_p50_ms=point.first_p50_ms,
        first_p95_ms=point.first_p95_ms,
        whole_p50_ms=point.whole_p50_ms,
        whole_p95_ms=point.whole_p95_ms,
    )


def endpoint_item(row: EndpointRow) -> EndpointItem:
    """Describe an endpoint."""
    return EndpointItem(
        function_id=row.fn_id,
        app_id=row.app_id,
        function=row.slug,
        origin=row.origin,
        method=row.method,
        path=row.path,
        sdk=row.sdk,
        retries=row.retries,
        seen_at=rfc3339(row.seen_ms),
        open_runs=row.open_runs,
        failed_runs=row.failed_runs,
        runs=row.runs,
        last_failure=_failure(row),
    )


def _failure(row: EndpointRow) -> LastFailure | None:
    if row.last_failed_run is None or row.last_error_ms is None:
        return None
    return LastFailure(row.last_failed_run, stored(row.last_error), rfc3339(row.last_error_ms))
