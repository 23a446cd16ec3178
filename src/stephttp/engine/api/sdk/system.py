"""How others learn that this server is up (`/health`)."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.web.fields import AnswerBody
from stephttp.engine.web.requests import engine_of
from stephttp.engine.web.responses import json_response


class Health(AnswerBody):
    """The engine works."""

    status: Literal[200]
    message: Literal["OK"]


async def health(request: Request) -> Response:
    """Answer if the engine is up and its store answers."""
    await engine_of(request).store.read(lambda connection: connection.execute("SELECT 1").close())
    return json_response(Health(200, "OK"))
