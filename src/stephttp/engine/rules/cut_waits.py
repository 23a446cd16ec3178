"""Waits that people end at once ("resume"). Pure."""

from __future__ import annotations

from msgspec.structs import replace

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import RunStatus, Snapshot
from stephttp.engine.model.timer import WAITS


def hurried(snapshot: Snapshot, step_id: str | None, at: Moment) -> Change:
    """Make due what a run waits for, because a person does not want it to wait.

    Args:
        step_id: the step whose wait ends; `None`: all that wait for a time only.

    Raises:
        Refused: nothing waits so.
    """
    run = snapshot.run
    if run.status is not RunStatus.ASYNC:
        raise Refused(f"run_id: run {run.run_id} does not wait ({run.status.value})", 409)
    timers = [
        timer
        for timer in snapshot.timers.values()
        if timer.due_ms > at.now_ms
        and (timer.kind not in WAITS if step_id is None else timer.step_id == step_id)
    ]
    if not timers:
        what = "it" if step_id is None else f"its step {step_id[:64]!r}"
        raise Refused(f"run_id: {what} waits for nothing that could be over now", 409)
    return Change(run, timers=tuple(replace(timer, due_ms=at.now_ms) for timer in timers))
