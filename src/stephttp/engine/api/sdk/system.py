"""How others learn what this server is (`/health`, `/dev`), and what it is not (`/fn/register`)."""

from __future__ import annotations

from typing import Literal

from msgspec import Raw
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model.refused import Refused
from stephttp.engine.model.settings import VERSION
from stephttp.engine.web.fields import AnswerBody
from stephttp.engine.web.requests import engine_of
from stephttp.engine.web.responses import json_response


class Health(AnswerBody):
    """The engine works."""

    status: Literal[200]
    message: Literal["OK"]


class DevServer(AnswerBody):
    """What SDKs want to know of a dev server."""

    version: str
    functions: list[Raw]
    handlers: list[Raw]


async def health(request: Request) -> Response:
    """Answer if the engine is up and its store answers."""
    await engine_of(request).store.read(lambda connection: connection.execute("SELECT 1").close())
    return json_response(Health(200, "OK"))


async def dev(request: Request) -> Response:
    """Answer SDKs that look for a dev server."""
    if engine_of(request).settings.kind != "dev":
        raise HTTPException(404)
    return json_response(DevServer(f"stephttp-{VERSION}", [], []))


async def register(request: Request) -> Response:
    """Refuse functions of `serve`, which are not endpoints (docs/protocol.md 9.1)."""
    raise Refused(
        "functions: this engine runs durable HTTP endpoints, which need not be registered; "
        "functions of `serve` need an Inngest server"
    )
