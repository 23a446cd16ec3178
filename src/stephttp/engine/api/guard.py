"""Who may ask, and what every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stephttp._core.signatures import bearer_matches
from stephttp.engine.api.messages import engine_of
from stephttp.engine.settings import FEATURES, VERSION

if TYPE_CHECKING:
    from stephttp.engine.app import Engine

Handler = Callable[[Request], Awaitable[Response]]


def secured(handler: Handler) -> Handler:
    """Let only requests with a signing key through, if the engine has keys."""

    async def check(request: Request) -> Response:
        keys = engine_of(request).settings.signing_keys
        if keys and not bearer_matches(request.headers.get("authorization", ""), keys):
            return PlainTextResponse("Authentication failed\n", 401)
        return await handler(request)

    return check


class Guard:
    """ASGI middleware: tells in every answer what kind of server this is, and what it can do."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._headers = [
            (b"x-inngest-server-kind", engine.settings.kind.encode()),
            (b"x-stephttp-engine", VERSION.encode()),
            (b"x-stephttp-features", FEATURES.encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self._app(scope, receive, add if scope["type"] == "http" else send)
