"""Errors as answers: always `{"error", "data", "status"}`, with the status it says."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.messages import error_response
from stephttp.engine.models import Refused


def refused(request: Request, error: Refused) -> Response:
    """The request is not acceptable, for the reason given."""
    return error_response(str(error), error.status)


def http(request: Request, error: HTTPException) -> Response:
    """No such path, or not with this method."""
    return error_response(error.detail, error.status_code, dict(error.headers or {}))


def storage(request: Request, error: Exception) -> Response:
    """Nothing can be stored now; nothing of the request was."""
    return error_response(f"the engine cannot store anything: {error}", 503, {"retry-after": "1"})


def unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours; the server logs it."""
    return error_response("internal error of the engine", 500)
