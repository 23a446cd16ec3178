"""Errors as answers: always `{"error", "data", "status"}`, with the status it says."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model.run import Refused
from stephttp.engine.web.requests import error_response, log_refusal, refuse


def refused(request: Request, error: Refused) -> Response:
    """The request is not acceptable, for the reason given."""
    return refuse(request, str(error), error.status)


def http(request: Request, error: HTTPException) -> Response:
    """No such path, or not with this method."""
    return refuse(request, error.detail, error.status_code, dict(error.headers or {}))


def storage(request: Request, error: Exception) -> Response:
    """Nothing can be stored now; nothing of the request was."""
    message = f"the engine cannot store anything: {error}"
    return refuse(request, message, 503, {"retry-after": "1"}, logging.ERROR)


def unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours; the server logs it."""
    log_refusal(request, 500, f"{type(error).__name__} in the engine", logging.ERROR)
    return error_response("internal error of the engine", 500)
