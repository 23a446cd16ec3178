"""The HTTP request of `fetch` and `ai.infer`, checked and made from its op (`Gateway`, `AIGateway`;
docs/protocol.md 5.3). Pure.

The request is checked and made into a `RequestSpec` when the step is reported. The engine stores
that, and `outbound.gateway` sends it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import msgspec
from msgspec import Struct

from stephttp._wire import canonical_json
from stephttp._wire.http import SAFE_METHODS, TOKEN, without_credentials
from stephttp._wire.ids import idempotency_key
from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.urls import read_url
from stephttp.engine.rules.due_times import pause_wishes, retry_wishes

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Headers that belong to the connection, which the engine sets itself."""

_BEARER = ("authorization", "Bearer ")
_AUTH = {
    "openai-chat": _BEARER,
    "openai-responses": _BEARER,
    "grok": _BEARER,
    "azure-openai": ("api-key", ""),
    "anthropic": ("x-api-key", ""),
    "gemini": ("x-goog-api-key", ""),
}
"""How each provider wants its key: header and prefix, by `format`."""


_IDEMPOTENCY_KEY = "idempotency-key"


class RequestSpec(Struct):
    """An HTTP request to make.

    Attributes:
        ai: decides what the memo of its answer looks like.
        retries: how often it is made again.
        first, longest: seconds of the first pause before that, and of the longest; `None`: as
            configured.
    """

    ai: bool
    url: str
    method: str
    headers: dict[str, str]
    body: str
    retries: int = 0
    first: float | None = None
    longest: float | None = None


def read_gateway(op: Op, field: str, run_id: str, retries: int, now_ms: int) -> bytes:
    """Return the request that a `Gateway` or `AIGateway` op asks for, as a stored `RequestSpec`.

    A request that is not safe gets an `Idempotency-Key`, the same one each time it is made.

    Args:
        run_id, retries: of the run.

    Raises:
        Refused: a field of `opts` is missing or wrong.
    """
    limit, _ = retry_wishes(op, field, retries, now_ms)
    first, longest = pause_wishes(op, field)
    ai, opts, field = op.op is OpCode.AI_GATEWAY, op.opts or {}, f"{field}.opts"
    url, credentials = _url(opts.get("url"), f"{field}.url")
    spec = RequestSpec(
        ai=ai,
        url=url,
        method=_method(opts.get("method"), f"{field}.method"),
        headers=_headers(opts.get("headers"), f"{field}.headers"),
        body=_ai_body(opts, field) if ai else _text_body(opts.get("body"), f"{field}.body"),
        retries=limit,
        first=first,
        longest=longest,
    )
    if credentials:
        spec.headers["authorization"] = credentials
    if spec.method.upper() not in SAFE_METHODS:
        spec.headers.setdefault(_IDEMPOTENCY_KEY, idempotency_key(run_id, op.id))
    if ai:
        spec.headers.setdefault("content-type", "application/json")
        _authorize(spec.headers, opts, field)
    return msgspec.json.encode(spec)


def _url(value: Any, field: str) -> tuple[str, str]:
    """Return the address without credentials, which answers repeat, and these as a header."""
    try:
        url = read_url(value)
    except (TypeError, ValueError) as error:
        raise Refused(f"{field}: not a URL: {error}") from None
    plain = without_credentials(str(value))
    if url.scheme not in ("http", "https") or not url.host:
        raise Refused(f"{field}: {plain[:200]!r} is not an http or https URL")
    if not url.userinfo:
        return str(value), ""
    pair = f"{url.username}:{url.password}".encode()
    return plain, f"Basic {b64encode(pair).decode()}"


def _method(value: Any, field: str) -> str:
    if value is None or value == "":
        return "POST"
    if not isinstance(value, str) or not TOKEN.fullmatch(value):
        raise Refused(f"{field}: {str(value)[:64]!r} is not an HTTP method")
    return value


def _headers(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(f"{field}: expected an object of texts, got {type(value).__name__}")
    headers = {}
    for name, text in value.items():
        if not isinstance(text, str) or not TOKEN.fullmatch(name) or _CONTROL.search(text):
            raise Refused(f"{field}.{name[:64]}: not a header that can be sent")
        try:
            text.encode("latin-1")
        except UnicodeEncodeError:
            raise Refused(f"{field}.{name}: holds characters that headers cannot") from None
        if name.lower() not in _OURS:
            headers[name.lower()] = text
    return headers


def _text_body(value: Any, field: str) -> str:
    if not isinstance(value, str | None):
        raise Refused(f"{field}: expected text, got {type(value).__name__}")
    return value or ""


def _ai_body(opts: dict[str, Any], field: str) -> str:
    body = opts.get("body")
    if not isinstance(body, dict):
        raise Refused(f"{field}.body: expected an object, got {type(body).__name__}")
    try:
        return canonical_json.dumps(body).decode()
    except ValueError as error:
        raise Refused(f"{field}.body: {error}") from None


def _authorize(headers: dict[str, str], opts: dict[str, Any], field: str) -> None:
    kind, key = opts.get("format"), opts.get("auth_key")
    key = "" if key is None else key
    if kind not in _AUTH:
        known = ", ".join(_AUTH)
        raise Refused(f"{field}.format: {str(kind)[:64]!r} is not known; known are {known}")
    if not isinstance(key, str) or _CONTROL.search(key) or not key.isascii():
        raise Refused(f"{field}.auth_key: not a text that can be sent in a header")
    name, prefix = _AUTH[kind]
    if key:
        headers.setdefault(name, prefix + key)
