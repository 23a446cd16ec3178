"""Names of endpoints from route templates, as frameworks know them: `/users/{id}` for the request
`/users/7`.

No framework is imported. Some leave the route in the request, where the adapters look first; the
other applications are asked which route the request takes, by the names that they have for that. A
route that cannot be found is not an error: the request's endpoint is then its method and path.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

logger = logging.getLogger("stephttp")


@lru_cache(maxsize=4096)
def simplified(route: str) -> str:
    """Return a framework's template with its parameters written `{name}`, and a slash in front.

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


def route_of_app(app: Any, method: str, path: str) -> str | None:
    """Return the route by the first layer of the application that has a known way to find it."""
    for layer in _layers(app):
        for has, ask in _BY_ATTRIBUTE.items():
            if hasattr(layer, has):
                return ask(layer, method, path)
    return None


def _layers(app: Any) -> Iterator[Any]:
    """An application and what it wraps."""
    seen: set[int] = set()
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


_BY_ATTRIBUTE: dict[str, Callable[[Any, str, str], str | None]] = {
    "url_map": _werkzeug,
    "_router": _falcon,
    "resolve_request": _django,
}
"""By an attribute by which the application is recognised."""


def unknown(error: Exception) -> str:
    logger.debug("stephttp: the route of a request is not known: %r", error)
    return ""
