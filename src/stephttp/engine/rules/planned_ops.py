"""Steps that are worked on beside the run's own call: planned ones, and HTTP requests. Pure."""

from __future__ import annotations

import msgspec

from stephttp._wire.opcodes import Op
from stephttp.engine.model.run import RESUME, Call, Snapshot, Timer, TimerKind
from stephttp.engine.rules.change_builder import Draft, new_job_id
from stephttp.engine.rules.gateway_request import read_gateway


def step_planned(draft: Draft, op: Op, field: str) -> None:
    """`StepPlanned`: the endpoint is to be called for this step."""
    if draft.settled(op):
        return
    draft.waits = True
    if op.id in draft.timers:
        return
    known = draft.known.get(op.id)
    draft.write(
        msgspec.structs.replace(op, timing=None), field, known.attempts if known else 0, None
    )
    racing = (op.opts or {}).get("parallelMode") == "race"
    kind = TimerKind.RACING if racing else TimerKind.PLANNED
    draft.start(Timer(op.id, kind, draft.at.now_ms, job_id=new_job_id(draft.at.rng)))


def gateway(draft: Draft, op: Op, field: str) -> None:
    """`Gateway`, `AIGateway`: an HTTP request is to be made for this step."""
    spec = read_gateway(op, field)
    draft.wait(op, field, Timer(op.id, TimerKind.GATEWAY, draft.at.now_ms, payload=spec))


def is_stale(snapshot: Snapshot, call: Call) -> bool:
    """Whether the run has moved on since `call` began, so that its outcome is no news."""
    if snapshot.run.status.ended:
        return True
    timer = snapshot.timers.get(call.step_id)
    if timer is None:
        return True
    run = snapshot.run
    current = (run.job_id, run.attempt) if call.step_id == RESUME else (timer.job_id, timer.attempt)
    return current != (call.job_id, call.attempt)


def is_superseded(snapshot: Snapshot, job_id: str, generation: int) -> bool:
    """Whether the run has begun a later generation of a job, counted from 1."""
    jobs = {snapshot.run.job_id: snapshot.run.attempt}
    jobs |= {timer.job_id: timer.attempt for timer in snapshot.timers.values() if timer.job_id}
    return generation < jobs.get(job_id, 0) + 1
