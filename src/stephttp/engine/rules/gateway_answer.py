"""The answer to `fetch` or `ai.infer`: whether it is the step's result, or the request is
tried again. Pure.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from stephttp.engine.model.change import Change, Entry, Past
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.run import Snapshot
from stephttp.engine.model.settings import Backoff
from stephttp.engine.model.timer import TimerKind
from stephttp.engine.model.values import Value
from stephttp.engine.rules.due_times import retry_after_ms
from stephttp.engine.rules.gateway_request import RequestSpec
from stephttp.engine.rules.transitions import arrived

_SOONER_OR_LATER = frozenset({408, 425, 429})
"""Beside 5xx: answers that ask for another request."""
_SERVER_ERRORS = range(500, 600)


def is_temporary(status: int) -> bool:
    """Say whether an answer with this status may be another one later."""
    return status in _SOONER_OR_LATER or status in _SERVER_ERRORS


class GatewayOutcome(Value, frozen=True, gc=False):
    """What came of an HTTP request for a step.

    Attributes:
        memo: of the step, if the request is not made again.
        failure: why it should be made again, as JSON `{"name", "message"}`; `None` if it should
            not.
        retry_after: the header of that name in the answer.
    """

    memo: bytes
    failure: bytes | None = None
    retry_after: str = ""


def request_made(
    snapshot: Snapshot, step_id: str, outcome: GatewayOutcome, begun_ms: int, at: Moment
) -> Change:
    """End the step, or make its request again later, if that may help and retries are left."""
    timer = snapshot.timers.get(step_id)
    if (
        outcome.failure is None
        or timer is None
        or timer.kind is not TimerKind.GATEWAY
        or timer.payload is None
    ):
        return arrived(snapshot, {step_id: outcome.memo}, at)
    spec = msgspec.json.decode(timer.payload, type=RequestSpec)
    if snapshot.run.status.ended or timer.attempt >= spec.retries:
        return arrived(snapshot, {step_id: outcome.memo}, at)
    delay = retry_after_ms(outcome.retry_after, at.now_ms)
    if delay is None:
        delay = _backoff(spec, at.settings.retry).delay_ms(timer.attempt, at.rng)
    entry = Entry(Past.ATTEMPT, step_id, "", timer.attempt, begun_ms, at.now_ms, outcome.failure)
    later = replace(timer, due_ms=at.now_ms + delay, attempt=timer.attempt + 1)
    return Change(snapshot.run, timers=(later,), history=(entry,))


def _backoff(spec: RequestSpec, usual: Backoff) -> Backoff:
    """Return the pauses that the step asks for, else the usual ones."""
    first = usual.first if spec.first is None else spec.first
    longest = usual.longest if spec.longest is None else spec.longest
    return Backoff(first, usual.factor, max(first, longest), usual.jitter)
