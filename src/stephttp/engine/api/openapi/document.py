"""`GET /openapi.json`: operations as the OpenAPI 3.1 document describes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stephttp.engine.api.openapi.operation import Operation
from stephttp.engine.api.openapi.schema import with_schemas
from stephttp.engine.model.settings import VERSION

_ABOUT = """\
The engine of stephttp: durable HTTP endpoints, wire-compatible with Inngest.

Good answers of the v1 API are `{"data", "metadata"}`, errors `{"error", "data", "status"}`, where
`error` names the field. An engine in development (`stephttp dev`) has no signing keys and asks for
none. Every GET can be a HEAD as well. Times are in UTC; unknown fields in requests are
ignored.
"""

_TOKEN = {"type": "apiKey", "in": "query", "name": "token"}

_SECURITY = {
    "signingKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "A signing key of the engine, or the SHA-256 of one as SDKs send it.",
    },
    "eventKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An event key of the engine; without any, anything.",
    },
    "runToken": {**_TOKEN, "description": "`token` of the run; opens its output."},
    "realtimeToken": {**_TOKEN, "description": "`realtime_token` of the run."},
    "realtimeBearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`realtime_token` of the run.",
    },
}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Make the OpenAPI document of operations (https://spec.openapis.org/oas/v3.1.1.html)."""
    described: dict[str, dict[str, Any]] = {}
    for one in operations:
        described.setdefault(one.path, {})[one.method.lower()] = one.description
    paths, components = with_schemas(described)
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
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }
