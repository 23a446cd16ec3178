"""How calls and runs end, as whole values; and the counts of calls that got no answer."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from stephttp.engine import Backoff, Settings
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import CallFailure, FailureKind, Moment
from stephttp.engine.model.run import Run, RunStatus, Snapshot
from stephttp.engine.model.timer import LEASE, RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id
from stephttp.engine.rules.endings import call_failed, cancelled, failed, finished, overdue
from stephttp.engine.rules.transitions import fell_due

NOW = 1_800_000_000_000
RULES = Settings(
    retry=Backoff(2, 3, 100, 0), unreachable=Backoff(5, 2, 60, 0), lease_probation=1.5,
    run_deadline=90.5, foreign_answer_timeout=100,
)  # fmt: skip
RUN = Run(
    "r", RunStatus.ASYNC, retries=2, job_id="j", attempt=1, unreached=1, idle=3, step_count=4,
    last_error="E: before",
)  # fmt: skip
CALL = Timer(RESUME, TimerKind.RESUME, NOW - 10, payload=b'{"broken":1}')
PLANNED = Timer("s", TimerKind.PLANNED, NOW - 10, job_id="k", attempt=1, unreached=2)
SNAPSHOT = Snapshot(RUN, timers={RESUME: CALL, "s": PLANNED})
KIND = FailureKind


def at() -> Moment:
    return Moment(NOW, Random(1), RULES)


def failure(kind: FailureKind = KIND.COUNTED, **more: Any) -> CallFailure:
    return CallFailure(kind, "E", "now", **more)


@pytest.mark.parametrize(
    ("failed_by", "attempt", "unreached", "seconds", "payload"),
    [
        (failure(), 2, 0, 6, None),
        (failure(retry_after_ms=7000), 2, 0, 7, None),
        (failure(KIND.TRANSIENT), 1, 2, 10, b'{"broken":1}'),
        (failure(KIND.TRANSIENT, retry_after_ms=7000), 1, 2, 7, b'{"broken":1}'),
        (failure(KIND.BROKEN), 1, 2, 10, b'{"broken":2}'),
        (failure(KIND.BROKEN, times=3), 1, 2, 10, b'{"broken":4}'),
        (failure(KIND.FOREIGN), 1, 2, 10,
         b'{"broken":1,"since_ms":1800000000000,"name":"E","message":"now"}'),
    ],
)  # fmt: skip
def test_a_failed_call_is_made_again(
    failed_by: CallFailure, attempt: int, unreached: int, seconds: int, payload: bytes | None
) -> None:
    due_ms = NOW + seconds * 1000
    assert call_failed(SNAPSHOT, failed_by, at()) == Change(
        replace(RUN, attempt=attempt, unreached=unreached, last_error="E: now"),
        timers=(replace(CALL, due_ms=due_ms, payload=payload),),
    )


@pytest.mark.parametrize(
    ("failed_by", "attempt", "unreached", "seconds", "payload"),
    [
        (failure(), 2, 0, 6, None),
        (failure(KIND.TRANSIENT), 1, 3, 20, None),
        (failure(KIND.BROKEN), 1, 3, 20, b'{"broken":1}'),
    ],
)
def test_a_failed_call_for_a_step_has_a_count_of_its_own(
    failed_by: CallFailure, attempt: int, unreached: int, seconds: int, payload: bytes | None
) -> None:
    later = replace(
        PLANNED, due_ms=NOW + seconds * 1000, attempt=attempt, unreached=unreached, payload=payload
    )
    change = call_failed(SNAPSHOT, failed_by, at(), "s")
    assert change == Change(replace(RUN, last_error="E: now"), timers=(later,))


def test_a_call_that_has_lost_its_timer_gets_another() -> None:
    again = Timer(RESUME, TimerKind.RESUME, NOW + 6000)
    change = call_failed(Snapshot(RUN), failure(), at())
    assert change.timers == (again,)
    change = call_failed(Snapshot(RUN), failure(), at(), "s")
    assert change.timers == (replace(again, due_ms=NOW + 2000, attempt=1),)


def ended(status: RunStatus, **more: Any) -> Change:
    return Change(replace(RUN, status=status, ended_ms=NOW, **more), ended=True)


@pytest.mark.parametrize(
    ("attempt", "failed_by"),
    [(2, failure(output=b"[1]")), (0, failure(KIND.FINAL, output=b"[1]", retry_after_ms=7000))],
)
def test_the_last_failure_of_the_handler_ends_its_run(attempt: int, failed_by: CallFailure) -> None:
    snapshot = replace(SNAPSHOT, run=replace(RUN, attempt=attempt))
    error = b'{"name":"E","message":"now"}'
    assert call_failed(snapshot, failed_by, at()) == ended(
        RunStatus.FAILED, attempt=attempt, last_error="E: now", error=error, output=b"[1]"
    )
    assert failed(SNAPSHOT, failed_by, at()) == ended(RunStatus.FAILED, error=error, output=b"[1]")


BROKE = (
    "5 calls in a row broke after their connection had been accepted, or their answers were lost, "
    "and no step was recorded between them; it seems that this run ends the process that works "
    "on it, or that something in front of the application answers in its place. The last one: "
    "E: now"
)


@pytest.mark.parametrize(
    ("payload", "kind", "name", "message"),
    [
        (b'{"broken":4}', KIND.BROKEN, "BrokenCallError", BROKE),
        (b'{"since_ms":%d,"name":"N","message":"first"}' % (NOW - 100_000),
         KIND.FOREIGN, "N", "first"),
    ],
)  # fmt: skip
def test_calls_in_vain_end_the_run(
    payload: bytes, kind: FailureKind, name: str, message: str
) -> None:
    snapshot = replace(SNAPSHOT, timers={RESUME: replace(CALL, payload=payload)})
    error = b'{"name":"%s","message":"%s"}' % (name.encode(), message.encode())
    expected = ended(RunStatus.FAILED, last_error="E: now", error=error)
    assert call_failed(snapshot, failure(kind, output=b"[1]"), at()) == expected


def test_something_else_that_answers_is_borne_for_a_while() -> None:
    payload = b'{"since_ms":%d,"name":"N","message":"first"}' % (NOW - 99_999)
    call = replace(CALL, payload=payload)
    change = call_failed(replace(SNAPSHOT, timers={RESUME: call}), failure(KIND.FOREIGN), at())
    assert change.timers == (replace(call, due_ms=NOW + 10_000),)


def test_other_ends() -> None:
    done = finished(SNAPSHOT, b"out", b"head", at())
    assert done == ended(RunStatus.COMPLETED, last_error=None, output=b"out", head=b"head")
    assert cancelled(SNAPSHOT, at()) == ended(RunStatus.CANCELLED, last_error=None)
    assert cancelled(SNAPSHOT, at(), "late") == ended(RunStatus.CANCELLED, last_error="late")
    message = b'{"name":"DeadlineError","message":"the run did not end within 90.5 s"}'
    assert overdue(SNAPSHOT, at()) == ended(RunStatus.FAILED, error=message)


def test_a_lease_that_runs_out_is_followed_by_a_call() -> None:
    run = replace(RUN, status=RunStatus.SYNC)
    lease = Timer(LEASE, TimerKind.LEASE, NOW, unreached=2)
    orphan = replace(lease, kind=TimerKind.ORPHAN, due_ms=NOW + 1500)

    def after(timer: Timer) -> Change:
        return fell_due(Snapshot(run, timers={LEASE: timer}), at())

    assert after(replace(lease, due_ms=NOW + 1)) == Change(run)
    assert after(lease) == Change(run, timers=(orphan,))
    taken = replace(RUN, job_id=new_job_id(Random(1)), attempt=0, unreached=0)
    resume = Timer(RESUME, TimerKind.RESUME, NOW)
    expected = Change(taken, timers=(resume,), dropped=(LEASE,), call=True)
    assert after(replace(orphan, due_ms=NOW)) == expected


def test_what_falls_due_separately_or_later_leads_to_no_call() -> None:
    timers = [
        PLANNED,
        replace(PLANNED, step_id="t", kind=TimerKind.RACING),
        Timer("g", TimerKind.GATEWAY, NOW - 1),
        Timer("n", TimerKind.SLEEP, NOW + 1),
    ]
    snapshot = Snapshot(RUN, timers={timer.step_id: timer for timer in timers})
    assert fell_due(snapshot, at()) == Change(RUN)


def test_what_was_seen_by_no_call_leads_to_one() -> None:
    timers = {"w": Timer("w", TimerKind.WAKE, NOW - 3), "b": Timer("b", TimerKind.RETRY, NOW)}
    run = replace(RUN, job_id=new_job_id(Random(1)), attempt=0, unreached=0)
    assert fell_due(Snapshot(RUN, timers=timers), at()) == Change(
        run,
        seen=("w",),
        timers=(Timer(RESUME, TimerKind.RESUME, NOW - 3),),
        dropped=("w", "b"),
        call=True,
    )
