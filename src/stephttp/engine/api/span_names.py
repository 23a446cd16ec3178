"""Inngest's names for kinds and states of steps and for what metadata is about, in GraphQL and in
version 2 of its API."""

from __future__ import annotations

from stephttp._wire.opcodes import OpCode
from stephttp.engine.model.run_metadata import NO_ATTEMPT, RunMetadata
from stephttp.engine.reading import RunDetail, RunState, StepDetail

_WAITING = {
    OpCode.SLEEP: "SLEEP",
    OpCode.WAIT_FOR_EVENT: "WAIT_FOR_EVENT",
    OpCode.WAIT_FOR_SIGNAL: "WAIT_FOR_SIGNAL",
    OpCode.INVOKE_FUNCTION: "INVOKE",
    OpCode.AI_GATEWAY: "AI_GATEWAY",
}
STEP_OPS = ("RUN", *_WAITING.values())
SPAN_STATUSES = ("RUNNING", "WAITING", "COMPLETED", "FAILED", "CANCELLED")


def run_status(run: RunDetail) -> str:
    """Return one of `SPAN_STATUSES` for a run as a whole."""
    row = run.row
    return "WAITING" if row.state is RunState.WAITING else row.status.wire.upper()


def step_op(step: StepDetail) -> str:
    """Return one of `STEP_OPS`."""
    return _WAITING.get(OpCode(step.op), "RUN")


def step_status(step: StepDetail) -> str:
    """Return one of `SPAN_STATUSES`: a step that will be tried again is running, one that waits for
    a time or for something else is waiting."""
    if step.state != "waiting":
        return step.state.upper()
    return "WAITING" if OpCode(step.op) in _WAITING else "RUNNING"


def metadata_of(run: RunDetail, step_id: str = "") -> list[RunMetadata]:
    """Return what was attached to a step of a run; without one, what was to the run as a whole.

    What was attached to a span of OpenTelemetry belongs to neither.
    """
    targets = ((one, one.target) for one in run.metadata)
    return [one for one, target in targets if target.step_id == step_id and not target.span_id]


def metadata_scope(one: RunMetadata) -> str:
    """Say what metadata is about."""
    if not one.target.step_id:
        return "run"
    return "step" if one.target.attempt == NO_ATTEMPT else "step_attempt"
