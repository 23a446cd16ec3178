"""The request capsule: what of a request the server does not restore (DESIGN 3.3).

The server sends method, path, query, content type and body again. The rest that a handler may
look at travels as the result of a reserved step, and is put back before the application sees
the re-entry.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from stephttp._core.messages import Headers, Request

DEFAULT_HEADERS = frozenset(
    {
        b"accept",
        b"accept-language",
        b"authorization",
        b"content-encoding",
        b"content-language",
        b"content-type",
        b"cookie",
        b"forwarded",
        b"host",
        b"idempotency-key",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-unmodified-since",
        b"origin",
        b"prefer",
        b"range",
        b"referer",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"x-api-key",
        b"x-csrf-token",
        b"x-csrftoken",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
        b"x-requested-with",
    }
)
"""Request headers that are restored unless told otherwise.

Not `Accept-Encoding`: the result is kept as it is, and whoever reads it later says for himself what
he accepts.
"""

SECRET_HEADERS = frozenset({b"authorization", b"cookie", b"x-api-key"})
"""Restored headers that give access to something."""


class Capsule(msgspec.Struct, omit_defaults=True):
    """The kept part of a request, as JSON."""

    headers: list[tuple[str, str]] = []
    client: tuple[str, int] | None = None
    scheme: str = "http"


_decoder = msgspec.json.Decoder(Capsule)


def pack(request: Request, allowed: Collection[bytes]) -> Capsule:
    """Keep what is allowed of `request`."""
    kept = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in request.headers
        if name in allowed
    ]
    return Capsule(kept, request.client, request.scheme)


def unpack(raw: bytes | msgspec.Raw) -> Capsule:
    """Read a stored capsule.

    Raises:
        ValueError: it is not one.
    """
    try:
        return _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the stored request cannot be read: {error}") from error


def restore(request: Request, capsule: Capsule) -> None:
    """Make `request`, a re-entry, look like the original to the application.

    Only the length describes the body as it was sent now, so it stays; every other header of the
    server's own call is replaced.
    """
    own: Headers = [pair for pair in request.headers if pair[0] == b"content-length"]
    kept = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in capsule.headers]
    request.headers = kept + own
    request.client = capsule.client
    request.scheme = capsule.scheme
