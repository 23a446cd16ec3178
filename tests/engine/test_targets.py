"""What follows the answer to a call for one step: a re-entry, another such call, or nothing."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from stephttp._wire.opcodes import Op
from stephttp.engine import Settings
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Hints, Moment, Origin
from stephttp.engine.model.run import Known, Run, RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id
from stephttp.engine.rules.transitions import apply_ops

from .support import EXACT, RUN, A, B, Z, sleep, step

NOW = 1_800_000_000_000
ASYNC = Run(
    RUN, RunStatus.ASYNC, retries=2, request_version=1, job_id="old", attempt=1, unreached=3,
    idle=2, step_count=4, last_error="E: before",
)  # fmt: skip
CALL = Timer(RESUME, TimerKind.RESUME, NOW - 10)
MINE = Timer(A, TimerKind.PLANNED, NOW - 5, job_id="a", attempt=1)
OTHER = Timer(B, TimerKind.PLANNED, NOW - 5, job_id="b")
NAP = Timer(Z, TimerKind.SLEEP, NOW + 5000)
RACING = TimerKind.RACING


def answered(timers: list[Timer], *raw: dict[str, Any], run: Run = ASYNC) -> Change:
    """The change that the answer to the call for A makes."""
    known = {timer.step_id: Known(1, resolved=False) for timer in timers if timer is not CALL}
    snapshot = Snapshot(run, known, {timer.step_id: timer for timer in timers})
    ops = msgspec.json.decode(msgspec.json.encode(raw), type=list[Op])
    at = Moment(NOW, Random(1), Settings(**EXACT))  # type: ignore[arg-type]
    return apply_ops(snapshot, ops, Origin.ANSWER, at, Hints(request_version=2), target=A)


DONE = replace(ASYNC, idle=0, request_version=2, last_error=None, state_size=10)
CALLED = replace(DONE, job_id=new_job_id(Random(1)), attempt=0, unreached=0)
RESUMED, WOKEN = Timer(RESUME, TimerKind.RESUME, NOW), Timer(A, TimerKind.WAKE, NOW)


@pytest.mark.parametrize(
    ("timers", "run", "opened"),
    [
        ([MINE], CALLED, (RESUMED,)),
        ([MINE, NAP], CALLED, (RESUMED,)),
        ([MINE, OTHER], DONE, ()),
        ([MINE, replace(OTHER, kind=RACING)], DONE, ()),
        ([replace(MINE, kind=RACING), OTHER], CALLED, (RESUMED,)),
        ([MINE, CALL], DONE, (WOKEN,)),
        ([replace(MINE, kind=RACING), OTHER, CALL], DONE, (WOKEN,)),
        ([MINE, OTHER, CALL], DONE, ()),
    ],
)
def test_a_planned_step_that_ends(timers: list[Timer], run: Run, opened: tuple[Timer, ...]) -> None:
    change = answered(timers, step(A))
    dropped = () if WOKEN in opened else (A,)
    assert replace(change, steps=()) == Change(run, timers=opened, dropped=dropped)
    assert [(one.step_id, one.attempts) for one in change.steps] == [(A, 2)]


@pytest.mark.parametrize("idle", [0, 1])
def test_an_answer_without_the_step_is_followed_by_another_call_for_it(idle: int) -> None:
    change = answered([MINE, OTHER], run=replace(ASYNC, idle=idle))
    rng = Random(1)
    delay = 0
    if idle:
        delay = 1000
        rng.random()
    again = Timer(A, TimerKind.PLANNED, NOW + delay, job_id=new_job_id(rng))
    run = replace(ASYNC, idle=idle + 1, request_version=2, last_error=None)
    assert change == Change(run, timers=(again,))


def test_an_answer_with_another_step_starts_the_counts_of_the_others_again() -> None:
    broken = b'{"broken":1}'
    mine, other = replace(MINE, payload=broken), replace(OTHER, payload=broken)
    change = answered([mine, other], step(Z), run=replace(ASYNC, idle=1))
    again = Timer(A, TimerKind.PLANNED, NOW, job_id=new_job_id(Random(1)))
    assert change.timers == (replace(other, payload=None), again)
    assert change.run.idle == 1


def test_a_step_that_fails_again_and_again_without_saying_so_ends_the_run() -> None:
    change = answered([MINE], run=replace(ASYNC, idle=10))
    error = b"the endpoint answered 10 times without any progress"
    assert change == Change(
        replace(
            ASYNC, status=RunStatus.FAILED, ended_ms=NOW, idle=10, request_version=2,
            last_error=None, error=b'{"name":"NoProgressError","message":"%s"}' % error,
        ),
        ended=True,
    )  # fmt: skip


def test_a_planned_step_that_becomes_a_wait_keeps_its_job() -> None:
    # The step is known, and waits for its call.
    change = answered([MINE, OTHER], sleep(A))
    assert change.timers[0].kind is TimerKind.PLANNED
    change = answered([OTHER], sleep(A))
    expected = Timer(A, TimerKind.SLEEP, NOW + 5000)
    assert change.timers == (expected,)
