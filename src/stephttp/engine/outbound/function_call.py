"""Requests to apps that have functions: calls of these, and pings (docs/protocol.md 9.3 to 9.5)."""

from __future__ import annotations

import asyncio

import msgspec

from stephttp._wire.call_signatures import request_target
from stephttp._wire.signatures import sign
from stephttp.engine.model.call import EndpointCall, FunctionState
from stephttp.engine.model.settings import Settings
from stephttp.engine.model.tokens import ACCOUNT_ID
from stephttp.engine.outbound.connection import HTTPRequest
from stephttp.engine.outbound.signed_bytes import canonical
from stephttp.engine.rules.functions.call_request import body_of, query_of, step_of

_AT_ONCE = 64 * 1024
"""Bytes of a body that is signed in the event loop; a larger one takes a while."""
_JSON = {
    "user-agent": "Inngest",
    "accept-encoding": "gzip",
    "content-type": "application/json",
}


async def function_request(
    call: EndpointCall,
    state: FunctionState,
    settings: Settings,
    now_s: int,
    request_id: str,
    traceparent: str,
) -> HTTPRequest:
    """Return the request that calls a function."""
    body = body_of(call, state, request_id)
    headers = {
        **_JSON,
        **await _signed(body, settings, now_s),
        "account-id": ACCOUNT_ID,
        "traceparent": traceparent,
        "x-inngest-generation-id": str(call.attempt + 1),
        "x-inngest-job-id": call.job_id,
        "x-inngest-req-version": str(call.request_version),
        "x-inngest-server-kind": settings.kind,
        "x-inngest-step-id": step_of(call),
        "x-request-id": request_id,
        "x-run-id": call.run_id,
    }
    target = request_target(call.path, query_of(call))
    return HTTPRequest("POST", call.domain, target, headers, body, not call.unanswered)


async def ping_request(
    origin: str, target: str, url: str, settings: Settings, now_s: int
) -> HTTPRequest:
    """Return the request that asks an app to register its functions, in its answer if it can."""
    body = msgspec.json.encode({"url": url})
    headers = {
        **_JSON,
        **await _signed(body, settings, now_s),
        "x-inngest-server-kind": settings.kind,
        "x-inngest-sync-kind": "in_band",
    }
    return HTTPRequest("PUT", origin, target, headers, body)


async def _signed(body: bytes, settings: Settings, now_s: int) -> dict[str, str]:
    """Return the header with the signature, if there is a key: of the canonical form of the body,
    which is what SDKs verify, however it was sent."""
    if not settings.signing_keys:
        return {}
    form = await asyncio.to_thread(canonical, body) if len(body) > _AT_ONCE else canonical(body)
    return {"x-inngest-signature": sign(settings.signing_keys[0], form, now_s)}
