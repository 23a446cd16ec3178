"""Exceptions as responses: always `{"error", "data", "status"}`, with the status it says."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from stephttp.engine.model.refused import Refused
from stephttp.engine.store.store import StoreClosedError
from stephttp.engine.web.responses import error_response, log_refusal, refuse


def _refused(request: Request, error: Refused) -> Response:
    """Answer a request that is not acceptable."""
    headers = {"retry-after": "1"} if error.damaged else None
    return refuse(request, str(error), error.status, headers)


def _http(request: Request, error: HTTPException) -> Response:
    """Answer a request for a path that does not exist, or not with this method."""
    return refuse(request, error.detail, error.status_code, dict(error.headers or {}))


def _left(request: Request, error: ClientDisconnect) -> Response:
    """Note that a client left before its request was complete, of which nothing was done."""
    return refuse(
        request, "the client left before its request was complete", 400, level=logging.DEBUG
    )


def _storage(request: Request, error: Exception) -> Response:
    """Answer a request of which nothing was stored, because nothing can be now."""
    message = f"the engine cannot store anything: {error}"
    return refuse(request, message, 503, {"retry-after": "1"}, logging.ERROR)


def _unexpected(request: Request, error: Exception) -> Response:
    """Answer a request that met a fault of the engine; the server logs the traceback."""
    log_refusal(request, 500, f"{type(error).__name__} in the engine", logging.ERROR)
    return error_response("internal error of the engine", 500)


EXCEPTION_HANDLERS: Mapping[Any, Callable[..., Any]] = {
    Refused: _refused,
    HTTPException: _http,
    ClientDisconnect: _left,
    sqlite3.Error: _storage,
    StoreClosedError: _storage,
    Exception: _unexpected,
}
"""What Starlette does with each kind of exception."""
