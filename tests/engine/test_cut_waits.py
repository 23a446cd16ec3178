"""Waits that people cut short: what becomes due, and what is refused."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from stephttp.engine import Settings
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Run, RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.rules.cut_waits import hurried

NOW = 1_800_000_000_000
AT = Moment(NOW, Random(1), Settings())
RUN = Run("r", RunStatus.ASYNC)
NAP = Timer("nap", TimerKind.SLEEP, NOW + 1)
RETRY = Timer("retry", TimerKind.RETRY, NOW + 9)
EVENT = Timer("event", TimerKind.EVENT, NOW + 9, key="e")
OVER = Timer("over", TimerKind.SLEEP, NOW)
CALL = Timer(RESUME, TimerKind.RESUME, NOW + 9)


@pytest.mark.parametrize(
    ("timers", "step_id", "due"),
    [
        ([NAP, RETRY, EVENT, OVER, CALL], None, [NAP, RETRY, CALL]),
        ([NAP, RETRY, EVENT, OVER], "event", [EVENT]),
        ([NAP, EVENT], "nap", [NAP]),
    ],
)
def test_what_becomes_due(timers: list[Timer], step_id: str | None, due: list[Timer]) -> None:
    snapshot = Snapshot(RUN, timers={timer.step_id: timer for timer in timers})
    moved = tuple(replace(timer, due_ms=NOW) for timer in due)
    assert hurried(snapshot, step_id, AT) == Change(RUN, timers=moved)


@pytest.mark.parametrize("status", [one for one in RunStatus if one is not RunStatus.ASYNC])
def test_runs_that_do_not_wait(status: RunStatus) -> None:
    with pytest.raises(Refused) as refused:
        hurried(Snapshot(Run("r", status), timers={"nap": NAP}), None, AT)
    assert str(refused.value) == f"run_id: run r does not wait ({status.value})"
    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("step_id", "what"),
    [
        (None, "it"), ("over", "its step 'over'"), ("nap", "its step 'nap'"),
        ("x" * 65, f"its step '{'x' * 64}'"),
    ],
)  # fmt: skip
def test_steps_that_do_not_wait(step_id: str | None, what: str) -> None:
    snapshot = Snapshot(RUN, timers={"event": EVENT, "over": OVER})
    with pytest.raises(Refused) as refused:
        hurried(snapshot, step_id, AT)
    assert str(refused.value) == f"run_id: {what} waits for nothing that could be over now"
    assert refused.value.status == 409
