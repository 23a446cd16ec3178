"""Ops of steps that are worked on beside the run's own call: planned steps, HTTP requests. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from stephttp._wire.opcodes import Op
from stephttp.engine.model.timer import Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id
from stephttp.engine.rules.change_builder import ChangeBuilder
from stephttp.engine.rules.gateway_request import read_gateway


def step_planned(builder: ChangeBuilder, op: Op, field: str) -> None:
    """Call the endpoint for one step (`StepPlanned`)."""
    if builder.settled(op):
        return
    builder.has_waits = True
    if op.id in builder.timers:
        return
    known = builder.known.get(op.id)
    builder.write(replace(op, timing=None), known.attempts if known else 0, None)
    racing = (op.opts or {}).get("parallelMode") == "race"
    kind = TimerKind.RACING if racing else TimerKind.PLANNED
    builder.start(Timer(op.id, kind, builder.at.now_ms, job_id=new_job_id(builder.at.rng)))


def gateway(builder: ChangeBuilder, op: Op, field: str) -> None:
    """Make an HTTP request for a step (`Gateway`, `AIGateway`)."""
    run, now_ms = builder.run, builder.at.now_ms
    spec = read_gateway(op, field, run.run_id, run.retries, now_ms)
    builder.wait(op, Timer(op.id, TimerKind.GATEWAY, now_ms, payload=spec))
