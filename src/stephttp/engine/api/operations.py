"""The table of routes: everything that the API can do, each operation once.

Routes and the OpenAPI document are both made of it. OpenAPI has no websockets, so these are
routes only.
"""

from __future__ import annotations

import asyncio
from functools import cache

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute

from stephttp.engine.api.checkpoint_operations import CHECKPOINT_OPERATIONS
from stephttp.engine.api.function_operations import FUNCTION_OPERATIONS
from stephttp.engine.api.manage_operations import MANAGE_OPERATIONS
from stephttp.engine.api.openapi.document import document
from stephttp.engine.api.openapi.operation import json_answer, operation, routes_of
from stephttp.engine.api.sdk import realtime
from stephttp.engine.api.sdk_operations import SDK_OPERATIONS
from stephttp.engine.api.v2_operations import V2_OPERATIONS


async def _openapi(request: Request) -> Response:
    return Response(await asyncio.to_thread(_encoded), media_type="application/json")


@cache
def _encoded() -> bytes:
    return msgspec.json.encode(document(OPERATIONS)) + b"\n"


OPERATIONS = (
    *CHECKPOINT_OPERATIONS,
    *SDK_OPERATIONS,
    *FUNCTION_OPERATIONS,
    *MANAGE_OPERATIONS,
    *V2_OPERATIONS,
    operation(
        "GET", "/openapi.json", _openapi, "getOpenApi", "This document.",
        json_answer({"type": "object"}),
    ),
)  # fmt: skip
"""By path and method; the methods that others imply (HEAD) are not listed."""

ROUTES: list[BaseRoute] = [
    *routes_of(OPERATIONS),
    WebSocketRoute("/v1/realtime/connect", realtime.connect),
]
