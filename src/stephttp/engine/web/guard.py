"""Who may send requests to the engine: signing keys, host names, other origins, the rate
limit; security headers of every response.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stephttp._wire import stored_state
from stephttp._wire.result_address import MARK, PENDING
from stephttp._wire.signatures import bearer_matches
from stephttp.engine.live.rate_limit import Buckets
from stephttp.engine.model.settings import FEATURES, VERSION
from stephttp.engine.web.requests import engine_of
from stephttp.engine.web.responses import CORS, log_refusal, refuse

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

Handler = Callable[[Request], Awaitable[Response]]
Guarding = Callable[[Handler], Handler]

_OUTPUT = re.compile(r"/v1/(?:checkpoint|http/runs)/[^/]+/output")
_EVENT = re.compile(r"/(?:e|invoke)/.*")
_FROM_CONTAINERS = ("host.docker.internal", "host.containers.internal")
"""What containers call the machine that they are on. No site can be there: `internal` is
reserved for private use."""
_PAGE = re.compile(r"/(?:(?:runs|events|apps|functions|queues|live|login|logout|static)(?:/.*)?)?")
"""The dashboard's own pages; forms sent to them must come from one (`dashboard.sessions`)."""
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
"""For responses that do not have them. Outputs go out as handlers made them: pages, even frames."""
_OUR_PAGE = (MARK.encode(), PENDING.encode())
_SANDBOX = (
    b"content-security-policy",
    (
        b"sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts "
        b"allow-popups-to-escape-sandbox allow-top-navigation"
    ),
)
"""For outputs, beside the policy that the handler chose: their scripts run, but not in our origin.
Otherwise, what a handler passes on from its callers could use the dashboard as the user who is
logged in. SDKs that serve results on the application's own origin do not get this header: they send
the request themselves, without a browser."""


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
    """ASGI middleware around everything, so that no response gets past it.

    It says in every response what kind of server this is and what it can do, and limits the rate
    of requests that need no signing key. An engine without keys accepts nothing from web pages of
    other machines, which any browser on this machine may have open: neither from pages that say
    where they come from (`Origin`), nor from pages whose name suddenly leads here (DNS rebinding;
    then `Host` is that name).
    """

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        settings = engine.settings
        self._app = app
        self._clock = engine.clock
        self._open = not settings.signing_keys
        self._keys = settings.signing_keys
        hosts = (*settings.trusted_hosts, settings.host, *_FROM_CONTAINERS)
        self._hosts = {host.lower() for host in hosts}
        # Clients are few, and each of their requests names the engine.
        self._is_ours = lru_cache(maxsize=256)(self._is_our_name)
        self._buckets = Buckets(settings.rate_limit, settings.rate_burst)
        self._headers = [
            (b"x-inngest-server-kind", settings.kind.encode()),
            (b"x-stephttp-engine", VERSION.encode()),
            (stored_state.FEATURES.encode(), FEATURES.encode()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its response."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_output = _OUTPUT.fullmatch(scope["path"]) is not None
        defaults = _ANYWHERE if is_output else _OURS
        is_sandboxed = is_output and _header(scope, b"x-inngest-sdk") is None

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), *self._headers]
                there = {name for name, _ in headers}
                headers += [pair for pair in defaults.items() if pair[0] not in there]
                if is_sandboxed and _OUR_PAGE not in headers:
                    headers.append(_SANDBOX)
                message["headers"] = headers
            await send(message)

        refusal = self._refuse(scope, is_output=is_output)
        if refusal is None:
            await self._app(scope, receive, add)
        elif scope["type"] == "http":
            await refuse(Request(scope), *refusal)(scope, receive, add)
        else:
            await receive()
            await send({"type": "websocket.close"})  # not accepted: 403

    def _refuse(self, scope: Scope, *, is_output: bool) -> tuple[str, int, dict[str, str]] | None:
        """Return why a request is refused unread: message, status, headers."""
        if self._open:
            host = _header(scope, b"host")
            if host is not None and not self._is_ours(host):
                message = (
                    f"host: {host[:200]!r} is not a name of this engine; "
                    "--trust-host NAME makes it one"
                )
                return message, 403, {}
            guarded = not is_output and _PAGE.fullmatch(scope["path"]) is None
            if guarded and _is_from_elsewhere(_header(scope, b"origin")):
                message = "an engine without signing keys takes no requests from other sites' pages"
                return message, 403, {}
        if (is_output and not self._is_trusted(scope)) or _EVENT.fullmatch(scope["path"]):
            client = scope.get("client") or ("",)
            wait = self._buckets.take(client[0], self._clock.now_ms())
            if wait:
                return "too many requests", 429, {**CORS, "retry-after": str(math.ceil(wait))}
        return None

    def _is_trusted(self, scope: Scope) -> bool:
        """Say whether an application asks for the sake of its callers, whose number it knows."""
        authorization = _header(scope, b"authorization")
        return authorization is not None and bearer_matches(authorization, self._keys)

    def _is_our_name(self, host: str) -> bool:
        """Say whether a page under this name can only have been loaded from here.

        An address is always fine: no other machine can give it another meaning.
        """
        name = _hostname("//" + host)
        return (
            not self._hosts.isdisjoint((name, "*"))
            or _is_loopback_name(name)
            or _address(name) is not None
        )


def _header(scope: Scope, wanted: bytes) -> str | None:
    found = next((value for name, value in scope["headers"] if name == wanted), None)
    return None if found is None else found.decode("latin-1")


def _is_from_elsewhere(origin: str | None) -> bool:
    """Say whether a browser sends this for a page that does not come from this machine."""
    if origin is None:
        return False
    name = _hostname(origin)
    address = _address(name)
    return not (_is_loopback_name(name) or (address is not None and address.is_loopback))


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_loopback_name(name: str) -> bool:
    """Say whether a name always means this machine (RFC 6761, 6.3)."""
    return name == "localhost" or name.endswith(".localhost")


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
