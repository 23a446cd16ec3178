"""The empty response that a decorated handler returns when its run has to wait, in its framework's
type (Django, Flask, Starlette, ...).

No caller gets it, because the adapters drop what a suspended run sends. It is there for the code
around the handler: dependencies, sessions, transactions and tracers end as after any answer.

Imported at the first wait. No framework is imported here; the one that calls the handler is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stephttp._run.boundary import UNKNOWN

STATUS = 202

Find = Callable[[Any, list[Any], Mapping[str, Any]], Any]
"""Called with the framework's module, the handler's arguments, and the ASGI scope or the environ.
Returns a placeholder, or `UNKNOWN` if this framework has not called the handler."""


def placeholder(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], surroundings: Mapping[str, Any]
) -> Any:
    """Return an empty response of the kind that the caller of a handler expects.

    Args:
        args: what the handler was called with.
        kwargs: the same, by name.
        surroundings: the ASGI scope or the environ of the request.

    Returns:
        A response, what is to be awaited to send one, or `UNKNOWN`.
    """
    found = _bare(args)
    given = [*args, *kwargs.values()]
    for name, find in _FRAMEWORKS.items():
        if found is UNKNOWN and (module := sys.modules.get(name)) is not None:
            found = find(module, given, surroundings)
    return found


def _bare(args: tuple[Any, ...]) -> Any:
    """Answer for a handler that is an ASGI or WSGI application itself."""
    match args:
        case (*_, {"type": "http"}, receive, send) if callable(receive) and callable(send):
            return _send_empty(send)
        case (*_, {"wsgi.input": _}, start_response) if callable(start_response):
            start_response(f"{STATUS} Accepted", [("content-length", "0")])
            return list[bytes]()
        case _:
            return UNKNOWN


async def _send_empty(send: Callable[[dict[str, Any]], Any]) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": STATUS, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _django(http: Any, given: list[Any], _: Mapping[str, Any]) -> Any:
    requests = [getattr(value, "_request", value) for value in given]  # REST framework wraps it
    return http.HttpResponse(status=STATUS) if _any(requests, http.HttpRequest) else UNKNOWN


def _falcon(falcon: Any, given: list[Any], _: Mapping[str, Any]) -> Any:
    # Its handlers return nothing; the response is one of their arguments.
    return None if _any(given, falcon.Request) else UNKNOWN


def _flask(flask: Any, _: list[Any], __: Mapping[str, Any]) -> Any:
    if not flask.has_request_context():
        return UNKNOWN
    return flask.current_app.response_class(status=STATUS)


def _quart(quart: Any, _: list[Any], __: Mapping[str, Any]) -> Any:
    if not quart.has_request_context():
        return UNKNOWN
    return quart.current_app.response_class("", status=STATUS)


def _litestar(litestar: Any, _: list[Any], surroundings: Mapping[str, Any]) -> Any:
    if not isinstance(surroundings.get("litestar_app"), litestar.Litestar):
        return UNKNOWN
    if surroundings["route_handler"].resolve_return_dto() is not None:
        return UNKNOWN  # it takes apart whatever the handler returns, responses included
    return litestar.Response(None, status_code=STATUS)


def _starlette(applications: Any, given: list[Any], surroundings: Mapping[str, Any]) -> Any:
    """Answer for FastAPI as well, which passes on a response without a look at its content."""
    requests = sys.modules["starlette.requests"]
    if not isinstance(surroundings.get("app"), applications.Starlette) and not _any(
        given, requests.HTTPConnection
    ):
        return UNKNOWN
    # Tasks that the handler has added would run in each call of it; a task of the response's own
    # keeps FastAPI from adding them.
    nothing = sys.modules["starlette.background"].BackgroundTasks()
    return sys.modules["starlette.responses"].Response(status_code=STATUS, background=nothing)


def _any(values: Iterable[Any], type_: type[Any]) -> bool:
    return any(isinstance(value, type_) for value in values)


_FRAMEWORKS: dict[str, Find] = {
    "django.http": _django,
    "falcon": _falcon,
    "flask": _flask,
    "quart": _quart,
    "litestar": _litestar,
    "starlette.applications": _starlette,
}
"""By the module whose presence says that a framework is loaded."""
