"""One row of the table of routes: a path and a method, who answers, and how it is described.

Starlette's routes and the OpenAPI document are both made of such rows. Descriptions are in the
words of OpenAPI; see `schema` for the types in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from stephttp.engine.api.openapi.schema import Json, SchemaOf
from stephttp.engine.web.guard import Guarding, Handler, secured
from stephttp.engine.web.responses import ErrorAnswer, Metadata, PagedMetadata

EMPTY: Json = {"description": "Done; the answer has no body"}
ERROR = SchemaOf(ErrorAnswer)
REASONS = {
    400: "The request is not acceptable",
    401: "No token, or not one for this",
    403: "The engine may not call that endpoint",
    404: "There is no such thing",
    409: "Too late, or taken",
    410: "The run has ended",
    413: "Larger than the engine accepts",
    415: "Not of a type or an encoding that the engine accepts",
    422: "The idempotency key was used with another request",
    429: "Too many requests; `Retry-After` says when to come back",
    500: "A fault of the engine",
    501: "This engine is installed without it",
    503: "Nothing can be stored now, or the engine is stopping; nothing was done, come back later",
}
_KEYLESS: Json = {
    "description": "No signing key, or a wrong one",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


@dataclass(frozen=True, slots=True)
class Security:
    """Who may use an operation.

    Attributes:
        schemes: names of the security schemes of the document, any of which will do.
        guard: what lets those callers through, and no others; `None`: the handler does so itself.
    """

    schemes: tuple[str, ...]
    guard: Guarding | None = None


SIGNING_KEY = Security(("signingKey",), secured)
OPEN = Security(())


@dataclass(frozen=True, slots=True)
class Operation:
    """What the API can do: one path and method."""

    method: str
    path: str
    handler: Handler
    security: Security
    description: Json


def operation(
    method: str,
    path: str,
    handler: Handler,
    name: str,
    summary: str,
    good: Json,
    *errors: int,
    security: Security = SIGNING_KEY,
    parameters: Sequence[Json] = (),
    body: Json | None = None,
    more: Json | None = None,
    answers: Json | None = None,
) -> Operation:
    """Make a row of the table.

    Args:
        name: its operation id.
        summary: what it does.
        good: the answer 200; empty if there is no such answer.
        errors: statuses of the errors that it may answer with, beside 500 and 503.
        parameters: in path, query and headers.
        body: of the request.
        more: further answers, by status.
        answers: all answers, instead of those that follow from the other arguments.
    """
    responses: Json = {
        str(status): json_answer(ERROR, REASONS[status]) for status in (*errors, 500, 503)
    }
    if security.guard is not None:
        responses["401"] = _KEYLESS
    if good:
        responses["200"] = good
    responses = answers or responses | (more or {})
    described: Json = {"operationId": name, "summary": summary}
    described["security"] = [{scheme: []} for scheme in security.schemes]
    if parameters:
        described["parameters"] = list(parameters)
    if body is not None:
        described["requestBody"] = body
    described["responses"] = dict(sorted(responses.items()))
    return Operation(method, path, handler, security, described)


def routes_of(operations: Iterable[Operation]) -> list[Route]:
    """Make Starlette's routes, one for all methods of a path that share a handler."""
    methods: dict[tuple[str, Handler, Guarding | None], list[str]] = {}
    for one in operations:
        methods.setdefault((one.path, one.handler, one.security.guard), []).append(one.method)
    return [
        Route(path, guard(handler) if guard else handler, methods=shared)
        for (path, handler, guard), shared in methods.items()
    ]


def json_answer(schema: SchemaOf | Json, about: str = "Done") -> Json:
    """Describe an answer in JSON."""
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def data(shape: Any) -> Json:
    """Describe the answer 200 of the v1 API with such data."""
    return _wrapped(SchemaOf(shape), SchemaOf(Metadata))


def pages(shape: Any) -> Json:
    """Describe the answer 200 with a part of a list of such items."""
    return _wrapped(SchemaOf(list[shape]), SchemaOf(PagedMetadata))


def _wrapped(inner: SchemaOf, metadata: SchemaOf) -> Json:
    return json_answer(
        {
            "type": "object",
            "properties": {"data": inner, "metadata": metadata},
            "required": ["data", "metadata"],
            "additionalProperties": False,
        }
    )


def event_stream(about: str) -> Json:
    """Describe an answer of server-sent events. OpenAPI 3.1 has no schema for those."""
    return {"description": about, "content": {"text/event-stream": {}}}


def takes(schema: SchemaOf | Json, media_type: str = "application/json") -> Json:
    """Describe a body that a request must have."""
    return {"required": True, "content": {media_type: {"schema": schema}}}
