"""HTTP requests that the engine makes for steps: `Gateway` and `AIGateway` (PROTOCOL 5.3).

What a step asks for is checked and made into a `Spec` when it is reported; that is stored, and
sent by `Gateway.fetch`, which always comes back with a memo: any answer is a result, and what
prevents one is an error of the step.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from stephttp._core import jcs
from stephttp._core.ops import Op, OpCode
from stephttp.engine.answers import Answer
from stephttp.engine.client import Client, Sender, read_url
from stephttp.engine.egress import Egress
from stephttp.engine.exchange import ExchangeError, Request, TooLarge, decoded
from stephttp.engine.models import Refused
from stephttp.engine.settings import Settings

if TYPE_CHECKING:
    import httpx2

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Headers that belong to the connection, which is ours."""

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


class Spec(Struct):
    """An HTTP request to make; `ai` tells what becomes of the answer."""

    ai: bool
    url: str
    method: str
    headers: dict[str, str]
    body: str


class _Unwanted(Exception):
    """The request must not be made, or its answer cannot be used."""


def read_gateway(op: Op, field: str) -> bytes:
    """The request that a `Gateway` or `AIGateway` op asks for, as a stored `Spec`.

    Raises:
        Refused: a field of `opts` is missing or wrong.
    """
    ai, opts, field = op.op is OpCode.AI_GATEWAY, op.opts or {}, f"{field}.opts"
    spec = Spec(
        ai=ai,
        url=_url(opts.get("url"), f"{field}.url"),
        method=_method(opts.get("method"), f"{field}.method"),
        headers=_headers(opts.get("headers"), f"{field}.headers"),
        body=_ai_body(opts, field) if ai else _text_body(opts.get("body"), f"{field}.body"),
    )
    if ai:
        spec.headers.setdefault("content-type", "application/json")
        _authorize(spec.headers, opts, field)
    return msgspec.json.encode(spec)


class Gateway:
    """Makes the requests. One for the life of an engine.

    Args:
        settings: limits, and where requests may go.
        transport: what carries the requests; by default real connections, to where the settings
            allow them.
    """

    def __init__(
        self, settings: Settings, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._sender: Sender
        if transport is None:
            self._sender = Client(Egress.of(settings), settings.connect_timeout)
        else:
            from stephttp.engine.inprocess import InProcess  # httpx2 is slow to import

            self._sender = InProcess(transport)

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()

    async def fetch(self, spec: bytes) -> bytes:
        """Make the request of a stored `Spec`; the step's memo."""
        wanted = msgspec.json.decode(spec, type=Spec)
        limit = self._settings.max_step_output
        try:
            request = _request(wanted)
            async with asyncio.timeout(self._settings.gateway_timeout):
                answer = decoded(await self._sender.send(request, limit), limit)
            memo = _ai_memo(answer) if wanted.ai else _memo(wanted, answer)
            if len(memo) > limit:
                raise TooLarge(f"the answer is larger than {limit} bytes")
        except TimeoutError:
            return _failure(wanted, f"no answer within {self._settings.gateway_timeout:g} s")
        except (ExchangeError, OSError, ValueError, _Unwanted) as error:
            return _failure(wanted, str(error) or type(error).__name__)
        return memo


def _request(spec: Spec) -> Request:
    url = read_url(spec.url)
    headers = {"accept": "*/*", "accept-encoding": "gzip", **spec.headers}
    if url.userinfo:
        pair = f"{url.username}:{url.password}".encode()
        headers["authorization"] = f"Basic {b64encode(pair).decode()}"
    origin = f"{url.scheme}://{url.netloc.decode()}"
    return Request(spec.method, origin, url.raw_path.decode(), headers, spec.body.encode())


def _memo(spec: Spec, answer: Answer) -> bytes:
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        shown = "-".join(part.capitalize() for part in name.split("-"))
        headers[shown] = f"{headers[shown]},{value}" if shown in headers else value
    data = {
        "body": answer.body.decode("utf-8", "replace"),
        "headers": headers,
        "status_code": answer.status,
        "url": spec.url,
    }
    return msgspec.json.encode({"data": data})


def _ai_memo(answer: Answer) -> bytes:
    good = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
    try:
        msgspec.json.decode(answer.body)
        data = Raw(answer.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        if good:
            raise _Unwanted("the answer is not JSON") from None
        data = Raw(b"null")
    if good:
        return msgspec.json.encode({"data": data})
    error = {
        "name": "AIGatewayError",
        "message": f"Error making AI request: unsuccessful status code: {answer.status}",
        "data": data,
        "stack": answer.body.decode("utf-8", "replace"),
    }
    return msgspec.json.encode({"error": error})


def _failure(spec: Spec, detail: str) -> bytes:
    name, what = ("AIGatewayError", "AI") if spec.ai else ("GatewayError", "gateway")
    error = {"name": name, "message": f"Error making {what} request: {detail}", "data": None}
    return msgspec.json.encode({"error": error})


def _url(value: Any, field: str) -> str:
    try:
        url = read_url(value)
    except (TypeError, ValueError) as error:
        raise Refused(f"{field}: not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise Refused(f"{field}: {value[:200]!r} is not an http or https URL")
    return str(value)


def _method(value: Any, field: str) -> str:
    if value is None or value == "":
        return "POST"
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise Refused(f"{field}: {str(value)[:64]!r} is not an HTTP method")
    return value


def _headers(value: Any, field: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(f"{field}: expected an object of texts, got {type(value).__name__}")
    headers = {}
    for name, text in value.items():
        if not isinstance(text, str) or not _TOKEN.fullmatch(name) or _CONTROL.search(text):
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
        return jcs.dumps(body).decode()
    except ValueError as error:
        raise Refused(f"{field}.body: {error}") from None


def _authorize(headers: dict[str, str], opts: dict[str, Any], field: str) -> None:
    kind, key = opts.get("format"), opts.get("auth_key")
    if kind not in _AUTH:
        known = ", ".join(_AUTH)
        raise Refused(f"{field}.format: {str(kind)[:64]!r} is not known; known are {known}")
    if not isinstance(key, str | None) or _CONTROL.search(key or "") or not (key or "").isascii():
        raise Refused(f"{field}.auth_key: not a text that can be sent in a header")
    name, prefix = _AUTH[kind]
    if key:
        headers.setdefault(name, prefix + key)
