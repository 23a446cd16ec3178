"""A request in the terms of ASGI: path, mounts and client of its scope, its route, and how a
first call reads its body.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from stephttp._adapters.asgi.messages import ASGIApp, Input, Receive, Scope
from stephttp._adapters.route_templates import route_of_app, simplified, unknown
from stephttp._run.call_check import KIND_HEADER, SERVE_HEADERS, SERVER_HEADERS
from stephttp._run.first_call import FirstCall
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Body, Request, SeenAt, request_line_part
from stephttp._wire.paths import with_prefix, without_prefix

logger = logging.getLogger("stephttp")

BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})

_OF_SERVE = SERVE_HEADERS | {KIND_HEADER}
_NOTHING_READ = Body(0)
_SMALL = 64 * 1024
"""Bytes of a body that a server has by the time at which it calls an application, mostly."""


def claims_reentry(scope: Scope) -> bool:
    """Whether a request says that it comes from the server. It is then verified, or refused:
    it never starts a new run."""
    for name, value in scope["headers"]:  # a loop, because most requests lack the first of them
        if name == b"x-run-id" and value:
            return not SERVER_HEADERS.isdisjoint(dict(scope["headers"]))
    return False


def is_serve_call(scope: Scope) -> bool:
    """Whether a call of the server is for a function of `serve`, of another SDK. Only headers say
    so: query, method and body of a re-entry are the original caller's, who could plant it there."""
    if _OF_SERVE.isdisjoint(dict(scope["headers"])):  # as in most re-entries
        return False
    names = {name for name, value in scope["headers"] if value}
    return names >= SERVE_HEADERS or KIND_HEADER in names


def identity(scope: Scope) -> tuple[Any, ...]:
    """Return what tells a request from others."""
    return scope["method"], scope["path"], scope.get("query_string"), scope["headers"]


def neutral(scope: Scope, body: bytes, receive: Receive | None = None) -> Request:
    """Return the request as the rest of the package knows it.

    Args:
        receive: the server's, by which the server is known.
    """
    path, raw_path, query = scope["path"], scope.get("raw_path"), scope.get("query_string")
    request = Request(
        method=scope["method"],
        path=request_line_part(raw_path) if raw_path else quote(path),
        query=request_line_part(query) if query else "",
        headers=list(scope["headers"]),
        client=_address(scope.get("client")),
        scheme=scope.get("scheme", "http"),
        body=body,
    )
    root_path = scope.get("root_path") or ""
    if root_path or (request.path != path and unquote(request.path) != path):
        raw = request.path if raw_path else ""
        # Where Starlette has mounted something, the first is what was there before.
        request.root_path = quote(scope.get("app_root_path", root_path).rstrip("/"))
        if _adds_root_path(receive):
            request.path = without_prefix(request.path, request.root_path)
        request.seen_at = SeenAt(root_path, path, raw, request.path)
    return request


def paths_of(scope: Scope) -> tuple[str, str]:
    """Return the path of a request, without and with what proxies take off it."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path") or ""
    return path, with_prefix(path, root_path.rstrip("/"))


def _adds_root_path(receive: Any) -> bool:
    """Whether a server puts its root path in front of the path that it was called at: Uvicorn."""
    server: str = type(getattr(receive, "__self__", None)).__module__
    return server.startswith("uvicorn.")


def _address(given: Any) -> tuple[str, int] | None:
    """Return the caller's address and port. Some servers give the port as text, and none for a
    socket that is a file."""
    if not given:
        return None
    host, port = given[0], given[1] if len(given) > 1 else 0
    if not isinstance(port, int):
        port = int(port) if isinstance(port, str) and _PORT.fullmatch(port) else 0
    return (host if isinstance(host, str) else str(host or "")), port


_PORT = re.compile("[0-9]{1,5}")


def known_of_caller(scope: Scope) -> str:
    """Return who the caller is by its certificate, where the server has asked for one."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    return str(tls.get("client_cert_name") or "".join(tls.get("client_cert_chain") or ()))


