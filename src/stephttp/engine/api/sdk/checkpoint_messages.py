"""The JSON of checkpoints (docs/protocol.md 4.2 to 4.4), and of the answer to a first one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from stephttp._wire.http import TOKEN_CHARACTER
from stephttp._wire.limits_of_run import RunLimits
from stephttp._wire.opcodes import Op
from stephttp._wire.stored_state import CallId
from stephttp.engine.model.settings import LONGEST_LEASE, SHORTEST_LEASE
from stephttp.engine.web.fields import AnswerBody, GivenOrigin, GivenRunId, Int32, RunId, Uuid

METHOD_PATTERN = TOKEN_CHARACTER + "{1,32}"

_Method = Annotated[str, Meta(extra_json_schema={"pattern": f"^{METHOD_PATTERN}$"})]
_Lease = Annotated[int, Meta(ge=SHORTEST_LEASE, le=LONGEST_LEASE)]
"""Milliseconds for which a process wants a run to be left to it."""


class RequestData(Struct):
    """`event.data` of a first checkpoint: the HTTP request that began the run."""

    domain: GivenOrigin
    method: _Method
    path: str = ""
    fn: str = ""
    ip: str = ""
    content_type: str = ""
    query_params: str = ""
    body: str | None = None


class RequestEvent(Struct):
    """`event` of a first checkpoint."""

    data: RequestData
    name: str = "inngest/http.request"
    id: str | None = None
    ts: Annotated[int, Meta(ge=0, lt=2**53)] | None = None


class ClaimRequest(Struct):
    """The wish of a first checkpoint to be the only one with an idempotency key."""

    scope: str
    key: Annotated[str, Meta(min_length=1, max_length=1024)]
    request: str
    """Digest of the request."""


class NewRunRequest(Struct):
    """A first checkpoint (docs/protocol.md 4.2), with the extensions of docs/design.md 3.8."""

    run_id: GivenRunId
    event: RequestEvent
    steps: list[Op] | None = None
    request_version: Int32 | None = None
    retries: Int32 | None = None
    lease: _Lease | None = None
    claim: ClaimRequest | None = None
    reads_state: bool = False
    process: str = ""
    ts: int | float | None = None
    """When the TypeScript SDK, which alone sends it, has checked something in."""
    own_retries: Int32 | None = None
    """The run's own number, where `retries` is meant for another server."""
    limits: RunLimits | None = None
    within_limits: bool = False
    """Whether the run is only opened if its first call has room within `limits`."""


class NewRunAnswer(AnswerBody, omit_defaults=True):
    """The ids of a new run, or of the one that has the idempotency key already.

    `token` opens the run's output, `realtime_token` its live stream.
    """

    fn_id: Uuid
    app_id: Uuid
    run_id: RunId
    token: str
    realtime_token: str
    retry_after: int = 0
    """Seconds after which the request may be repeated: the run was not opened, because its limits
    have no room. 0: it was opened."""


class StepsRequest(Struct):
    """A further checkpoint (docs/protocol.md 4.3)."""

    steps: list[Op]
    run_id: GivenRunId | None = None
    fn_id: Uuid | None = None
    app_id: Uuid | None = None
    lease: _Lease | None = None
    call: CallId | None = None


class AsyncStepsRequest(Struct):
    """Steps of an open call (docs/protocol.md 4.4); `qi_id` and `generation_id` name it."""

    steps: list[Op]
    run_id: GivenRunId | None = None
    fn_id: Uuid | None = None
    app_id: Uuid | None = None
    qi_id: str | None = None
    generation_id: Int32 | None = None


class ApiResult(Struct, omit_defaults=True):
    """The final answer of an endpoint, as the Go reference's `CheckpointResponse` sends it.

    `body` is base64, `duration` nanoseconds; `error` is set only if the handler failed inside.
    """

    status_code: Annotated[int, Meta(ge=200, lt=600)]
    headers: dict[str, str] | None = None
    body: str | None = None
    duration: Annotated[int, Meta(ge=0)] = 0
    error: str = ""


class RenewRequest(Struct):
    """Leases to be moved ahead."""

    runs: Annotated[list[GivenRunId], Meta(max_length=100_000)]
    lease: _Lease
