"""What answers look like, as types: `openapi` makes their schemas from them.

They describe; answers are not made from them, since much of an answer is JSON already when it
comes out of the store. tests/engine/test_openapi.py checks that answers fit.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from stephttp.engine.web.requests import ULID_PATTERN

RunId = Annotated[str, Meta(pattern=ULID_PATTERN)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Base64 = Annotated[str, Meta(extra_json_schema={"contentEncoding": "base64"})]
Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Pair = Annotated[list[str], Meta(min_length=2, max_length=2)]
Status = Literal["Running", "Completed", "Failed", "Cancelled"]


class Shape(Struct, forbid_unknown_fields=True):
    """An object with exactly these fields."""


class Metadata(Shape):
    """Comes with the data of every good answer of the v1 API."""

    fetched_at: Time


class PagePlace(Shape):
    """How to come to the other items of a list.

    `older` and `newer` are cursors; no `older` means that there is nothing older, while `newer`
    may find nothing until there is something new. If the search was ended before the page was full,
    `searched_to` tells how far it came; the same cursor goes on with it.
    """

    older: str | None
    newer: str | None
    searched_to: Time | None


class PagedMetadata(Metadata):
    """Comes with a part of a list."""

    page: PagePlace


class ErrorAnswer(Shape):
    """Why a request was not done. `status` is also the status of the answer."""

    error: str
    data: None
    status: int


class Names(Shape):
    """Of a new run, or of the one that an idempotency key has already.

    `token` opens the run's output, `realtime_token` its live stream.
    """

    fn_id: Uuid
    app_id: Uuid
    run_id: RunId
    token: str
    realtime_token: str


class BatchItem(Shape, omit_defaults=True):
    """What became of one item: 200, or a status and the reason."""

    status: int
    error: str = ""


class BatchAnswer(Shape):
    """One for each item of the batch, in its order."""

    items: list[BatchItem]


class Lost(Shape):
    """Runs that have no lease any more: another process has taken them over, or they ended."""

    lost: list[RunId]


class StillSync(Shape, tag_field="state", tag="sync"):
    """The handler still answers the first request."""


class NowAsync(Shape, tag_field="state", tag="async"):
    """The run goes on in the background; `token` opens its output."""

    token: str


class Ended(Shape, tag_field="state", tag="ended"):
    """The run has ended, with this answer."""

    status: int
    headers: list[Pair]
    body: Base64


class Failure(Struct):
    """An error as an SDK reported it, or the engine. May have further fields."""

    name: str = ""
    message: str = ""


class Wait(Shape):
    """What a run waits for."""

    kind: str
    step_id: str | None
    step: str | None
    key: str | None
    condition: str | None
    due_at: Time | None


class RunItem(Shape):
    """A run, in a list.

    `began_at` is when its request came in, `started_at` when the engine first heard of it.
    """

    run_id: RunId
    status: Status
    state: Literal["running", "waiting", "completed", "failed", "cancelled"]
    function: str
    method: str
    path: str
    began_at: Time
    started_at: Time
    first_phase_ms: float | None
    ended_at: Time | None
    attempt: int
    steps: int
    last_error: str | None
    error: Failure | None
    rerun_of: RunId | None
    went_async: bool
    waiting_for: list[Wait]


class EventRun(Shape):
    """A run that an event began."""

    run_id: RunId
    run_started_at: Time
    function_id: Uuid
    function_version: int
    environment_id: Uuid
    event_id: str
    status: Status
    ended_at: Time | None


class _RunMore(EventRun):
    function: str
    attempt: int
    last_error: str | None
    error: Failure | None
    invoked_by: str | None
    waiting_for: list[Wait]


class RunView(_RunMore, omit_defaults=True):
    """A run. `output` is there once it has ended."""

    output: Base64 = ""


class Step(Shape):
    """A step of a run. `step_id` is the hash of `id` and `index`, which the user's code chose."""

    step_id: str
    id: str | None
    index: int | None
    name: str | None
    op: str | None
    status: Literal["Waiting", "Completed", "Failed"]
    attempts: int
    started_at: Time | None
    duration_ms: float | None
    due_at: Time | None
    error: Failure | None


class SpanDetails(Struct):
    """What is kept of a span beside its name and times; without what it does not have."""

    service: str = ""
    scope: str = ""
    message: str = ""
    attributes: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    truncated: bool = False


class SpanView(Shape):
    """An OpenTelemetry span of somebody's code. `step_id`: the step in which it was made."""

    trace_id: str
    span_id: str
    parent_id: str | None
    step_id: str | None
    attempt: int | None
    name: str
    kind: Literal["unspecified", "internal", "server", "client", "producer", "consumer"]
    status: Literal["unset", "ok", "error"]
    started_at: Time
    duration_ms: float
    details: SpanDetails


class Job(Shape):
    """What the engine will do for a run, and when."""

    at: Time
    kind: str
    position: int
    attempt: int
    step_id: str | None


class EventView(Struct):
    """An event as it was sent, and what the engine knows of it."""

    internal_id: str
    account_id: Uuid
    environment_id: Uuid
    source: str
    source_id: None
    received_at: Time
    name: str
    data: Any


class Trigger(Struct):
    """The event that began a run."""

    name: str
    data: dict[str, Any]


class CancellationView(Shape, rename={"condition": "if"}):
    """An order to cancel all runs of a function that began in a span of time."""

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


class SignalAnswer(Shape):
    """The run that waited for the signal."""

    run_id: RunId


class NewToken(Shape):
    """What opens topics: as `token` in the query of `sse` and `connect`."""

    jwt: str


class Received(Shape):
    """An id for each event. For an empty list of events: one empty id."""

    ids: list[str]
    status: Literal[200]


class NotReceived(Shape):
    """Why no event was stored."""

    ids: list[str]
    status: int
    error: str


class KeyProblem(Shape):
    """Why the sender may not send events."""

    status: int
    message: str
    error: str


class Health(Shape):
    """The engine works."""

    status: Literal[200]
    message: Literal["OK"]


class DevServer(Shape):
    """What SDKs want to know of a dev server."""

    version: str
    functions: list[Raw]
    handlers: list[Raw]