def announced(scope: Scope) -> int | None:
    """Return the length of a request's body, as its head says; `None` if it does not.

    In HTTP/1.1 a body has a header that announces it; from HTTP/2 on it needs none.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
        if name == b"transfer-encoding":
            return None
    if scope["method"] in BODILESS or scope.get("http_version", "1.1").startswith("1"):
        return 0
    return None


def route_of(app: Any, scope: Mapping[str, Any]) -> str:
    """Return the template of the route that a request took, prefixes of mounted parts included.

    Args:
        app: the application behind the middleware.
        scope: the request's scope, as the application left it.

    Returns:
        Such as `/users/{id}`; empty if it cannot be found.
    """
    prefix = scope.get("root_path", "")
    try:
        route = scope.get("path_template") or _of_starlette(scope)  # the first is Litestar's
        if route is None:
            route = route_of_app(app, scope["method"], scope["path"].removeprefix(prefix))
        if not route:
            return ""
        if not prefix:
            return simplified(route)
        return _prefix(prefix, scope.get("path_params") or {}, route) + simplified(route)
    except Exception as error:
        return unknown(error)


def _of_starlette(scope: Mapping[str, Any]) -> str | None:
    """What Starlette and FastAPI leave in the scope. Empty: a part of which they see no routes."""
    route: Any = scope.get("route")
    if route is None and "endpoint" in scope and "router" in scope:  # Starlette before 1.8
        route = _route_of_endpoint(scope["router"].routes, scope)
    if route is None:
        return None
    if hasattr(route, "routes"):  # mounted, and no Starlette
        return ""
    # A route of an included router is relative to it, and known in full to this only.
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    if getattr(included, "original_route", None) is route:
        route = included
    template: str = getattr(route, "path_format", None) or route.path
    return template


def _route_of_endpoint(routes: Iterable[Any], scope: Mapping[str, Any]) -> Any:
    """The route that leads to the endpoint in the scope, by the path that is left for it."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    for route in routes:
        if inner := getattr(route, "routes", None):
            if found := _route_of_endpoint(inner, scope):
                return found
        elif getattr(route, "endpoint", None) is scope["endpoint"] and route.path_regex.match(path):
            return route
    return None


def _prefix(root_path: str, parameters: Mapping[str, Any], route: str) -> str:
    """The path at which an application is mounted, with the parameters that are not the route's.

    The scope has the path, and all parameters, but not the template. A segment that happens to
    be equal to a parameter behind it makes no difference.
    """
    segments = root_path.split("/")
    for name, value in reversed([*parameters.items()]):
        if not re.search(rf"\{{{name}\b", route):
            for at in range(len(segments) - 1, 0, -1):
                if segments[at] == str(value):
                    segments[at] = f"{{{name}}}"
                    break
    return "/".join(segments)


_init = FirstCall.__init__  # `super`, or to look it up each time, takes more instructions


class ReceivedCall(FirstCall):
    """A first call, as far as it concerns its request.

    Args:
        app: the application behind the middleware.
        scope: the one that the application gets, and may change.
        receive: the server's.
    """

    __slots__ = ("_app", "_input", "_receive", "_scope", "_sent")

    def __init__(self, runtime: Runtime, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        _init(self, runtime)
        self._app = app
        self._scope = scope
        # It stays as it is, whatever code behind us changes in its own. (It is a `dict`, says ASGI;
        # `dict(scope)` takes twice the instructions.)
        sent: Scope = scope.copy()  # type: ignore[attr-defined]
        sent["headers"] = [*sent["headers"]]
        self._sent = sent
        self._receive = receive
        self._input: Input | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells the request from others; see `HandlerCall`."""
        return identity(self._scope)

    @property
    def surroundings(self) -> Scope:
        """The scope; see `HandlerCall`."""
        return self._scope

    def _method(self) -> str:
        method: str = self._sent["method"]
        return method

    def _request(self, body: bytes) -> Request:
        return neutral(self._sent, body, self._receive)

    def _known_of_caller(self) -> str:
        return known_of_caller(self._sent)

    def _route(self) -> str:
        return route_of(self._app, self._scope)

    @property
    def _request_body(self) -> Body:
        return _NOTHING_READ if self._input is None else self._input.body

    def _has_all(self) -> bool:
        body = self._request_body
        return body.complete or (not body.size and self._announced() == 0)

    def _announced(self) -> int | None:
        return announced(self._sent)

    async def _read_ahead(self, _: Any = None) -> bool:
        return self._has_all() or await self._reading().read_ahead()

    def _read_small(self) -> None:
        """Read a small body that the application has not read: it is here already, and a server
        forgets it when the caller leaves."""
        length = self._announced()
        if length and not self._ended and length <= min(_SMALL, self._reading().body.limit):
            self._reading().read_soon()

    def _caller_left(self) -> BaseException:
        return asyncio.CancelledError()

    async def _drain(self) -> bool:
        """Read what the application left of the body; False if the caller left before its end."""
        # Without a body the request was complete when it came, whether its caller stays or not.
        if self._has_all() or await self._reading().drain():
            return True
        logger.info("stephttp: run %s: the caller left before its request was complete",
                    self.run_id)  # fmt: skip
        return False

    def _reading(self) -> Input:
        """Return what reads the body. Most requests have none, and need no reader."""
        if self._input is None:
            limit = self.runtime.settings.max_body_bytes
            self._input = Input(self._receive, limit, self._goes_on)
        return self._input

    def _goes_on(self) -> bool:
        """Return whether what was begun continues, though its caller has left. A response that has
        begun has no other reader than this caller."""
        scope = self.current.so_far
        return scope is not None and scope.has_begun and self._status == 0

    def _disconnect(self) -> bool:
        return self._input is not None and self._input.disconnect()
