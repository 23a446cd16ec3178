"""The messages of WSGI: `wsgi.input` as the application sees it, status lines, and whole
replies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any

from stephttp._client.api_calls import SDK
from stephttp._wire.http import PLAIN_TEXT, Body, Headers, Response, text_headers

Environ = dict[str, Any]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
"""Called with a status line, headers, and perhaps what `sys.exc_info()` returned."""
WSGIApp = Callable[..., Iterable[bytes]]
"""Called with environ and start_response, for which every framework has types of its own."""

GONE = Response(400, list(PLAIN_TEXT))
"""For a caller who left: it is never read."""

_CHUNK = 64 * 1024
_MOST_DISCARDED = 64 * 1024 * 1024
"""Bytes of a refused body that are read all the same."""


class Input:
    """`wsgi.input` of a request: what the application reads is kept, and the rest is read ahead, or
    to its end, where that is needed.

    Args:
        environ: of the request.
        body: takes what is read.
    """

    __slots__ = ("_inner", "_taken", "body", "length")

    def __init__(self, environ: Environ, body: Body) -> None:
        self._inner: Any = environ["wsgi.input"]
        self.body = body
        self._taken = 0
        """Bytes that were read."""
        length = environ.get("CONTENT_LENGTH") or ""
        self.length = int(length) if length.isdecimal() else None
        """Of the body, as the head says; `None` if it does not."""
        if self.length is None and not environ.get("wsgi.input_terminated"):
            self.length = 0  # where a body would end is unknown (PEP 3333)
        body.complete = self.length == 0

    def read(self, *size: int) -> bytes:
        """Read bytes."""
        return self._noted(self._inner.read(*size), size != (0,))

    def readline(self, *size: int) -> bytes:
        """Read a line."""
        return self._noted(self._inner.readline(*size), size != (0,))

    def readlines(self, *hint: int) -> list[bytes]:
        """Read lines."""
        lines: list[bytes] = self._inner.readlines(*hint)
        self._noted(b"".join(lines), not hint)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._inner:
            yield self._noted(line, True)
        self._noted(b"", True)

    def drain(self) -> bytes | None:
        """Read what is left, as far as it may be kept.

        Returns:
            What was left; `None` if the caller left before its request was complete.
        """
        body, length = self.body, self.length
        if length is not None and length > body.limit:
            body.refuse(length)
        rest: list[bytes] = []
        while not body.complete and not body.overflown:
            wanted = _CHUNK if length is None else min(_CHUNK, length - body.size)
            try:
                chunk = self.read(wanted)
            except OSError:
                return None
            if not chunk and not body.complete:
                return None
            rest.append(chunk)
        if body.overflown and length is not None:
            self._discard(length)
        return b"".join(rest)

    def read_ahead(self) -> bool:
        """Read what is left before the handler does; False if the caller left."""
        rest = self.drain()
        if rest:
            self._inner = BytesIO(rest)
        return rest is not None

    def _discard(self, length: int) -> None:
        """Read what is left, so that the caller reads the answer before the connection closes."""
        left = min(length - self._taken, _MOST_DISCARDED)
        with suppress(OSError):
            while left > 0 and (chunk := self._inner.read(min(_CHUNK, left))):
                left -= len(chunk)

    def _noted(self, chunk: bytes, at_end_if_empty: bool) -> bytes:
        body = self.body
        self._taken += len(chunk)
        if not body.complete:
            if self.length is None:
                more = bool(chunk) or not at_end_if_empty
            else:
                more = body.size + len(chunk) < self.length
            body.add(chunk, more)
        return chunk


def response_of(status: str, headers: Iterable[tuple[str, str]]) -> Response:
    """Return a response as the rest of the package knows it, without its body."""
    return Response(
        int(status[:3]),
        # Django leaves a space in front, which a server's caller would not see.
        [
            (name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1"))
            for name, value in headers
        ],
    )


def reply_with(start_response: StartResponse, reply: Response, own: Headers) -> list[bytes]:
    """Send a whole response of the SDK."""
    headers = [*reply.headers, *own]
    if reply.status not in (204, 304) and not any(name == b"content-type" for name, _ in headers):
        headers += PLAIN_TEXT  # strict servers want one, even without a body
    start_response(status_line(reply.status), text_headers(headers))
    return [reply.body] if reply.body else []


def status_line(status: int) -> str:
    """Return a status with its phrase, which WSGI wants."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def text_run_headers(run_id: str) -> list[tuple[str, str]]:
    """Return the two headers that every response of a durable application carries, as text."""
    return [("x-run-id", run_id), ("x-inngest-sdk", SDK)]


def close(chunks: Any) -> None:
    """Close what an application returned, if it wants that (PEP 3333)."""
    end = getattr(chunks, "close", None)
    if end is not None:
        end()


def drop(_: bytes) -> None:
    """`write` of a response that is dropped."""
