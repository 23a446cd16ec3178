"""The request with which a function is called (docs/protocol.md 9.5). Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from stephttp.engine.model.call import EndpointCall, FunctionState
from stephttp.engine.model.timer import RESUME

_STEP = re.compile(r"(^|&)stepId=[^&]*")
_ANY_STEP = "step"
"""The name of a call that is for no step in particular."""


def step_of(call: EndpointCall) -> str:
    """Return what a call names as its step."""
    return _ANY_STEP if call.step_id == RESUME else call.step_id


def query_of(call: EndpointCall) -> str:
    """Return the query of the function's URL, with the step that is called for."""
    step = f"stepId={quote(step_of(call), safe='')}"
    if _STEP.search(call.query):
        return _STEP.sub(lambda match: match[1] + step, call.query, count=1)
    return f"{call.query}&{step}" if call.query else step


def attempt_of(call: EndpointCall, state: FunctionState) -> int:
    """Return how many attempts have failed: of the call itself, and of the step that is next.

    They share the retries of the run, as in other servers, which count both in one place.
    """
    return call.attempt + state.failures


def is_last(call: EndpointCall, state: FunctionState) -> bool:
    """Say whether nothing is left to be tried if this call fails."""
    return attempt_of(call, state) >= state.retries


def body_of(call: EndpointCall, state: FunctionState, request_id: str) -> bytes:
    """Return the body. Where the state is too large for it, the SDK is asked to fetch it."""
    events = msgspec.json.decode(state.events, type=list[Raw])
    use_api = state.memos is None
    ctx: dict[str, Any] = {
        "attempt": attempt_of(call, state),
        "disable_immediate_execution": call.plan,
        "env": "",
        "fn_id": call.fn_id,
        "generation_id": call.attempt + 1,
        "job_id": call.job_id,
        "max_attempts": state.retries + 1,
        "qi_id": b64encode(f"{call.job_id}::default".encode()).decode(),
        "request_id": request_id,
        "run_id": call.run_id,
        "stack": {"current": len(state.done), "stack": state.done},
        "step_id": step_of(call),
        "use_api": use_api,
    }
    return msgspec.json.encode(
        {
            "ctx": ctx,
            "defers": {},
            "event": events[0],
            "events": [] if use_api else events,
            "steps": {} if state.memos is None else Raw(state.memos),
            "use_api": use_api,
            "version": call.request_version,
        }
    )
