"""Who may ask, how often, and what every answer carries."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stephttp._core.signatures import bearer_matches
from stephttp.engine.api.messages import CORS, engine_of, log_refusal, refuse
from stephttp.engine.ratelimit import Buckets
from stephttp.engine.settings import FEATURES, VERSION

if TYPE_CHECKING:
    from stephttp.engine.app import Engine

Handler = Callable[[Request], Awaitable[Response]]

_OUTPUT = re.compile(r"/v1/(?:checkpoint|http/runs)/[^/]+/output")
_EVENT = re.compile(r"/e/.*")
_ANYWHERE = {
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
_OURS = {
    **_ANYWHERE,
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-frame-options": b"DENY",
}
"""Unless the answer has them. Outputs are what handlers made: pages, even frames, as they are."""


def secured(handler: Handler) -> Handler:
    """Let only requests with a signing key through, if the engine has keys."""

    async def check(request: Request) -> Response:
        keys = engine_of(request).settings.signing_keys
        if keys and not bearer_matches(request.headers.get("authorization", ""), keys):
            log_refusal(request, 401, "no or wrong signing key", logging.WARNING)
            return PlainTextResponse("Authentication failed\n", 401)
        return await handler(request)

    return check


class Guard:
    """ASGI middleware around everything, so that no answer gets past it.

    It tells in every answer what kind of server this is and what it can do, and keeps clients
    from asking too often where no signing key is needed. An engine without keys takes nothing
    from web pages of other machines, which any browser on this one may have open.
    """

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._clock = engine.clock
        self._open = not engine.settings.signing_keys
        self._buckets = Buckets(engine.settings.rate_limit, engine.settings.rate_burst)
        self._headers = [
            (b"x-inngest-server-kind", engine.settings.kind.encode()),
            (b"x-stephttp-engine", VERSION.encode()),
            (b"x-stephttp-features", FEATURES.encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_output = _OUTPUT.fullmatch(scope["path"]) is not None
        defaults = _ANYWHERE if is_output else _OURS

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *self._headers]
                there = {name for name, _ in headers}
                headers += [pair for pair in defaults.items() if pair[0] not in there]
                message["headers"] = headers
            await send(message)

        if self._open and not is_output and _is_from_elsewhere(scope):
            message = "an engine without signing keys takes no requests from other sites' pages"
            await refuse(Request(scope), message, 403)(scope, receive, add)
            return
        if is_output or _EVENT.fullmatch(scope["path"]):
            client = scope.get("client") or ("",)
            wait = self._buckets.take(client[0], self._clock.now_ms())
            if wait:
                headers = {**CORS, "retry-after": str(math.ceil(wait))}
                answer = refuse(Request(scope), "too many requests", 429, headers)
                await answer(scope, receive, add)
                return
        await self._app(scope, receive, add)


def _is_from_elsewhere(scope: Scope) -> bool:
    """Whether a browser sends this for a page that does not come from this machine."""
    origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
    if origin is None:
        return False
    try:
        host = urlsplit(origin.decode("latin-1")).hostname or ""
        return not (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return True
