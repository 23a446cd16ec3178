"""The request capsule: the headers, address and method that a re-entry gets back; which of them are
secret (docs/design.md 3.3).

The server sends path, query, content type and body again, and a method that may be that of another
run of the endpoint (docs/protocol.md 13.7). The rest that a handler may look at travels as the
result of a reserved step, and is put back before the application sees the re-entry. Headers that
give access to something are sealed (encrypted); how is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from stephttp._wire.http import Headers, Request, SeenAt
from stephttp._wire.json import UNREADABLE
from stephttp.errors import UsageError

DEFAULT_HEADERS = frozenset(
    {
        b"accept",
        b"accept-language",
        b"authorization",
        b"baggage",
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
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-real-ip",
        b"x-request-id",
        b"x-requested-with",
    }
)
"""Request headers that are restored by default.

Not `Accept-Encoding`: the result is stored as it is, and its later reader says what it accepts.
"""

SECRET_HEADERS = frozenset(
    {b"authorization", b"cookie", b"x-api-key", b"x-csrf-token", b"x-csrftoken"}
)
"""Restored headers that give access to something. So may any that is not in `DEFAULT_HEADERS`."""

Seal = Callable[[bytes], bytes]
"""Encrypts bytes."""
Open = Callable[[bytes], bytes]
"""Decrypts; raises `ValueError` for what was not sealed for this run."""


SEALED_FOR = "run_id"
"""Field of a capsule that was copied to another run: the run that it was sealed for."""


class Secrets(msgspec.Struct, omit_defaults=True):
    """The part that is sealed, as JSON."""

    headers: list[tuple[str, str]] = []
    body: bytes | None = None
    """The request's body, where the server is not to see it (`omit_request_body`)."""


class Capsule(msgspec.Struct, omit_defaults=True):
    """The kept part of a request, as JSON."""

    headers: list[tuple[str, str]] = []
    client: tuple[str, int] | None = None
    scheme: str = "http"
    sealed: bytes | None = None
    """`Secrets`, sealed; base64 in the JSON."""
    secrets: Secrets | None = None
    """The same, open: in development without a key."""
    failing: list[str] = []
    """Hashes of the steps that had failed when the run went async (docs/protocol.md 6.4)."""
    run_id: str | None = None
    """The run that it was sealed for, if that is another one, whose request the engine repeats."""
    seen_at: SeenAt | None = None
    """Where the application saw the request, if that is another path than the one called."""
    carried: dict[str, str] = {}
    """Texts that middleware keeps with the run."""
    method: str = ""
    """A real server keeps one for all runs of an endpoint: that of the last one. Empty: a capsule
    of an earlier release."""


_decoder = msgspec.json.Decoder(Capsule)
_secrets_decoder = msgspec.json.Decoder(Secrets)
_encode = msgspec.json.Encoder().encode


def is_secret(name: bytes) -> bool:
    """Return whether a header may only travel sealed: known to be secret, or not known at all."""
    return name in SECRET_HEADERS or name not in DEFAULT_HEADERS


def pack(
    request: Request,
    allowed: Collection[bytes],
    *,
    seal: Seal | None = None,
    keep_open: bool = False,
    hidden_body: bytes | None = None,
    failing: Sequence[str] = (),
    carried: Mapping[str, str] | None = None,
) -> Capsule:
    """Keep what is allowed of `request`.

    Args:
        allowed: names of the headers to keep.
        seal: encrypts the secrets. Without it they are left out.
        keep_open: without `seal`, stores the secrets as they are instead.
        hidden_body: a body that is kept with the secrets.
        failing: steps that had failed.
        carried: what middleware keeps with the run.

    Raises:
        UsageError: `carried` holds anything but `str`, which no later call could read.
    """
    public: list[tuple[str, str]] = []
    secrets = Secrets(body=hidden_body)
    for name, value in request.headers:
        if name in allowed:
            pair = name.decode("latin-1"), value.decode("latin-1")
            (secrets.headers if is_secret(name) else public).append(pair)
    capsule = Capsule(public, request.client, request.scheme, failing=list(failing))
    capsule.seen_at, capsule.method = request.seen_at, request.method
    if carried:
        given: Mapping[Any, Any] = carried
        for key, text in given.items():
            if not (isinstance(key, str) and isinstance(text, str)):
                raise UsageError(f"middleware: ctx.carried[{key!r}] must be a text, not {text!r}")
        capsule.carried = dict(carried)
    if secrets.headers or secrets.body is not None:
        if seal is not None:
            capsule.sealed = seal(_encode(secrets))
        elif keep_open:
            capsule.secrets = secrets
    return capsule


def read(raw: bytes | msgspec.Raw) -> Capsule:
    """Read a stored capsule, but for what is sealed.

    Raises:
        ValueError: it is not one.
    """
    try:
        return _decoder.decode(raw)
    except UNREADABLE as error:
        raise ValueError(f"the stored request cannot be read: {error}") from error


def unpack(
    raw: bytes | msgspec.Raw, run_id: str, opener: Callable[[str], Open | None] = lambda _: None
) -> Capsule:
    """Read a stored capsule, with its secrets.

    Args:
        run_id: the run that it belongs to.
        opener: what opens the secrets of a run; `None`: there is no key.

    Raises:
        ValueError: it is not one, or its secrets cannot be opened.
    """
    capsule = read(raw)
    if capsule.sealed is not None:
        try:
            open_sealed = opener(capsule.run_id or run_id)
            if open_sealed is None:
                raise ValueError("it is encrypted, and there is no key to open it")
            capsule.secrets = _secrets_decoder.decode(open_sealed(capsule.sealed))
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValueError(f"the stored request cannot be read: {error}") from error
    return capsule


def restore(request: Request, capsule: Capsule) -> None:
    """Make `request`, a re-entry, look like the original to the application.

    Only the length describes the body as it was sent now, so it stays; every other header of the
    server's own call is replaced.
    """
    secrets = capsule.secrets or Secrets()
    own: Headers = [pair for pair in request.headers if pair[0] == b"content-length"]
    if secrets.body is not None:
        request.body = secrets.body
        own = [(b"content-length", str(len(request.body)).encode())]
    kept = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in [*capsule.headers, *secrets.headers]
    ]
    request.headers = kept + own
    request.client = capsule.client
    request.scheme = capsule.scheme
    request.method = capsule.method or request.method
    if capsule.seen_at is not None:
        request.seen_at, request.path = capsule.seen_at, capsule.seen_at.called
