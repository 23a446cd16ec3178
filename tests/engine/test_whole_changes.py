"""Whole changes: every field of what ops write, wait for, and leave to people."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from stephttp._wire.ids import CAPSULE, COMPLETE, CUT_NAME
from stephttp._wire.opcodes import Op
from stephttp.engine import Backoff, Settings
from stephttp.engine.model.change import Change, Entry, Past, RunWarning
from stephttp.engine.model.inputs import Hints, Moment, Origin
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import HIDDEN, Known, Run, RunStatus, Snapshot, Step
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id
from stephttp.engine.rules.transitions import apply_ops, arrived, fell_due

from .support import EXACT, RUN, A, B, Z, complete, sleep, step, step_error

NOW = 1_800_000_000_000
NOW_NS = NOW * 1_000_000
CHECKPOINT, ANSWER = Origin.CHECKPOINT, Origin.ANSWER
SYNC = Run(RUN, RunStatus.SYNC, retries=2)
ASYNC = Run(
    RUN, RunStatus.ASYNC, retries=2, request_version=1, job_id="old", attempt=1, unreached=3,
    idle=2, step_count=4, state_size=50, last_error="E: before",
)  # fmt: skip
CALL = Timer(RESUME, TimerKind.RESUME, NOW - 10, payload=b'{"broken":2}')
AGAIN = Timer(RESUME, TimerKind.RESUME, NOW)
CALLED = Snapshot(ASYNC, timers={RESUME: CALL})
ERROR = {"name": "E", "message": "m"}
WARNING = {"kind": "k", "message": "careful", "step_id": "s"}


def at(**settings: Any) -> Moment:
    return Moment(NOW, Random(1), Settings(**{**EXACT, **settings}))


def job(drawn: int = 0) -> str:
    """The id of a new job, after so many delays were drawn by lot."""
    rng = Random(1)
    for _ in range(drawn):
        rng.random()
    return new_job_id(rng)


def apply(
    snapshot: Snapshot,
    origin: Origin,
    *raw: dict[str, Any],
    moment: Moment | None = None,
    hints: Hints | None = None,
    target: str = RESUME,
) -> Change:
    ops = msgspec.json.decode(msgspec.json.encode(raw), type=list[Op])
    return apply_ops(snapshot, ops, origin, moment or at(), hints, target)


def written(id_: str, seq: int, op: str, memo: bytes | None, attempts: int, **more: Any) -> Step:
    fields = {"userland_id": None, "userland_index": 0, "name": None, **more}
    return Step(
        step_id=id_, seq=seq, op=op, memo=memo, attempts=attempts,
        **{"started_ns": NOW_NS, "duration_ns": 0, **fields},
    )  # fmt: skip


def called_again(run: Run, drawn: int = 0, **changed: Any) -> Run:
    fresh = {"job_id": job(drawn), "attempt": 0, "unreached": 0, "last_error": None, "idle": 0}
    return replace(run, **{**fresh, **changed})


NAMED = {
    "name": "short", "displayName": "Load it", "timing": {"a": 5e9, "b": 7},
    "userland": {"id": "load", "index": 2, "branch": "b" * 70},
    "opts": {"auth_key": "secret", "n": 1},
}  # fmt: skip
LOADED: dict[str, Any] = {
    "userland_id": "load", "userland_index": 2, "name": "Load it", "started_ns": 5_000_000_000,
    "duration_ns": 7, "opts": b'{"n":1}', "branch": "b" * 64,
}  # fmt: skip


def test_a_step_is_written_with_all_that_people_look_at() -> None:
    change = apply(Snapshot(SYNC), CHECKPOINT, {**step(A, [1]), **NAMED})
    assert change == Change(
        replace(SYNC, step_count=1, state_size=12),
        steps=(written(A, 1, "StepRun", b'{"data":[1]}', 1, **LOADED),),
    )
    bare = {"op": "Step", "id": A, "userland": {"id": "x"}, "name": "x"}
    assert apply(Snapshot(SYNC), CHECKPOINT, bare) == Change(
        replace(SYNC, step_count=1, state_size=4),
        steps=(written(A, 1, "Step", b"null", 1, name="x", userland_id="x"),),
    )


@pytest.mark.parametrize(
    ("timing", "kept"),
    [
        ({"a": 2.0**63, "b": 2.0**63}, (0, 0)),
        ({"a": 2**63 - 1, "b": 2**63 - 1}, (2**63 - 1, 2**63 - 1)),
        ({"a": -1, "b": -0.5}, (0, 0)),
        ({"a": 1.9, "b": 0}, (1, 0)),
        ({}, (0, 0)),
    ],
)
def test_times_that_the_database_cannot_hold_are_none(
    timing: dict[str, float], kept: tuple[int, int]
) -> None:
    (saved,) = apply(Snapshot(SYNC), CHECKPOINT, step(A, timing=timing)).steps
    assert (saved.started_ns, saved.duration_ns) == kept


def test_steps_are_numbered_in_their_order_and_those_of_the_sdk_are_not() -> None:
    own = {"op": "StepRun", "id": Z, "userland": {"id": f"{CUT_NAME}"}, "data": {}}
    capsule = {"op": "StepRun", "id": CAPSULE, "data": {"x": "y" * 99}}
    reported = [capsule, step_error(B), own, step(A), step(B)]
    change = apply(CALLED, CHECKPOINT, *reported, moment=at(max_step_output=99))
    found = {one.step_id: (one.seq, one.attempts) for one in change.steps}
    assert found == {CAPSULE: (HIDDEN, 1), B: (5, 2), Z: (HIDDEN, 1), A: (6, 1)}
    assert list(found) == [CAPSULE, B, Z, A]
    assert change.run.step_count == 6
    sizes = [len(one.memo or b"") for one in change.steps]
    assert change.run.state_size == 50 + sum(sizes)
    # The repetition of B is over before it began.
    assert B not in [timer.step_id for timer in change.timers]
    assert change.dropped == (B,)


def test_a_known_step_is_not_counted_again_and_its_wait_was_no_attempt() -> None:
    waits = {A: Timer(A, TimerKind.RETRY, NOW + 5), B: Timer(B, TimerKind.SLEEP, NOW + 5)}
    known = {id_: Known(3, resolved=False) for id_ in (A, B, Z)}
    change = apply(Snapshot(ASYNC, known, waits), CHECKPOINT, step(A), step(B), step(Z))
    assert [(one.step_id, one.seq, one.attempts) for one in change.steps] == [
        (A, 4, 4), (B, 4, 1), (Z, 4, 4),
    ]  # fmt: skip
    assert change.run.step_count == 4
    assert change.dropped == (A, B)


def test_what_a_step_may_return_has_a_limit() -> None:
    moment = at(max_step_output=12)
    assert apply(Snapshot(SYNC), CHECKPOINT, step(A, [1]), moment=moment).steps
    with pytest.raises(Refused) as refused:
        apply(CALLED, ANSWER, step(A), step(B, [12]), moment=moment)
    assert str(refused.value) == "answer[1].data: more than 12 bytes"
    assert refused.value.status == 413
    bare = {"op": "Step", "id": B, "data": "x" * 11}
    for failed in ({**step_error(B), "op": "StepFailed"}, step_error(B, noRetry=True), bare):
        with pytest.raises(Refused, match=r"^steps\[0\]\.data: more than 12 bytes$"):
            apply(CALLED, CHECKPOINT, failed, moment=moment)


def test_a_step_that_fails_is_tried_again_and_people_see_why() -> None:
    failing = {
        **step_error(B, stack="s"),
        **NAMED,
        "timing": {"a": NOW_NS - 5_000_000_001, "b": 5_000_000_900_000},
    }
    kept = {**LOADED, "started_ns": NOW_NS - 5_000_000_001, "duration_ns": 5_000_000_900_000}
    error = b'{"name":"E","message":"m","stack":"s"}'
    change = apply(CALLED, ANSWER, failing)
    assert change == Change(
        replace(ASYNC, attempt=0, unreached=0, idle=0, step_count=5, last_error=None),
        steps=(written(B, 5, "StepError", None, 1, error=error, **kept),),
        timers=(Timer(B, TimerKind.RETRY, NOW + 1000),),
        dropped=(RESUME,),
        history=(Entry(Past.ATTEMPT, B, "", 0, NOW - 5001, NOW + 4_994_999, error),),
    )
    again = Snapshot(ASYNC, {B: Known(1, resolved=False)}, {RESUME: CALL})
    change = apply(again, CHECKPOINT, step_error(B))
    assert change.steps[0].attempts == 2
    assert change.timers == (Timer(B, TimerKind.RETRY, NOW + 2000), replace(CALL, payload=None))
    shown = b'{"name":"E","message":"m"}'
    assert change.history == (Entry(Past.ATTEMPT, B, "", 1, NOW, NOW, shown),)


def test_a_run_that_is_full_says_why() -> None:
    retry = Timer(B, TimerKind.RETRY, NOW + 5)
    known = Snapshot(ASYNC, {B: Known(2, resolved=False)}, {RESUME: CALL, B: retry})
    change = apply(known, CHECKPOINT, step(B, "x" * 9), moment=at(max_state=69))
    assert [one.attempts for one in change.steps] == [3]
    message = "the run has 4 steps, no more fit"
    error = msgspec.json.encode({"name": "TooManyStepsError", "message": message})
    full = replace(ASYNC, status=RunStatus.FAILED, ended_ms=NOW, last_error=None, error=error)
    change = apply(known, CHECKPOINT, step(A), moment=at(max_steps=4))
    assert change == Change(full, ended=True)
    assert apply(known, CHECKPOINT, step(A), moment=at(max_steps=5)).run.step_count == 5


@pytest.mark.parametrize(
    ("opts", "hints", "delay"),
    [
        ({}, Hints(retry_after_ms=9000), 9.0),
        ({"retry_after": "7"}, Hints(retry_after_ms=9000), 7.0),
        ({"retry_after": "Fri, 15 Jan 2027 08:00:07 GMT"}, Hints(), 7.0),
        ({"retries": 1}, Hints(), 1.0),
        ({"retries": 0}, Hints(), None),
        ({}, Hints(no_retry=True), None),
    ],
)
def test_who_says_when_a_failed_step_is_tried_again(
    opts: dict[str, Any], hints: Hints, delay: float | None
) -> None:
    change = apply(Snapshot(SYNC), CHECKPOINT, {**step_error(B), "opts": opts}, hints=hints)
    due = AGAIN if delay is None else Timer(B, TimerKind.RETRY, NOW + round(delay * 1000))
    assert change.timers == (due,)
    assert (change.steps[0].memo is None) == (delay is not None)
    with pytest.raises(Refused, match=r"^steps\[0\]\.opts\.retries: expected a number"):
        apply(Snapshot(SYNC), CHECKPOINT, {**step_error(B), "opts": {"retries": -1}})


@pytest.mark.parametrize("kind", [TimerKind.PLANNED, TimerKind.RACING])
def test_a_planned_step_that_fails_keeps_its_job(kind: TimerKind) -> None:
    timer = Timer(B, kind, NOW, job_id="j", attempt=1, unreached=2, payload=b'{"broken":1}')
    snapshot = Snapshot(ASYNC, {B: Known(1, resolved=False)}, {B: timer})
    change = apply(snapshot, ANSWER, step_error(B), target=B)
    assert change.timers == (Timer(B, kind, NOW + 2000, job_id="j", attempt=2),)
    assert change.run.attempt == 1


@pytest.mark.parametrize("kind", [TimerKind.RETRY, TimerKind.SLEEP, TimerKind.EVENT])
@pytest.mark.parametrize("op", [step_error(B), {"op": "StepPlanned", "id": B}, sleep(B)])
def test_what_a_step_waits_for_is_not_begun_anew(kind: TimerKind, op: dict[str, Any]) -> None:
    wait = Timer(B, kind, NOW + 5, key="k")
    snapshot = Snapshot(ASYNC, {B: Known(1, resolved=False)}, {RESUME: CALL, B: wait})
    change = apply(snapshot, ANSWER, op)
    assert change == Change(
        replace(ASYNC, attempt=0, unreached=0, last_error=None), dropped=(RESUME,)
    )
    # Nor is the endpoint called for another step that is over.
    change = apply(snapshot, ANSWER, step(A), op)
    assert (change.timers, change.dropped) == ((), (RESUME,))


@pytest.mark.parametrize("op", [step_error(B), {"op": "StepPlanned", "id": B}, sleep(B), step(B)])
def test_a_step_that_is_over_stays_so(op: dict[str, Any]) -> None:
    snapshot = Snapshot(ASYNC, {B: Known(1, resolved=True)}, {RESUME: CALL})
    change = apply(snapshot, CHECKPOINT, op)
    assert change == Change(ASYNC)
    # An answer that holds no more than that brings nothing: the third in a row.
    idle = called_again(ASYNC, drawn=1, idle=3)
    later = replace(AGAIN, due_ms=NOW + 2000)
    assert apply(snapshot, ANSWER, op) == Change(idle, timers=(later,))


@pytest.mark.parametrize(("opts", "kind"), [({}, "planned"), ({"parallelMode": "race"}, "racing")])
def test_a_planned_step_gets_a_job_of_its_own(opts: dict[str, str], kind: str) -> None:
    op = {"op": "StepPlanned", "id": A, "opts": opts, "timing": {"a": 1, "b": 2}}
    run = replace(ASYNC, attempt=0, unreached=0, idle=0, step_count=5, last_error=None)
    planned = written(A, 5, "StepPlanned", None, 0)
    assert apply(CALLED, ANSWER, op) == Change(
        run,
        steps=(replace(planned, opts=msgspec.json.encode(opts) if opts else None),),
        timers=(Timer(A, TimerKind(kind), NOW, job_id=job()),),
        dropped=(RESUME,),
    )
    known = replace(CALLED, steps={A: Known(3, resolved=False)})
    assert apply(known, ANSWER, op).steps[0].attempts == 3


def test_a_sleep_says_nothing_of_when_it_ran() -> None:
    change = apply(Snapshot(SYNC), CHECKPOINT, {**sleep(Z), "timing": {"a": 1, "b": 2}})
    assert change == Change(
        replace(SYNC, status=RunStatus.ASYNC, step_count=1),
        steps=(written(Z, 1, "Sleep", None, 1, name="5s", userland_id="z"),),
        timers=(Timer(Z, TimerKind.SLEEP, NOW + 5000),),
    )


def test_the_end_of_a_run_keeps_what_came_with_it() -> None:
    data = {"status": 200, "headers": {}, "body": "hi", "duration": 77}
    reported = [step_error(B), {**complete(data), "opts": {"warnings": [WARNING]}}, complete(1)]
    change = apply(CALLED, ANSWER, *reported)
    output = b'{"status":200,"headers":{},"body":"hi","duration":77}'
    error = b'{"name":"E","message":"m"}'
    assert change == Change(
        replace(
            ASYNC, status=RunStatus.COMPLETED, ended_ms=NOW, took_ns=77, last_error=None,
            step_count=5, output=output,
        ),
        steps=(written(B, 5, "StepError", None, 1, error=error),),
        ended=True,
        history=(Entry(Past.ATTEMPT, B, "", 0, NOW, NOW, error),),
        warnings=(RunWarning("k", "s", NOW, "careful"),),
    )  # fmt: skip


@pytest.mark.parametrize("origin", Origin)
def test_only_a_checkpoint_hides_an_answer_in_a_body(origin: Origin) -> None:
    inner = {"status": 500, "headers": {}, "body": "no"}
    data = {"status": 200, "headers": {}, "body": msgspec.json.encode({"data": inner}).decode()}
    output, status, error = msgspec.json.encode(data), RunStatus.COMPLETED, None
    if origin is CHECKPOINT:
        output, status = msgspec.json.encode(inner), RunStatus.FAILED
        error = b'{"name":"HTTPError","message":"the handler answered with status 500"}'
    assert apply(CALLED, origin, complete(data)) == Change(
        replace(ASYNC, status=status, ended_ms=NOW, last_error=None, output=output, error=error),
        ended=True,
    )


@pytest.mark.parametrize("op", ["StepError", "StepFailed"])
def test_the_handlers_own_failure_in_the_first_request(op: str) -> None:
    failure = {"op": op, "id": COMPLETE, "error": {"name": "E", "message": "m", "stack": "s"}}
    change = apply(Snapshot(SYNC), CHECKPOINT, failure)
    if op == "StepFailed":
        error = b'{"name":"E","message":"m"}'
        assert change == Change(
            replace(SYNC, status=RunStatus.FAILED, ended_ms=NOW, error=error), ended=True
        )
        return
    shown = b'{"name":"E","message":"m","stack":"s"}'
    assert change == Change(
        replace(SYNC, status=RunStatus.ASYNC, job_id=job(1), attempt=1, last_error="E: m"),
        timers=(Timer(RESUME, TimerKind.RESUME, NOW + 1000),),
        history=(Entry(Past.REQUEST, RESUME, "", 0, NOW, NOW, shown),),
    )
    unnamed = apply(Snapshot(SYNC), CHECKPOINT, {"op": op, "id": COMPLETE, "error": {}})
    assert unnamed.run.last_error == "Error: the handler failed"
    for final in ({**failure, "error": {"noRetry": True}}, {"op": "StepFailed", "id": COMPLETE}):
        ended = apply(Snapshot(SYNC), CHECKPOINT, final)
        assert ended.run.error == b'{"name":"Error","message":"the handler failed"}'
    once = Snapshot(replace(SYNC, retries=0))
    assert apply(once, CHECKPOINT, failure).run.status is RunStatus.FAILED
    # In an answer it is a step like any other.
    assert apply(CALLED, ANSWER, failure).steps[0].step_id == COMPLETE


@pytest.mark.parametrize(("version", "kept"), [(None, 1), (0, 0), (2, 2)])
def test_an_answer_says_what_its_sdk_speaks(version: int | None, kept: int) -> None:
    change = apply(CALLED, ANSWER, sleep(), hints=Hints(request_version=version))
    assert change.run.request_version == kept
    assert apply(CALLED, CHECKPOINT, hints=Hints(request_version=2)).run == ASYNC


def test_answers_that_bring_nothing_come_later_each_time_and_are_counted() -> None:
    patient = at(retry=Backoff(first=3, jitter=0), max_idle_answers=2)
    fresh = replace(CALLED, run=replace(ASYNC, idle=0))
    for idle, delay in ((0, 0), (1, 3000)):
        run = replace(ASYNC, idle=idle)
        change = apply(replace(fresh, run=run), ANSWER, moment=replace_rng(patient))
        later = replace(AGAIN, due_ms=NOW + delay)
        expected = called_again(run, drawn=min(idle, 1), idle=idle + 1)
        assert change == Change(expected, timers=(later,))
    ended = apply(replace(fresh, run=replace(ASYNC, idle=2)), ANSWER, moment=patient)
    message = b"the endpoint answered 2 times without any progress"
    assert ended == Change(
        replace(
            ASYNC, status=RunStatus.FAILED, ended_ms=NOW, attempt=0, unreached=0,
            last_error=None, error=b'{"name":"NoProgressError","message":"' + message + b'"}',
        ),
        ended=True,
    )  # fmt: skip


def replace_rng(moment: Moment) -> Moment:
    return Moment(moment.now_ms, Random(1), moment.settings)


def test_a_discovery_in_an_answer_goes_on_in_spite_of_a_wait() -> None:
    nap = Timer(Z, TimerKind.SLEEP, NOW + 5000)
    run = replace(ASYNC, idle=0)
    snapshot = Snapshot(run, {Z: Known(1, resolved=False)}, {RESUME: CALL, Z: nap})
    assert apply(snapshot, ANSWER, {"op": "DiscoveryRequest", "id": "d"}) == Change(
        called_again(run, idle=1), timers=(AGAIN,)
    )
    assert apply(snapshot, ANSWER, sleep(Z)) == Change(
        replace(run, attempt=0, unreached=0, last_error=None), dropped=(RESUME,)
    )


def test_warnings_are_kept_beside_what_else_comes() -> None:
    op = {"op": "None", "id": "n", "opts": {"warnings": [WARNING]}}
    warnings = (RunWarning("k", "s", NOW, "careful"),)
    assert apply(CALLED, CHECKPOINT, op) == Change(ASYNC, warnings=warnings)


def test_a_checkpoint_in_a_call_leaves_it_alone() -> None:
    change = apply(CALLED, CHECKPOINT, {"op": "DiscoveryRequest", "id": "d"})
    assert change == Change(ASYNC)
    alone = Snapshot(ASYNC, timers={Z: Timer(Z, TimerKind.SLEEP, NOW + 5000)})
    change = apply(alone, CHECKPOINT, {"op": "DiscoveryRequest", "id": "d"})
    assert change.timers == (AGAIN,)
    assert change.run == replace(ASYNC, job_id=job(), attempt=0, unreached=0)


@pytest.mark.parametrize("calling", [False, True])
def test_what_arrives_or_falls_due_leads_to_a_call(calling: bool) -> None:
    wait, nap = Timer(A, TimerKind.EVENT, NOW), Timer(Z, TimerKind.SLEEP, NOW - 5)
    timers = {A: wait, Z: nap, **({RESUME: CALL} if calling else {})}
    snapshot = Snapshot(ASYNC, timers=timers)
    fresh = replace(ASYNC, job_id=job(), attempt=0, unreached=0, state_size=53)
    got = arrived(snapshot, {A: b"[1]", B: b"1"}, at())
    if calling:
        wake = Timer(A, TimerKind.WAKE, NOW)
        run = replace(ASYNC, state_size=53)
        assert got == Change(run, resolved=((A, b"[1]"),), timers=(wake,))
    else:
        assert got == Change(fresh, resolved=((A, b"[1]"),), timers=(AGAIN,), dropped=(A,))
    due = fell_due(snapshot, at())
    assert due == Change(
        ASYNC if calling else replace(fresh, state_size=50),
        resolved=((A, b"null"), (Z, b"null")),
        timers=() if calling else (replace(AGAIN, due_ms=NOW - 5),),
        dropped=(A, Z),
        call=True,
    )
