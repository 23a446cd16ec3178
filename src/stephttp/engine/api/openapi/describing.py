"""Words for `operations`: what parts of an OpenAPI document are made of."""

from __future__ import annotations

from typing import Any

import msgspec

from stephttp.engine.api.openapi import shapes

Json = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
"""How a schema is named within the document."""


def schema_of(shape: Any) -> Json:
    """The schema of a type: for a struct, a reference to its component."""
    (schema,), _ = msgspec.json.schema_components([shape], ref_template=REFERENCE)
    return schema


def answer(schema: Json, about: str = "Done") -> Json:
    """An answer in JSON."""
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def data(shape: Any) -> Json:
    """The answer 200 of the v1 API with such data."""
    return wrapped_data(schema_of(shape))


def pages(shape: Any) -> Json:
    """The answer 200 with a part of a list of such items."""
    return wrapped_data(schema_of(list[shape]), shapes.PagedMetadata)


def stream(about: str) -> Json:
    """An answer of server-sent events. OpenAPI 3.1 has no schema for those."""
    return {"description": about, "content": {"text/event-stream": {}}}


def wrapped_data(inner: Json, metadata: Any = shapes.Metadata) -> Json:
    return answer(
        {
            "type": "object",
            "properties": {"data": inner, "metadata": schema_of(metadata)},
            "required": ["data", "metadata"],
            "additionalProperties": False,
        }
    )


EMPTY: Json = {"description": "Done; the answer has no body"}
ERROR = schema_of(shapes.ErrorAnswer)
REASONS = {
    400: "The request is not acceptable",
    401: "No token, or not one for this",
    403: "The engine may not call that endpoint",
    404: "There is no such thing",
    409: "Too late, or taken",
    410: "The run has ended",
    413: "Larger than the engine takes",
    415: "Not of a type or an encoding that the engine takes",
    422: "The idempotency key was used with another request",
    429: "Too many requests; `Retry-After` tells when to come back",
    500: "A fault of the engine",
    503: "Nothing can be stored now, or the engine is stopping; nothing was done, come back later",
}
_KEYLESS: Json = {
    "description": "No signing key, or a wrong one",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
SECURED: Json = {"security": [{"signingKey": []}]}
OPEN: Json = {"security": []}


def operation(
    name: str,
    summary: str,
    good: Json,
    *errors: int,
    access: Json = SECURED,
    parameters: tuple[Json, ...] = (),
    body: Json | None = None,
    more: Json | None = None,
) -> Json:
    """An operation.

    Args:
        name: its id.
        summary: what it does.
        good: the answer 200.
        errors: statuses of the errors that it may answer with, beside 500 and 503.
        access: who may use it.
        parameters: in path, query and headers.
        body: of the request, in the words of OpenAPI.
        more: further answers.
    """
    responses = {str(status): answer(ERROR, REASONS[status]) for status in (*errors, 500, 503)}
    if access is SECURED:
        responses["401"] = _KEYLESS
    if good:
        responses["200"] = good
    responses |= more or {}
    described = {"operationId": name, "summary": summary, **access}
    if parameters:
        described["parameters"] = list(parameters)
    if body is not None:
        described["requestBody"] = body
    return described | {"responses": dict(sorted(responses.items()))}


def takes(schema: Json, media_type: str = "application/json") -> Json:
    """A body that a request must have."""
    return {"required": True, "content": {media_type: {"schema": schema}}}


def parameter(place: str, name: str, about: str, **schema: Any) -> Json:
    """A parameter in `path`, `query` or `header`."""
    described = {"in": place, "name": name, "description": about, "schema": schema}
    return described | ({"required": True} if place == "path" else {})
