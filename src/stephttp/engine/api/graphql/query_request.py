"""`POST /v0/gql`: takes a GraphQL query as JSON, and answers as GraphQL over HTTP."""

from __future__ import annotations

from http import HTTPStatus
from importlib.util import find_spec
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model.refused import Refused
from stephttp.engine.web.fields import AnswerBody
from stephttp.engine.web.requests import decode, engine_of, read_body
from stephttp.engine.web.responses import json_response

LARGEST_QUERY = 64 * 1024
"""Bytes of a request, with its variables."""


class GraphQuery(Struct, rename="camel"):
    """A query of GraphQL; `types.graphql` in the package has all that can be asked."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


class GraphErrorItem(AnswerBody):
    """A problem of a query, and the field of the answer at which it is."""

    message: str
    path: list[str | int] | None = None


class GraphAnswer(AnswerBody, omit_defaults=True):
    """What a query asked for. Without data, it was not acceptable."""

    data: dict[str, Any] | None
    errors: list[GraphErrorItem] | UnsetType = UNSET


_QUERY = msgspec.json.Decoder(GraphQuery)


async def ask(request: Request) -> Response:
    """Return what a query asks for."""
    if find_spec("graphql") is None:
        raise Refused(
            "GraphQL: this engine is installed without it; pip install 'stephttp[graphql]'",
            HTTPStatus.NOT_IMPLEMENTED,
        )
    asked = decode(_QUERY, await read_body(request, LARGEST_QUERY))
    from stephttp.engine.api.graphql.executing import carry_out

    done = await carry_out(engine_of(request), asked.query, asked.variables, asked.operation_name)
    errors = [GraphErrorItem(one.message, one.path) for one in done.errors or ()]
    status = HTTPStatus.UNPROCESSABLE_ENTITY if done.data is None else HTTPStatus.OK
    return json_response(GraphAnswer(done.data, errors or UNSET), status)
