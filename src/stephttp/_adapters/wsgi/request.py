"""A request in the terms of WSGI: path, mounts and client of its environ, its route, and how
a first call reads its body.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from stephttp._adapters.route_templates import route_of_app, simplified, unknown
from stephttp._adapters.wsgi.messages import Environ, Input, WSGIApp
from stephttp._run.call_check import KIND_HEADER, SERVE_HEADERS, SERVER_HEADERS
from stephttp._run.first_call import FirstCall
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.http import Body, Headers, Request, SeenAt, request_line_text

logger = logging.getLogger("stephttp")

BODY_HEADERS = ("CONTENT_TYPE", "CONTENT_LENGTH")
_KNOWN_BY = ("SSL_CLIENT_CERT", "SSL_CLIENT_S_DN", "REMOTE_USER")


def _keys(headers: Iterable[bytes]) -> frozenset[str]:
    return frozenset(f"HTTP_{name.decode().upper().replace('-', '_')}" for name in headers)


_SERVER_KEYS = _keys(SERVER_HEADERS)
_SERVE_KEYS = _keys(SERVE_HEADERS)
(_KIND_KEY,) = _keys([KIND_HEADER])


def claims_reentry(environ: Environ) -> bool:
    """Whether a request says that it comes from the server. It is then verified, or refused:
    it never starts a new run."""
    return bool(environ.get("HTTP_X_RUN_ID")) and not _SERVER_KEYS.isdisjoint(environ)


def is_serve_call(environ: Environ) -> bool:
    """Whether a call of the server is for a function of `serve`, of another SDK. Only headers say
    so: query, method and body of a re-entry are the original caller's, who could plant it there."""
    return all(map(environ.get, _SERVE_KEYS)) or bool(environ.get(_KIND_KEY))


def identity(environ: Environ) -> tuple[Any, ...]:
    """Return what tells a request from others."""
    return (environ,)


def neutral(environ: Environ, body: bytes) -> Request:
    """Return the request as the rest of the package knows it."""
    address = environ.get("REMOTE_ADDR")
    port = str(environ.get("REMOTE_PORT", ""))
    path, seen = _raw_path(environ), path_of(environ)
    called = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
    request = Request(
        method=environ["REQUEST_METHOD"],
        path=path,
        query=request_line_text(environ.get("QUERY_STRING", "")),
        headers=headers_of(environ),
        client=(str(address), int(port) if _is_port(port) else 0) if address else None,
        scheme=environ.get("wsgi.url_scheme", "http"),
        body=body,
    )
    root_path = environ.get("SCRIPT_NAME", "")
    if root_path or called != seen:
        if called != seen and seen.endswith(called):
            request.root_path = quote(seen.removesuffix(called).encode("latin-1"))
        request.seen_at = SeenAt(root_path, environ.get("PATH_INFO", ""), "", path)
    return request


def _is_port(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) < 6


def known_of_caller(environ: Environ) -> str:
    """Return who the caller is by what the server has asked for: a certificate, or a login."""
    return "\n".join(str(environ[key]) for key in _KNOWN_BY if environ.get(key))


def rule_of(environ: Mapping[str, Any]) -> Any:
    """Return the route that Flask has found, as long as its request is at work."""
    return getattr(environ.get("werkzeug.request"), "url_rule", None)


def route_of(app: Any, environ: Mapping[str, Any], sent: Environ, rule: Any = None) -> str:
    """Return the template of the route that a request took, prefixes of mounted parts included.

    Args:
        app: the application behind the middleware.
        environ: the request's environment, as the application left it.
        sent: the same, as it came.
        rule: what `rule_of` has returned before.

    Returns:
        Such as `/users/{id}`; empty if it cannot be found.
    """
    prefix, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    if not (prefix.isascii() and path.isascii()):
        whole = path_of(sent).encode("latin-1").decode(errors="replace")
        prefix, path = _decoded(prefix, whole.startswith), _decoded(path, whole.endswith)
    try:
        rule = rule or rule_of(environ)
        route = (
            rule.rule if rule is not None else route_of_app(app, environ["REQUEST_METHOD"], path)
        )
        return prefix + simplified(route) if route else ""
    except Exception as error:
        return unknown(error)


