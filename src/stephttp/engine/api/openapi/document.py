"""`GET /openapi.json`: the API, described in OpenAPI 3.1. `operations` lists what there is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.openapi.describing import REFERENCE
from stephttp.engine.model.settings import VERSION

_ABOUT = """\
The engine of stephttp: durable HTTP endpoints, wire-compatible with Inngest.

Good answers of the v1 API are `{"data", "metadata"}`, errors `{"error", "data", "status"}`, where
`error` names the field. An engine in development (`stephttp dev`) has no signing keys and asks for
none. What answers to GET answers to HEAD as well. Times are in UTC; unknown fields in requests are
ignored.
"""

_TOKEN = {"type": "apiKey", "in": "query", "name": "token"}

_SECURITY = {
    "signingKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "A signing key of the engine, or the SHA-256 of one as SDKs send it.",
    },
    "runToken": {**_TOKEN, "description": "`token` of the run; opens its output."},
    "realtimeToken": {**_TOKEN, "description": "`realtime_token` of the run."},
    "realtimeBearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`realtime_token` of the run.",
    },
}


async def openapi(request: Request) -> Response:
    """The document."""
    return Response(await asyncio.to_thread(_encoded), media_type="application/json")


@cache
def _encoded() -> bytes:
    return msgspec.json.encode(document()) + b"\n"


def document() -> dict[str, Any]:
    """The OpenAPI document of the engine's API (https://spec.openapis.org/oas/v3.1.1.html)."""
    # Here, since few ask: to describe all operations takes 40 ms, and would of each start.
    from stephttp.engine.api.openapi.operations import OPERATIONS, SHAPES

    paths: dict[str, dict[str, Any]] = {}
    for (path, method), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stephttp engine",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(SHAPES), "securitySchemes": _SECURITY},
    }


def _schemas(shapes: Sequence[Any]) -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(shapes, ref_template=REFERENCE)
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return schemas
