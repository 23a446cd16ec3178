"""What answers below `/v1/stephttp` look like; see `shapes`."""

from __future__ import annotations

from typing import Any, Literal

from stephttp.engine.api.openapi.shapes import (
    Base64,
    Failure,
    RunId,
    RunItem,
    Shape,
    SpanView,
    Status,
    Time,
    Uuid,
)


class Duration(Shape):
    """Milliseconds that half of all, 95 and 99 in a hundred did not exceed."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Figures(Shape):
    """What happened in a span of time.

    `error_rate` is a part of the runs that ended by themselves, `async_share` one of those whose
    first phase ended. `first` tells how long first phases took, `whole` how long whole runs did.
    """

    began: int
    went_async: int
    completed: int
    failed: int
    cancelled: int
    per_minute: float
    error_rate: float | None
    async_share: float | None
    first: Duration
    whole: Duration


class EndpointFigures(Figures):
    """Figures of one endpoint, and how many of its runs have not ended."""

    function_id: Uuid
    function: str
    origin: str
    open_runs: int


class Point(Shape):
    """Figures of a part of the span."""

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


class Overview(Shape):
    """How it went since a time. Each point stands for `width_s` seconds; `waiting` counts the runs
    that go on in the background, now."""

    since: Time
    width_s: int
    open_runs: int
    waiting: int
    total: Figures
    endpoints: list[EndpointFigures]
    points: list[Point]


class LastFailure(Shape):
    """The latest run of an endpoint that failed."""

    run_id: RunId
    error: Failure | None
    ended_at: Time


class Endpoint(Shape):
    """An endpoint, as its latest run described it. `runs` and `failed_runs` count since the
    beginning, also what is no longer stored."""

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


class Header(Shape):
    """A header. The value of a `masked` one is a secret, and is not told."""

    name: str
    value: str
    masked: bool


class SourceRequest(Shape):
    """The request that began a run.

    `headers` are those that the SDK keeps, `null` if it told none. `sealed`: there are others,
    which only the application can read.
    """

    method: str
    origin: str
    path: str
    query: str
    content_type: str
    headers: list[Header] | None
    sealed: bool
    client: str
    body: Base64 | None


class SourceResponse(Shape):
    """The answer that a run ended with."""

    status: int
    headers: list[Header]
    body: Base64


class StepItem(Shape):
    """A step. `opts`: what it was asked to do; `edited`: input that it was given by hand."""

    step_id: str
    id: str | None
    index: int
    name: str | None
    op: str
    state: Literal["waiting", "completed", "failed"]
    attempts: int
    started_at: Time
    duration_ms: float | None
    due_at: Time | None
    opts: Any
    edited: Any
    output: Any
    error: Failure | None


class SpanItem(Shape):
    """A part of a run's life; `offset_ms` after its begin. Without a duration it lasts, `until` a
    time at the latest."""

    kind: Literal["request", "step", "sleep", "wait", "call", "unreached", "attempt", "backoff"]
    step_id: str | None
    title: str
    offset_ms: float
    duration_ms: float | None
    until: Time | None
    failed: bool
    error: Failure | None
    attempt: int
    tries: int


class RunEvent(Shape):
    """An event that a step has sent, or has waited for (`received`)."""

    internal_id: str
    name: str | None
    step_id: str
    received: bool


class Inviter(Shape):
    """The step that waits for the result of the run."""

    run_id: RunId
    step_id: str


class RunDetail(RunItem):
    """A run in full. `spans` are in the order of their begin, for a waterfall. `user_spans`: those
    of OpenTelemetry that the code in it made."""

    app_id: Uuid
    function_id: Uuid
    sdk: str
    event_id: str
    retries: int
    request: SourceRequest
    response: SourceResponse | None
    step_list: list[StepItem]
    spans: list[SpanItem]
    user_spans: list[SpanView]
    events: list[RunEvent]
    invoked_by: Inviter | None
    reruns: list[RunId]


class ProbeView(Shape):
    """What a call of an application found.

    `ok`: it is well in both directions, keys included. `answers`: something answers; more cannot be
    told of what has no runs here, or another SDK. `wrong_key`: the application does not know the
    key that the engine signs with. `no_way_back`: it cannot ask the engine for runs, or is refused.
    `not_ours`: what answers there is no application of ours. `forbidden`: the engine may not call
    it.
    """

    verdict: Literal[
        "ok", "answers", "wrong_key", "no_way_back", "not_ours", "unreachable", "forbidden"
    ]
    status: int | None
    took_ms: int
    detail: str | None


class NewRunId(Shape):
    """The run that was begun."""

    run_id: RunId


class Waits(Shape):
    """How many waits have ended."""

    waits: int


class Bulk(Shape):
    """For how many runs it was done; `more`: it was not done for all, so repeat it."""

    count: int
    more: bool


class EventItem(Shape):
    """An event. `id` is the sender's; `repeated`: another event had it before, so this one ended no
    wait. `linked_runs` counts runs that sent it or waited for it."""

    internal_id: str
    name: str
    id: str | None
    repeated: bool
    received_at: Time
    event: Any
    linked_runs: int


class LinkedRun(Shape):
    """A run of which a step has waited for the event (`received`), or has sent it."""

    run_id: RunId
    status: Status
    function: str
    step_id: str
    step: str | None
    received: bool


class EventInFull(EventItem):
    """An event, with the runs that had to do with it."""

    runs: list[LinkedRun]


class EventId(Shape):
    """The event that was sent."""

    internal_id: str
