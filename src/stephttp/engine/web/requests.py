"""Reading requests and writing answers. Every complaint names the field."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from stephttp._wire import ids
from stephttp._wire.http import TOKEN_CHARACTER
from stephttp._wire.opcodes import Op
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.run import Refused
from stephttp.engine.model.settings import LONGEST_LEASE, SHORTEST_LEASE
from stephttp.engine.reading.list_filter import MOST_LISTED, Page

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

log = logging.getLogger(__name__)

CORS = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "*",
    "vary": "Origin",
}
"""For what pages of any origin may read: outputs, whose token is the permission."""

_ULID = re.compile(ids.ULID_PATTERN, re.ASCII)
ULID_PATTERN = f"^{ids.ULID_PATTERN}$"
"""How ids of runs are shown; lower case is accepted as well."""
_EVENT_PATH = re.compile(r"/e/[^/]+")
_LOGGED_PATH = 200
_Int32 = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
_RunId = Annotated[str, Meta(extra_json_schema={"pattern": ULID_PATTERN})]
Origin = Annotated[str, Meta(extra_json_schema={"pattern": r"^https?://[^\s/?#@\\]+/?$"})]
_Method = Annotated[str, Meta(extra_json_schema={"pattern": f"^{TOKEN_CHARACTER}{{1,32}}$"})]
_Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Lease = Annotated[int, Meta(ge=SHORTEST_LEASE, le=LONGEST_LEASE)]
"""Milliseconds for which a process wants a run to be left to it."""


class RequestData(Struct):
    """`event.data` of a first checkpoint: the HTTP request that began the run."""

    domain: Origin
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


class Claim(Struct):
    """The wish of a first checkpoint to be the only one with an idempotency key."""

    scope: str
    key: Annotated[str, Meta(min_length=1, max_length=1024)]
    request: str
    """Digest of the request."""


class NewRunRequest(Struct):
    """A first checkpoint (docs/protocol.md 4.2), with the extras of docs/design.md 3.8."""

    run_id: _RunId
    event: RequestEvent
    steps: list[Op] | None = None
    request_version: _Int32 | None = None
    retries: _Int32 | None = None
    lease: Lease | None = None
    claim: Claim | None = None
    reads_state: bool = False


class RenewRequest(Struct):
    """Leases to be moved ahead."""

    runs: Annotated[list[_RunId], Meta(max_length=100_000)]
    lease: Lease


class StepsRequest(Struct):
    """A further checkpoint (docs/protocol.md 4.3)."""

    steps: list[Op]
    run_id: _RunId | None = None
    fn_id: _Uuid | None = None
    app_id: _Uuid | None = None
    lease: Lease | None = None


class AsyncStepsRequest(Struct):
    """Steps of an open call (docs/protocol.md 4.4); `qi_id` and `generation_id` name it."""

    steps: list[Op]
    run_id: _RunId | None = None
    fn_id: _Uuid | None = None
    app_id: _Uuid | None = None
    qi_id: str | None = None
    generation_id: _Int32 | None = None


class ApiResult(Struct, omit_defaults=True):
    """The final answer of an endpoint, as the Go reference's `CheckpointResponse` sends it.

    `body` is base64, `duration` nanoseconds; `error` is set only if the handler failed inside.
    """

    status_code: Annotated[int, Meta(ge=200, lt=600)]
    headers: dict[str, str] | None = None
    body: str | None = None
    duration: Annotated[int, Meta(ge=0)] = 0
    error: str = ""


def engine_of(request: Request) -> Engine:
    """The engine that serves this application."""
    engine: Engine = request.app.state.engine
    return engine


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        Refused: it is longer than `limit`.
    """
    too_large = Refused(f"body: larger than {limit} bytes", 413)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def parse_run_id(text: str, field: str = "run_id") -> str:
    """A run id in its canonical form.

    Raises:
        Refused: it is not a ULID.
    """
    run_id = text.upper()
    if not _ULID.fullmatch(run_id):
        raise Refused(f"{field}: {text[:64]!r} is not a ULID")
    return run_id


def parse_limit(text: str | None) -> int:
    """How many items a list shall have: 20 if nothing is said, and never more than 100.

    Raises:
        Refused: it is no positive number.
    """
    text = "20" if text is None else text
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise Refused(f"limit: {text[:64]!r} is not a positive number")
    return min(int(text), MOST_LISTED)


def parse_time(text: str, field: str) -> int:
    """A time such as `2026-01-31T12:00:00Z`, in milliseconds since the epoch.

    Raises:
        Refused: it is not written like that.
    """
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        # In UTC it must lie within the years that can be written.
        return (when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
            milliseconds=1
        )
    except (ValueError, OverflowError):
        raise Refused(
            f"{field}: {text[:64]!r} is not a time such as 2026-01-31T12:00:00Z"
        ) from None


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON, as the real server ends it: with a newline."""
    return Response(
        msgspec.json.encode(value) + b"\n", status, headers, media_type="application/json"
    )


def wrapped(data: Any, now_ms: int) -> Response:
    """A good answer of the v1 API."""
    return json_response({"data": data, "metadata": {"fetched_at": rfc3339(now_ms)}})


def paged(page: Page[Any], data: list[Any], now_ms: int) -> Response:
    """A part of a list, and how to come to the others."""
    told = {
        "older": page.older,
        "newer": page.newer,
        "searched_to": rfc3339(page.searched_to_ms),
    }
    return json_response({"data": data, "metadata": {"fetched_at": rfc3339(now_ms), "page": told}})


def error_response(message: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """An error answer of the API."""
    return json_response({"error": message, "data": None, "status": status}, status, headers)


def refuse(
    request: Request,
    message: str,
    status: int,
    headers: Mapping[str, str] | None = None,
    level: int = logging.INFO,
) -> Response:
    """An error answer of the API, and a line in the log."""
    log_refusal(request, status, message, level)
    return error_response(message, status, headers)


def log_refusal(request: Request, status: int, reason: str, level: int) -> None:
    """Log that a request was not done. Neither its query nor an event key gets into the log."""
    log_event(
        log,
        level,
        "request.refused",
        "request refused",
        run_id=request.path_params.get("run"),
        status=status,
        reason=reason,
        method=request.method,
        path=_EVENT_PATH.sub("/e/…", request.url.path[:_LOGGED_PATH]),
        client=request.client.host if request.client else None,
    )