def _decoded(part: str, is_part: Callable[[str], bool]) -> str:
    """Return a part of a path as text. In an environ it is bytes, written as latin-1 (PEP 3333);
    but Django puts it back as text.

    Args:
        is_part: whether a text is that part of the path.
    """
    if part.isascii() or is_part(part):
        return part
    return part.encode("latin-1", "replace").decode(errors="replace")


def path_of(environ: Environ) -> str:
    """Return the whole path, decoded, as latin-1 (PEP 3333)."""
    return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}" or "/"


def headers_of(environ: Environ) -> Headers:
    """Return the request's headers. Servers have joined the values of repeated ones."""
    return [
        (name, environ[key].encode("latin-1"))
        for key, name in _header_names(tuple(environ))
        if environ[key] or key not in BODY_HEADERS
    ]


@lru_cache(maxsize=128)  # the requests of one kind of client have the same keys
def _header_names(keys: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """Return which keys of an environ hold headers, and what these are called."""
    names = {key: key for key in keys if key in BODY_HEADERS}
    for key in keys:
        if key.startswith("HTTP_") and key[5:] not in BODY_HEADERS:
            names[key] = key[5:]
    return [
        (key, names[key].lower().replace("_", "-").encode("latin-1"))
        for key in keys
        if key in names
    ]


def _raw_path(environ: Environ) -> str:
    """Return the path as it stood on the request line, where the server says that."""
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    raw: str = target.partition("?")[0]
    if raw.startswith("/"):
        return request_line_text(raw)
    return quote(path_of(environ).encode("latin-1"))


def mounts(outer: tuple[Any, ...], environ: Environ) -> bool:
    """Whether `outer` is the identity of an ASGI request in which this one is mounted."""
    if len(outer) != 4:
        return False
    method, path, query, _ = outer
    inner = environ.get("PATH_INFO", "").encode("latin-1").decode(errors="replace")
    same = (environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "").encode("latin-1"))
    return same == (method, query or b"") and str(path).endswith(inner)


class ReceivedCall(FirstCall):
    """A first call, as far as it concerns its request.

    Args:
        app: the application behind the middleware.
        environ: the one that the application gets, and may change.
    """

    __slots__ = ("_app", "_environ", "_input", "_rule", "_sent")

    def __init__(self, runtime: Runtime, app: WSGIApp, environ: Environ) -> None:
        FirstCall.__init__(self, runtime)
        self._app = app
        self._environ = environ
        self._sent = environ.copy()
        self._input = Input(environ, Body(runtime.settings.max_body_bytes))

    def run_made(self, scope: RunScope) -> None:
        """Prepare a run that was just made; see `HandlerCall`."""
        FirstCall.run_made(self, scope)
        self._rule: Any = None
        """What `rule_of` returned when the response began."""

    def _room(self, seconds: float) -> AbstractContextManager[float]:
        """See `FirstCall`; this thread is held meanwhile."""
        threaded = bool(self._environ.get("wsgi.multithread"))
        return self.runtime.holds.taken(seconds, threaded=threaded)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells the request from others; see `HandlerCall`."""
        return identity(self._environ)

    @property
    def surroundings(self) -> Environ:
        """The environ; see `HandlerCall`."""
        return self._environ

    def _method(self) -> str:
        method: str = self._sent["REQUEST_METHOD"]
        return method

    def _request(self, body: bytes) -> Request:
        return neutral(self._sent, body)

    def _known_of_caller(self) -> str:
        return known_of_caller(self._sent)

    def _route(self) -> str:
        return route_of(self._app, self._environ, self._sent, self._rule)

    @property
    def _request_body(self) -> Body:
        return self._input.body

    def _has_all(self) -> bool:
        return self._input.body.complete

    def _announced(self) -> int | None:
        return self._input.length

    def _read_ahead(self, _: Any = None) -> bool:
        return self._input.read_ahead()

    def _caller_left(self) -> BaseException:
        return ConnectionError("the caller left before its request was complete")

    def _drain(self) -> bool:
        """Read what the application left of the body; False if the caller left."""
        if self._input.drain() is not None:
            return True
        logger.info("stephttp: run %s: the caller left before its request was complete",
                    self.run_id)  # fmt: skip
        return False
