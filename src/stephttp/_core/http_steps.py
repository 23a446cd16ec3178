"""`step.fetch` and `step.ai.infer`: the arguments of HTTP requests that the server makes, with
their idempotency key. Pure, as `waits` is.

A server may make such a request twice: because it failed, or because it died meanwhile. So it gets
an idempotency key, and says how often it is retried.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

from stephttp._core.encoding import encode_argument
from stephttp._core.endpoint_options import FnOpts
from stephttp._core.inference import AIAdapter
from stephttp._core.retry_policy import RetryPolicy, merged, wishes
from stephttp._core.tool_types import FetchResponse
from stephttp._core.waits import IsEndpoint, Wait, check_text
from stephttp._wire.http import SAFE_METHODS, TOKEN, without_credentials
from stephttp._wire.json import UNREADABLE
from stephttp._wire.opcodes import OpCode

_any = msgspec.json.Decoder(Raw)
_NOT_JSON = (
    "body: an Inngest server sends only JSON as it is, and encodes anything else as a JSON text; "
    "send JSON, or make the request in step.run"
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def fetch(
    step_id: str,
    url: str,
    method: str,
    headers: Mapping[str, str] | None,
    body: str | None,
    policy: RetryPolicy | None = None,
) -> Wait:
    """Have the server make an HTTP request."""
    opts: dict[str, Any] = {
        "url": _url(step_id, "url", url),
        "method": check_text(step_id, "method", method).upper(),
    }
    if not TOKEN.fullmatch(opts["method"]):
        raise ValueError(f"step {step_id!r}: method: {method!r} is not an HTTP method")
    if headers:
        opts["headers"] = _headers(step_id, "headers", headers)
    if body is not None:
        opts["body"] = check_text(step_id, "body", body, empty=True)
        encode_argument(opts["body"], step_id, "body")
    return Wait(
        step_id, OpCode.GATEWAY, step_id, opts, FetchResponse, policy=policy,
        only_ours=None if body is None else partial(_unless_json, body),
    )  # fmt: skip


def _unless_json(body: str, _: IsEndpoint) -> str:
    """Say why a body would not arrive as it is; empty if it does."""
    try:
        _any.decode(body)
    except UNREADABLE:
        return _NOT_JSON
    return ""


def infer(
    step_id: str,
    adapter: AIAdapter,
    body: Mapping[str, Any],
    output_type: Any = Any,
    policy: RetryPolicy | None = None,
) -> Wait:
    """Have the server call a model."""
    request = dict(body)
    adapter.on_call(request)
    opts = {
        "type": "step.ai.infer",
        "url": _url(step_id, "adapter.url_infer()", adapter.url_infer()),
        "headers": _headers(step_id, "adapter.headers()", adapter.headers()),
        "auth_key": _header(step_id, "adapter.auth_key()", adapter.auth_key()),
        "format": adapter.format(),
        "body": Raw(encode_argument(request, step_id, "body")),
    }
    return Wait(step_id, OpCode.AI_GATEWAY, step_id, opts, output_type, policy=policy)


def gateway_opts(
    wait: Wait, key: str, endpoint: FnOpts, retries: int, *, tells_retries: bool
) -> dict[str, Any]:
    """Return the options of a request, as they are sent.

    Args:
        wait: the request.
        key: its idempotency key.
        endpoint: the options of the endpoint.
        retries: how often it is retried, where neither step nor endpoint says it.
        tells_retries: whether the server has to know that number even if it is 0.
    """
    opts = keyed(wait.opts, key)
    policy: RetryPolicy = endpoint if wait.policy is None else merged(wait.policy, endpoint)
    if policy.retries is not None:
        retries = policy.retries
    if retries or tells_retries:
        # A real server does not read these (docs/design.md 3.8).
        opts = {**opts, "retries": retries, **wishes(policy)}
    return opts


def keyed(opts: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the options of a request with an `Idempotency-Key`, where one is of use.

    A server may make the request twice: because it failed, or because it died meanwhile.

    Args:
        opts: of a step that has an HTTP request made; they may have passed middleware.
        key: what the header holds, unless the user has set it.
    """
    headers = opts.get("headers") or {}
    if opts.get("method", "GET") in SAFE_METHODS or not isinstance(headers, Mapping):
        return opts
    if any(str(name).lower() == "idempotency-key" for name in headers):
        return opts
    return {**opts, "headers": {**headers, "Idempotency-Key": key}}


def _url(step_id: str, argument: str, value: Any) -> str:
    url = check_text(step_id, argument, value)
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != -1
    except ValueError:  # a port that is not a number, or brackets that do not match
        known = False
    if not known or _CONTROL.search(url):
        shown = without_credentials(url)
        raise ValueError(f"step {step_id!r}: {argument}: {shown!r} is not an http(s) address")
    return url


def _headers(step_id: str, argument: str, given: Mapping[Any, Any]) -> dict[str, str]:
    headers = {}
    for name, value in dict(given).items():
        where = f"{argument}[{name!r}]"
        if not isinstance(name, str) or not TOKEN.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"step {step_id!r}: {where}: not the name of a header")
        headers[name] = _header(step_id, where, value)
    return headers


def _header(step_id: str, argument: str, value: Any) -> str:
    """Return a text that can be sent in a header. It may be a secret, so errors do not show it."""
    if not isinstance(value, str):
        raise TypeError(f"step {step_id!r}: {argument} must be text, not {type(value).__name__}")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"step {step_id!r}: {argument} must be Latin-1") from None
    if _CONTROL.search(value):
        raise ValueError(f"step {step_id!r}: {argument} must not hold control characters")
    return value
