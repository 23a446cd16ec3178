"""Route templates, as frameworks know them: `/users/{id}` for the request `/users/7`.

No framework is imported. Some leave the route where the request is; of the others the application
is asked which route the request takes, by the names that it has for that. What is not known is no
error: then a request's endpoint is its method and path.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

logger = logging.getLogger("stephttp")


def asgi_route(app: Any, scope: Mapping[str, Any]) -> str:
    """The template of the route that an ASGI request took, prefixes of mounted parts included.

    Args:
        app: the application behind the middleware.
        scope: the request's scope, as the application left it.

    Returns:
        Such as `/users/{id}`; empty if nobody knows.
    """
    prefix = scope.get("root_path", "")
    try:
        route = scope.get("path_template") or _of_starlette(scope)  # the first is Litestar's
        if route is None:
            route = _ask(app, scope["method"], scope["path"].removeprefix(prefix))
        if not route:
            return ""
        return _prefix(prefix, scope.get("path_params") or {}, route) + simplified(route)
    except Exception as error:
        return _unknown(error)


def wsgi_route(app: Any, environ: Mapping[str, Any]) -> str:
    """The same for a WSGI request.

    Args:
        app: the application behind the middleware.
        environ: the request's environment, as the application left it.
    """
    path = environ.get("PATH_INFO", "").encode("latin-1").decode(errors="replace")
    try:
        rule = getattr(environ.get("werkzeug.request"), "url_rule", None)  # Flask's
        route = rule.rule if rule is not None else _ask(app, environ["REQUEST_METHOD"], path)
        return environ.get("SCRIPT_NAME", "") + simplified(route) if route else ""
    except Exception as error:
        return _unknown(error)


@lru_cache(maxsize=4096)
def simplified(route: str) -> str:
    """A framework's template with its parameters written `{name}`, and a slash in front.

    `/a/{id:int}`, `/a/<int:id>` and `^a/(?P<id>[0-9]+)$` are all `/a/{id}`.
    """
    if re.search(r"\(\?P<|[\\^$]", route):
        route = "".join(_literal(route))
    return "/" + _PARAMETER.sub(lambda found: f"{{{found[1] or found[2]}}}", route).lstrip("/")


_PARAMETER = re.compile(r"\{(\w+)(?::[^{}]*)?\}|<(?:[^<>]*:)?(\w+)>")
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<\w+>|\(|\)|\{\d+,?\d*\}|.", re.DOTALL)
"""Parts of a regular expression: escapes, sets, ends of groups, repetitions, single characters."""
_NO_TEXT = re.compile(r"[?*+^$]|\{\d.*|\\[AbBZ]")
_ANY_OF = re.compile(r"\[.+|\\[dDsSwW]", re.DOTALL)


def _literal(pattern: str) -> Iterator[str]:
    """What a regular expression of Django leaves fixed, and its groups as parameters."""
    depth = 0
    for token in _TOKEN.findall(pattern):
        if token.startswith("("):
            depth += 1
            if depth == 1:
                yield f"{{{token[4:-1]}}}" if len(token) > 1 else "{}"
        elif token == ")":
            depth -= 1
        elif depth or _NO_TEXT.fullmatch(token):
            continue
        elif _ANY_OF.fullmatch(token):
            yield "{}"
        else:
            yield token.removeprefix("\\")


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
    for name, value in reversed([*parameters.items()]) if root_path else ():
        if not re.search(rf"\{{{name}\b", route):
            for at in range(len(segments) - 1, 0, -1):
                if segments[at] == str(value):
                    segments[at] = f"{{{name}}}"
                    break
    return "/".join(segments)


def _ask(app: Any, method: str, path: str) -> str | None:
    """Ask the innermost application that we know how to ask."""
    for layer in _layers(app):
        for has, ask in _ASKING.items():
            if hasattr(layer, has):
                return ask(layer, method, path)
    return None


def _layers(app: Any) -> Iterator[Any]:
    """An application and what it wraps."""
    seen = set[int]()
    while app is not None:
        app = getattr(app, "__self__", app)  # given as a method, such as `app.wsgi_app`
        if id(app) in seen:
            return
        seen.add(id(app))
        yield app
        app = getattr(app, "app", None)


def _werkzeug(app: Any, method: str, path: str) -> str:
    """Quart's and Flask's."""
    rule, _ = app.url_map.bind("").match(path, method, return_rule=True)
    route: str = rule.rule
    return route


def _falcon(app: Any, method: str, path: str) -> str | None:
    found = app._router.find(path)
    return None if found is None else found[3]


def _django(app: Any, method: str, path: str) -> str:
    route: str = sys.modules["django.urls"].resolve(path).route
    return route


_ASKING: dict[str, Callable[[Any, str, str], str | None]] = {
    "url_map": _werkzeug,
    "_router": _falcon,
    "resolve_request": _django,
}
"""By an attribute that tells whose application it is."""


def _unknown(error: Exception) -> str:
    logger.debug("stephttp: the route of a request is not known: %r", error)
    return ""
