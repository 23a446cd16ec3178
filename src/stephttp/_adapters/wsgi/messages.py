"""What both responders need: the types of WSGI, requests and replies in its terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from stephttp._client.api_calls import SDK
from stephttp._run.passing import PLAIN_TEXT, on_the_line
from stephttp._wire.http import Headers, Request, Response

Environ = dict[str, Any]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
"""Called with a status line, headers, and perhaps what `sys.exc_info()` returned."""
WSGIApp = Callable[..., Iterable[bytes]]
"""Called with environ and start_response, for which every framework has types of its own."""

GONE = Response(400, list(PLAIN_TEXT))
"""For a caller who left: nobody reads it."""

_BODY_HEADERS = ("CONTENT_TYPE", "CONTENT_LENGTH")
_OF_THE_CALLER = frozenset({*_BODY_HEADERS, "REMOTE_ADDR", "REMOTE_PORT", "REMOTE_HOST"})


def path_of(environ: Environ) -> str:
    """The whole path, decoded, as latin-1 (PEP 3333)."""
    return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}" or "/"


def headers_of(environ: Environ) -> Headers:
    """The request's headers. Servers have joined the values of repeated ones."""
    return [
        (name, environ[key].encode("latin-1"))
        for key, name in _header_names(tuple(environ))
        if environ[key] or key not in _BODY_HEADERS
    ]


@lru_cache(maxsize=128)  # the requests of one kind of client have the same keys
def _header_names(keys: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """Which keys of an environ hold headers, and what these are called."""
    names = {key: key for key in keys if key in _BODY_HEADERS}
    for key in keys:
        if key.startswith("HTTP_") and key[5:] not in _BODY_HEADERS:
            names[key] = key[5:]
    return [
        (key, names[key].lower().replace("_", "-").encode("latin-1"))
        for key in keys
        if key in names
    ]


def neutral(environ: Environ, body: bytes) -> Request:
    """A request as the rest of the package knows it."""
    address = environ.get("REMOTE_ADDR")
    port = str(environ.get("REMOTE_PORT", ""))
    return Request(
        method=environ["REQUEST_METHOD"],
        path=_raw_path(environ),
        query=on_the_line(environ.get("QUERY_STRING", "").encode("latin-1")),
        headers=headers_of(environ),
        client=(address, int(port) if port.isdecimal() else 0) if address else None,
        scheme=environ.get("wsgi.url_scheme", "http"),
        body=body,
    )


def restored(environ: Environ, request: Request) -> Environ:
    """The environ of a re-entry, as it was of the original request."""
    again = {
        key: value
        for key, value in environ.items()
        if not key.startswith("HTTP_") and key not in _OF_THE_CALLER
    }
    for raw_name, raw_value in request.headers:
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        key = name if name in _BODY_HEADERS else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        glue = "; " if name == "COOKIE" else ","
        again[key] = f"{again[key]}{glue}{value}" if key in again else value
    if request.client is not None:
        again["REMOTE_ADDR"], again["REMOTE_PORT"] = request.client[0], str(request.client[1])
    if request.body:
        again["CONTENT_LENGTH"] = str(len(request.body))
    again["wsgi.url_scheme"] = request.scheme
    again["wsgi.input"] = BytesIO(request.body)
    again["wsgi.input_terminated"] = True
    return again


def response_of(status: str, headers: Iterable[tuple[str, str]]) -> Response:
    """A response as the rest of the package knows it, without its body."""
    return Response(
        int(status[:3]),
        # Django leaves a space in front, which a server's caller would not see.
        [
            (name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1"))
            for name, value in headers
        ],
    )


def reply_with(start_response: StartResponse, reply: Response, own: Headers) -> list[bytes]:
    """Answer with a whole response of ours."""
    headers = [*reply.headers, *own]
    if reply.status not in (204, 304) and not any(name == b"content-type" for name, _ in headers):
        headers += PLAIN_TEXT  # strict servers want one, even without a body
    start_response(status_line(reply.status), text_headers(headers))
    return [reply.body] if reply.body else []


def text_headers(headers: Headers) -> list[tuple[str, str]]:
    """Headers in the terms of WSGI."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def status_line(status: int) -> str:
    """A status with its phrase, which WSGI wants."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def text_marks(run_id: str) -> list[tuple[str, str]]:
    """`marks`, in the terms of WSGI."""
    return [("x-run-id", run_id), ("x-inngest-sdk", SDK)]


def close(chunks: Any) -> None:
    """Close what an application returned, if it wants that (PEP 3333)."""
    end = getattr(chunks, "close", None)
    if end is not None:
        end()


def drop(_: bytes) -> None:
    """`write` of a response that nobody wants any more."""


def _raw_path(environ: Environ) -> str:
    """The path as it stood on the request line, if the server tells, and nobody moved it since."""
    path = path_of(environ)
    told = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    raw: str = told.partition("?")[0]
    if raw.startswith("/") and unquote_to_bytes(raw).decode("latin-1") == path:
        return raw
    return quote(path.encode("latin-1"))
