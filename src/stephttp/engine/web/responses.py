"""Writes responses of the API: good answers, pages, errors, and the log line of a refusal."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.reading.list_filter import Page
from stephttp.engine.web.fields import AnswerBody, Time
from stephttp.engine.web.shown_path import is_id, shown_path

log = logging.getLogger(__name__)

CORS = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "*",
    "vary": "Origin",
}
"""For what pages of any origin may read: outputs, whose token is the permission."""


class Metadata(AnswerBody):
    """Comes with the data of every good answer of the v1 API."""

    fetched_at: Time


class PagePlace(AnswerBody):
    """Where a page lies in its list.

    `older` and `newer` are cursors. Without `older` there is nothing older, while `newer` may find
    nothing until there is something new. `searched_to` is set if the search was ended before the
    page was full: it came as far as this time, and continues with the same cursor.
    """

    older: str | None
    newer: str | None
    searched_to: Time | None


class PagedMetadata(Metadata):
    """Comes with a part of a list."""

    page: PagePlace


class ErrorAnswer(AnswerBody):
    """Why a request was refused. `status` is also the status of the answer."""

    error: str
    data: None
    status: int


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Make an answer in JSON, which ends with a newline, as the real server's does."""
    return Response(
        msgspec.json.encode(value) + b"\n", status, headers, media_type="application/json"
    )


def wrapped(data: Any, now_ms: int) -> Response:
    """Make a good answer of the v1 API."""
    return json_response({"data": data, "metadata": Metadata(rfc3339(now_ms))})


def paged(page: Page[Any], data: list[Any], now_ms: int) -> Response:
    """Make an answer with a part of a list."""
    place = PagePlace(page.older, page.newer, rfc3339(page.searched_to_ms))
    return json_response({"data": data, "metadata": PagedMetadata(rfc3339(now_ms), place)})


def error_response(message: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Make an error answer of the API."""
    return json_response(ErrorAnswer(message, None, status), status, headers)


def refuse(
    request: Request,
    message: str,
    status: int,
    headers: Mapping[str, str] | None = None,
    level: int = logging.INFO,
) -> Response:
    """Make an error answer of the API, and log it."""
    log_refusal(request, status, message, level)
    return error_response(message, status, headers)


def log_refusal(request: Request, status: int, reason: str, level: int) -> None:
    """Log that a request was refused. Neither its query nor an event key gets into the log."""
    run_id = request.path_params.get("run", "")
    log_event(
        log,
        level,
        "request.refused",
        "request refused",
        run_id=run_id if is_id(run_id) else None,
        status=status,
        reason=reason,
        method=request.method,
        path=shown_path(request),
        client=request.client.host if request.client else None,
    )
