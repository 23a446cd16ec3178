"""Every row of the table in `transitions.py`, and the rules that hold after every transition."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stephttp._wire.ids import CUT_NAME, FIRST_CUT
from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine import Backoff, Settings
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import CallFailure, FailureKind, Hints, Moment, Origin
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Known, Run, RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.endings import call_failed, cancelled, failed, finished, overdue
from stephttp.engine.rules.transitions import (
    OPS,
    UNSUPPORTED,
    apply_ops,
    arrived,
    fell_due,
)

from .support import EXACT, RUN, A, B, Z, complete, sleep, step, step_error

NOW = 1_800_000_000_000
AT = Moment(NOW, Random(1), Settings(**EXACT))  # type: ignore[arg-type]
SYNC = Snapshot(Run(RUN, RunStatus.SYNC, retries=2))
CALLING = Timer(RESUME, TimerKind.RESUME, NOW - 10)
ASYNC = Snapshot(Run(RUN, RunStatus.ASYNC, retries=2), timers={RESUME: CALLING})
FAILED = {"op": "StepFailed", "id": B, "error": {"name": "E", "message": "m"}}
FINAL = step_error(noRetry=True)
DISCOVERY = {"op": "DiscoveryRequest", "id": "d"}
CHECKPOINT, ANSWER = Origin.CHECKPOINT, Origin.ANSWER
ERROR = {"error": {"name": "E", "message": "m"}}


def ops(*raw: dict[str, Any]) -> list[Op]:
    return msgspec.json.decode(msgspec.json.encode(raw), type=list[Op])


def after(snapshot: Snapshot, change: Change) -> dict[str, Timer]:
    """The timers that are open after a change."""
    if change.ended:
        return {}
    timers = {k: v for k, v in snapshot.timers.items() if k not in change.dropped}
    return timers | {timer.step_id: timer for timer in change.timers}


def delays(snapshot: Snapshot, change: Change) -> dict[str, tuple[str, float]]:
    return {
        key: (timer.kind.value, (timer.due_ms - NOW) / 1000)
        for key, timer in after(snapshot, change).items()
    }


NOW_AGAIN = {RESUME: ("resume", 0.0)}
IN_CALL = {RESUME: ("resume", -0.01)}


@pytest.mark.parametrize(
    ("snapshot", "origin", "reported", "status", "timers", "memos"),
    [
        (SYNC, CHECKPOINT, [step()], "sync", {}, {A: {"data": 1}}),
        (SYNC, CHECKPOINT, [{"op": "StepRun", "id": A}], "sync", {}, {A: {"data": None}}),
        (SYNC, CHECKPOINT, [{"op": "Step", "id": A, "data": [1]}], "sync", {}, {A: [1]}),
        (SYNC, CHECKPOINT, [FAILED], "sync", {}, {B: ERROR}),
        (SYNC, CHECKPOINT, [step_error()], "async", {B: ("retry", 1.0)}, {B: None}),
        (SYNC, CHECKPOINT, [FINAL], "async", NOW_AGAIN, {B: ERROR}),
        (SYNC, CHECKPOINT, [sleep()], "async", {Z: ("sleep", 5.0)}, {Z: None}),
        (SYNC, CHECKPOINT, [DISCOVERY], "async", NOW_AGAIN, {}),
        (SYNC, CHECKPOINT, [{"op": "None", "id": "n"}], "sync", {}, {}),
        (SYNC, CHECKPOINT, [], "sync", {}, {}),
        (SYNC, CHECKPOINT, [step(), complete(1)], "completed", {}, {A: {"data": 1}}),
        (SYNC, CHECKPOINT, [complete(1), sleep()], "completed", {}, {Z: None}),
        (ASYNC, CHECKPOINT, [step()], "async", IN_CALL, {A: {"data": 1}}),
        (ASYNC, CHECKPOINT, [FAILED], "async", IN_CALL, {B: ERROR}),
        (ASYNC, CHECKPOINT, [FINAL], "async", IN_CALL, {B: ERROR}),
        (ASYNC, CHECKPOINT, [complete(1)], "completed", {}, {}),
        (ASYNC, ANSWER, [step()], "async", NOW_AGAIN, {A: {"data": 1}}),
        (ASYNC, ANSWER, [FAILED], "async", NOW_AGAIN, {B: ERROR}),
        (ASYNC, ANSWER, [FINAL], "async", NOW_AGAIN, {B: ERROR}),
        (ASYNC, ANSWER, [step_error()], "async", {B: ("retry", 1.0)}, {B: None}),
        (ASYNC, ANSWER, [sleep()], "async", {Z: ("sleep", 5.0)}, {Z: None}),
        (
            ASYNC,
            ANSWER,
            [step(), sleep()],
            "async",
            {Z: ("sleep", 5.0)},
            {A: {"data": 1}, Z: None},
        ),
        (
            ASYNC,
            ANSWER,
            [FAILED, sleep()],
            "async",
            {Z: ("sleep", 5.0), **NOW_AGAIN},
            {B: ERROR, Z: None},
        ),
        (ASYNC, ANSWER, [step(A, 1), step(A, 2)], "async", NOW_AGAIN, {A: {"data": 1}}),
        (ASYNC, ANSWER, [], "async", NOW_AGAIN, {}),
        (ASYNC, ANSWER, [DISCOVERY], "async", NOW_AGAIN, {}),
        (ASYNC, ANSWER, [{"op": "None", "id": "n"}], "async", NOW_AGAIN, {}),
        (ASYNC, ANSWER, [complete({"status": 200})], "completed", {}, {}),
        (ASYNC, ANSWER, [complete({"status": 500})], "failed", {}, {}),
        (ASYNC, ANSWER, [complete({"status": 200, "error": "x"})], "failed", {}, {}),
        (ASYNC, ANSWER, [{"op": "SyncRunComplete", "id": "c"}], "completed", {}, {}),
    ],
)
def test_what_ops_do(
    snapshot: Snapshot,
    origin: Origin,
    reported: list[dict[str, Any]],
    status: str,
    timers: dict[str, tuple[str, float]],
    memos: dict[str, Any],
) -> None:
    change = apply_ops(snapshot, ops(*reported), origin, AT, Hints(leaves=origin is ANSWER))
    assert change.run.status == status
    assert change.ended == change.run.status.ended
    assert delays(snapshot, change) == timers
    found = {
        s.step_id: None if s.memo is None else msgspec.json.decode(s.memo) for s in change.steps
    }
    assert found == memos


@pytest.mark.parametrize(
    ("reported", "timers"),
    [([FAILED, sleep()], {Z: ("sleep", 5.0)}), ([FAILED], NOW_AGAIN), ([FAILED, complete(1)], {})],
)
def test_our_sdk_has_given_the_failure_of_a_step_to_its_handler(
    reported: list[dict[str, Any]], timers: dict[str, tuple[str, float]]
) -> None:
    change = apply_ops(ASYNC, ops(*reported), ANSWER, AT, Hints(leaves=False))
    assert delays(ASYNC, change) == timers


def known(step_id: str, *timers: Timer, resolved: bool = False, attempts: int = 1) -> Snapshot:
    return Snapshot(
        ASYNC.run,
        {step_id: Known(attempts, resolved)},
        {timer.step_id: timer for timer in (CALLING, *timers)},
    )


def test_the_first_output_wins() -> None:
    change = apply_ops(known(A, resolved=True), ops(step()), CHECKPOINT, AT)
    assert change.steps == ()


def test_attempts_of_a_step_are_counted_until_none_is_left() -> None:
    snapshot = known(B, attempts=2)
    change = apply_ops(snapshot, ops(step_error()), ANSWER, AT)
    # retries=2 means three attempts; this was the third.
    assert delays(snapshot, change) == NOW_AGAIN
    assert change.steps[0].attempts == 3
    snapshot = known(B, attempts=1)
    change = apply_ops(snapshot, ops(step_error()), ANSWER, AT)
    assert delays(snapshot, change) == {B: ("retry", 2.0)}


def test_no_retry_of_the_answer_is_final_for_its_step_errors() -> None:
    change = apply_ops(ASYNC, ops(step_error()), ANSWER, AT, Hints(no_retry=True))
    assert delays(ASYNC, change) == NOW_AGAIN


def test_a_step_error_whose_back_off_is_running_is_a_repetition() -> None:
    timer = Timer(B, TimerKind.RETRY, NOW + 500)
    snapshot = known(B, timer)
    change = apply_ops(snapshot, ops(step_error()), ANSWER, AT)
    assert change.steps == ()
    assert after(snapshot, change) == {B: timer}


def test_a_sleep_that_is_known_is_not_started_again() -> None:
    timer = Timer(Z, TimerKind.SLEEP, NOW + 500)
    snapshot = known(Z, timer)
    change = apply_ops(snapshot, ops(sleep(text="1h")), ANSWER, AT)
    assert after(snapshot, change) == {Z: timer}


@pytest.mark.parametrize(
    "kind",
    [TimerKind.SLEEP, TimerKind.EVENT, TimerKind.SIGNAL, TimerKind.INVOKE, TimerKind.GATEWAY],
)
def test_a_wait_that_became_a_step_was_no_attempt_of_it(kind: TimerKind) -> None:
    snapshot = known(B, Timer(B, kind, NOW + 500), attempts=1)
    change = apply_ops(snapshot, ops(step(B)), ANSWER, AT)
    assert [one.attempts for one in change.steps] == [1]


def test_a_new_output_re_enters_although_an_older_wait_is_open() -> None:
    """An SDK that does one step per answer would otherwise stand still until the wait is over."""
    timer = Timer(Z, TimerKind.SLEEP, NOW + 10**9)
    snapshot = known(Z, timer)
    change = apply_ops(snapshot, ops(step()), ANSWER, AT)
    assert delays(snapshot, change) == {Z: ("sleep", 10**6), **NOW_AGAIN}


def test_a_step_that_succeeds_during_its_back_off_does_not_strand_the_run() -> None:
    snapshot = Snapshot(
        ASYNC.run, {B: Known(1, resolved=False)}, {B: Timer(B, TimerKind.RETRY, NOW + 500)}
    )
    change = apply_ops(snapshot, ops(step(B)), CHECKPOINT, AT)
    assert delays(snapshot, change) == NOW_AGAIN


def test_ops_for_an_ended_run_change_nothing() -> None:
    snapshot = Snapshot(Run(RUN, RunStatus.CANCELLED))
    assert apply_ops(snapshot, ops(step()), ANSWER, AT) == Change(snapshot.run)
    failure = CallFailure(FailureKind.FINAL, "E", "m")
    assert call_failed(snapshot, failure, AT) == Change(snapshot.run)
    assert finished(snapshot, b"", b"", AT) == Change(snapshot.run)


def test_every_opcode_has_a_row() -> None:
    assert set(OPS) == set(OpCode)


@pytest.mark.parametrize("code", UNSUPPORTED)
def test_ops_of_a_later_version_are_refused(code: OpCode) -> None:
    with pytest.raises(Refused, match=rf"^steps\[1\]\.op: '{code}' is not supported"):
        apply_ops(SYNC, ops(step(), {"op": code, "id": "x"}), CHECKPOINT, AT)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ({"op": "StepRun", "id": ""}, "steps[0].id: must not be empty"),
        ({"op": "StepError", "id": B}, "steps[0].error: a StepError needs an error"),
        ({"op": "StepFailed", "id": B}, "steps[0].error: a StepFailed needs an error"),
    ],
)
def test_bad_ops_are_refused(op: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused) as caught:
        apply_ops(SYNC, ops(op), CHECKPOINT, AT)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("op", "complaint"),
    [
        (sleep(text="soon"), "name: 'soon' is not a duration"),
        (sleep(text="367d"), "name: '367d' is more than 366 days ahead"),
        ({"op": "Sleep", "id": Z, "opts": {"duration": 5}}, "opts.duration: expected"),
        ({"op": "Sleep", "id": Z, "opts": {"duration": "5x"}}, "opts.duration: '5x'"),
        ({"op": "Gateway", "id": Z, "opts": {"url": "ftp://x"}}, "opts.url: 'ftp://x' is not an"),
        ({"op": "AIGateway", "id": Z, "opts": {"url": "http://x"}}, "opts.body: expected an"),
    ],
)
def test_what_cannot_be_done_fails_its_step(op: dict[str, Any], complaint: str) -> None:
    change = apply_ops(SYNC, ops(step(A), op | {"name": op.get("name", "z")}), CHECKPOINT, AT)
    memos = {one.step_id: msgspec.json.decode(one.memo or b"null") for one in change.steps}
    assert memos[A] == {"data": 1}
    assert complaint in memos[Z]["error"]["message"]
    assert change.run.status is RunStatus.ASYNC
    assert [timer.kind for timer in change.timers] == [TimerKind.RESUME]


def test_a_run_with_too_many_steps_fails_with_those_that_fit() -> None:
    tight = Moment(NOW, Random(1), Settings(max_steps=1))
    for last in ([], [sleep()], [step_error(B)]):
        change = apply_ops(SYNC, ops(step(A), step(B), *last), CHECKPOINT, tight)
        assert [one.step_id for one in change.steps] == [A]
        assert (change.run.status, change.run.step_count) == (RunStatus.FAILED, 1)
        assert msgspec.json.decode(change.run.error or b"")["name"] == "TooManyStepsError"
        assert not change.timers
    answered = apply_ops(SYNC, ops(step(A), step(B), complete(1)), CHECKPOINT, tight)
    assert answered.run.status is RunStatus.COMPLETED


def test_no_condition_is_compiled_for_a_wait_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []

    def check(text: str, *args: Any) -> Any:
        compiled.append(text)
        return real(text, *args)

    real = expressions.check
    monkeypatch.setattr(expressions, "check", check)
    tight = Moment(NOW, Random(1), Settings(max_steps=2))
    many = [
        {"op": "WaitForEvent", "id": id_, "opts": {"event": "go", "if": f"async.data.n == {n}"}}
        for n, id_ in enumerate("uvwxyz")
    ]
    change = apply_ops(SYNC, ops(*many), CHECKPOINT, tight)
    assert compiled == ["async.data.n == 0", "async.data.n == 1"]
    assert msgspec.json.decode(change.run.error or b"")["name"] == "TooManyStepsError"
    assert len(change.steps) == 2


def test_the_step_that_exceeds_the_state_fails_and_with_it_the_run() -> None:
    tight = Moment(NOW, Random(1), Settings(max_state=40))
    named = {"userland": {"id": "load"}}
    filled = apply_ops(SYNC, ops(step(A, "x" * 9)), CHECKPOINT, tight)
    assert filled.run.state_size == len(b'{"data":"xxxxxxxxx"}') == 20
    snapshot = Snapshot(filled.run, {A: Known(1, True)})
    fits = apply_ops(snapshot, ops(step(B, "y" * 9)), CHECKPOINT, tight)
    assert (fits.run.status, fits.run.state_size) == (RunStatus.SYNC, 40)
    again = apply_ops(snapshot, ops(step(A, "z" * 99)), CHECKPOINT, tight)
    assert (again.run.status, again.steps) == (RunStatus.SYNC, ())
    for last in ([], [sleep()], [step_error(Z)]):
        change = apply_ops(snapshot, ops(step(B, "y" * 10, **named), *last), CHECKPOINT, tight)
        assert change.run.status is RunStatus.FAILED
        assert [one.step_id for one in change.steps][:1] == [B]
        error = msgspec.json.decode(change.run.error or b"")
        assert error["name"] == "StateTooLargeError"
        for part in ("'load'", "21 bytes", "have 41", "keeps 40", "Keep large data elsewhere"):
            assert part in error["message"]
        memo = msgspec.json.decode(change.steps[0].memo or b"")
        assert memo["error"] == {**error, "data": None}
    answered = apply_ops(snapshot, ops(step(B, "y" * 10), complete(1)), CHECKPOINT, tight)
    assert answered.run.status is RunStatus.COMPLETED


@pytest.mark.parametrize("resuming", [False, True])
def test_what_arrives_and_exceeds_the_state_fails_its_step(resuming: bool) -> None:
    tight = Moment(NOW, Random(1), Settings(max_state=40))
    run = Run("r", RunStatus.ASYNC, state_size=20)
    timers = {id_: Timer(id_, TimerKind.EVENT, NOW + 1, key="go") for id_ in (A, B)}
    if resuming:
        timers[RESUME] = Timer(RESUME, TimerKind.RESUME, NOW)
    snapshot = Snapshot(run, {A: Known(1, False), B: Known(1, False)}, timers)
    change = arrived(snapshot, {A: b"x" * 20, B: b"y"}, tight)
    assert change.run.state_size == 40
    assert dict(change.resolved)[A] == b"x" * 20
    failed = msgspec.json.decode(dict(change.resolved)[B])["error"]
    message = (
        f"the result of the step {B!r} has 1 bytes, and with it all results of the run have 41; "
        "the engine keeps 40 (max_state). Keep large data elsewhere, and return where it is"
    )
    assert failed == {"name": "StateTooLargeError", "message": message, "data": None}
    assert change.run.status is RunStatus.ASYNC
    assert {timer.kind for timer in change.timers} == {
        TimerKind.WAKE if resuming else TimerKind.RESUME
    }


def test_limits() -> None:
    tight = Moment(NOW, Random(1), Settings(max_step_output=20))
    with pytest.raises(Refused, match=r"steps\[0\].data: more than 20 bytes"):
        apply_ops(SYNC, ops(step(A, "x" * 20)), CHECKPOINT, tight)


def test_due_timers_become_memos_and_a_call() -> None:
    timers = [
        Timer(A, TimerKind.SLEEP, NOW),
        Timer(B, TimerKind.RETRY, NOW - 1),
        Timer(Z, TimerKind.SLEEP, NOW + 1),
    ]
    snapshot = Snapshot(ASYNC.run, timers={timer.step_id: timer for timer in timers})
    change = fell_due(snapshot, AT)
    assert change.call
    assert change.resolved == ((A, b"null"),)
    # The call has its turn by what fell due first, also after a restart.
    assert delays(snapshot, change) == {Z: ("sleep", 0.001), RESUME: ("resume", -0.001)}


def test_a_wait_that_ends_does_not_cut_a_back_off_short() -> None:
    resume = Timer(RESUME, TimerKind.RESUME, NOW + 500)
    snapshot = Snapshot(ASYNC.run, timers={RESUME: resume, A: Timer(A, TimerKind.SLEEP, NOW)})
    change = fell_due(snapshot, AT)
    assert not change.call
    assert after(snapshot, change) == {RESUME: resume}
    assert change.resolved == ((A, b"null"),)


COUNTED = CallFailure(FailureKind.COUNTED, "E", "m")
TRANSIENT = CallFailure(FailureKind.TRANSIENT, "E", "m")


@pytest.mark.parametrize(
    ("attempt", "unreached", "failure", "expected"),
    [
        (0, 0, COUNTED, (1, 0, 1.0)),
        (1, 5, COUNTED, (2, 0, 2.0)),
        (1, 0, TRANSIENT, (1, 1, 1.0)),
        (1, 9, TRANSIENT, (1, 10, 30.0)),
        (0, 0, CallFailure(FailureKind.COUNTED, "E", "m", retry_after_ms=7000), (1, 0, 7.0)),
    ],
)
def test_failed_calls_are_repeated(
    attempt: int, unreached: int, failure: CallFailure, expected: tuple[int, int, float]
) -> None:
    run = Run(RUN, RunStatus.ASYNC, retries=2, attempt=attempt, unreached=unreached, job_id="j")
    snapshot = Snapshot(run, timers={RESUME: CALLING})
    change = call_failed(snapshot, failure, AT)
    ((_, delay),) = delays(snapshot, change).values()
    assert (change.run.attempt, change.run.unreached, delay) == expected
    assert change.run.job_id == "j"
    assert change.run.last_error == "E: m"


@pytest.mark.parametrize(
    "failure",
    [
        COUNTED,
        CallFailure(FailureKind.FINAL, "E", "m"),
        CallFailure(FailureKind.FINAL, "E", "m", 5),
    ],
)
def test_failed_calls_end_the_run(failure: CallFailure) -> None:
    snapshot = Snapshot(Run(RUN, RunStatus.ASYNC, retries=2, attempt=2), timers={RESUME: CALLING})
    change = call_failed(snapshot, failure, AT)
    assert (change.run.status, change.ended) == (RunStatus.FAILED, True)
    assert change.run.error == b'{"name":"E","message":"m"}'
    assert failed(snapshot, failure, AT).run.status is RunStatus.FAILED


def test_back_off_grows_to_its_cap_and_never_shrinks_by_jitter() -> None:
    backoff = Backoff(first=1, factor=2, longest=60, jitter=0.5)
    rng = Random(3)
    for n, least in enumerate([1, 2, 4, 8, 16, 32, 60, 60]):
        assert least * 1000 <= backoff.delay_ms(n, rng) <= least * 1500
    assert backoff.delay_ms(10**9, rng) <= 90_000


IDS = st.sampled_from([A, B, Z])
WAIT_OPS: dict[str, dict[str, Any]] = {
    "WaitForEvent": {"event": "go", "timeout": "2s"},
    "WaitForSignal": {"signal": "s", "timeout": "2s"},
    "InvokeFunction": {"function_id": "child", "payload": {}, "timeout": "2s"},
}
CHILD = Endpoint("a", "f", "child", "", "", "http://x.test", "POST", "/", "", 0, 2)


def wait(op: str, id_: str, known: bool) -> dict[str, Any]:
    opts = WAIT_OPS[op]
    return {"op": op, "id": id_, "opts": opts if known else {**opts, "function_id": "nobody"}}


ANY_OP = st.one_of(
    st.builds(wait, st.sampled_from(sorted(WAIT_OPS)), IDS, st.booleans()),
    st.builds(step, IDS, st.integers()),
    st.builds(sleep, IDS, st.sampled_from(["", "0s", "1s", "3h", "-5s"])),
    st.builds(step_error, IDS, noRetry=st.booleans()),
    st.builds(lambda id_: {**FAILED, "id": id_}, IDS),
    st.just(DISCOVERY),
    st.just({"op": "None", "id": "n"}),
    st.builds(complete, st.sampled_from([1, {"status": 500}])),
)
HAPPENING = st.one_of(
    st.tuples(st.sampled_from([CHECKPOINT, ANSWER]), st.lists(ANY_OP, max_size=3)),
    st.tuples(st.just("fails"), st.sampled_from(list(FailureKind))),
    st.tuples(st.just("time"), st.integers(0, 20_000)),
    st.tuples(st.just("arrives"), IDS),
    st.tuples(st.just("cancel"), st.just(None)),
)


@given(st.lists(HAPPENING, max_size=25))
def test_a_run_is_never_stranded_and_a_memo_never_changes(story: list[tuple[Any, Any]]) -> None:
    """An async run always has a timer, any other has none; calls happen one at a time."""
    run, now = SYNC.run, NOW
    timers: dict[str, Timer] = {}
    steps: dict[str, Known] = {}
    memos: dict[str, bytes] = {}
    calling = False
    for kind, detail in story:
        snapshot = Snapshot(run, dict(steps), dict(timers), {"child": CHILD})
        at = Moment(now, Random(1), AT.settings)
        if kind == "time":
            now += detail
            if calling:
                continue
            change = fell_due(snapshot, Moment(now, Random(1), AT.settings))
            calling = change.call
        elif kind == "arrives":
            change = arrived(snapshot, {detail: b"1"}, at)
            if change.resolved:
                # However the call ends that may be under way, another one follows.
                kinds = {timer.kind for timer in change.timers}
                assert kinds == {TimerKind.WAKE if RESUME in timers else TimerKind.RESUME}
        elif kind == "cancel":
            change = cancelled(snapshot, at)
        elif kind is CHECKPOINT:
            change = apply_ops(snapshot, ops(*detail), CHECKPOINT, at)
        elif not calling:
            continue
        else:
            calling = False
            change = (
                call_failed(snapshot, CallFailure(detail, "E", "m"), at)
                if kind == "fails"
                else apply_ops(snapshot, ops(*detail), ANSWER, at)
            )
        timers = after(snapshot, change)
        for one in change.steps:
            steps[one.step_id] = Known(one.attempts, one.memo is not None)
            if one.memo is not None:
                assert one.step_id not in memos
                memos[one.step_id] = one.memo
        for step_id, memo in change.resolved:
            assert step_id not in memos
            steps[step_id] = Known(steps[step_id].attempts, resolved=True)
            memos[step_id] = memo
        assert change.run.step_count == len(steps)
        run = change.run
        assert bool(timers) == (run.status is RunStatus.ASYNC)
        if calling and not run.status.ended:
            assert RESUME in timers


@pytest.mark.parametrize("snapshot", [SYNC, ASYNC], ids=["sync", "async"])
def test_a_run_that_is_overdue_fails(snapshot: Snapshot) -> None:
    at = Moment(NOW, Random(1), Settings(run_deadline=90.5))
    change = overdue(snapshot, at)
    assert (change.run.status, change.ended, change.run.ended_ms) == (RunStatus.FAILED, True, NOW)
    message = b'{"name":"DeadlineError","message":"the run did not end within 90.5 s"}'
    assert change.run.error == message
    assert overdue(Snapshot(change.run), at) == Change(change.run)


def test_what_the_handler_cut_off_is_waited_for_no_more_and_can_be_asked_for_again() -> None:
    def entry(step_id: str, **more: Any) -> dict[str, Any]:
        data = {"step": step_id, **more}
        userland = {"id": CUT_NAME}
        return {"op": "StepRun", "id": FIRST_CUT, "userland": userland, "data": data}

    waits = {B: Timer(B, TimerKind.EVENT, NOW + 1000, key="e"), RESUME: CALLING}
    snapshot = replace(ASYNC, steps={B: Known(1, resolved=False)}, timers=waits)
    change = apply_ops(snapshot, ops(entry(B), sleep(Z, "1s")), ANSWER, AT)
    assert delays(snapshot, change) == {Z: ("sleep", 1)}
    change = apply_ops(snapshot, ops(entry(B, void=True)), CHECKPOINT, AT)
    assert B in after(snapshot, change)
    change = apply_ops(snapshot, ops(entry(RESUME)), CHECKPOINT, AT)
    assert RESUME in after(snapshot, change)
    dropped = replace(snapshot, timers={RESUME: CALLING})
    change = apply_ops(dropped, ops(sleep(B, "2s")), ANSWER, AT)
    assert delays(dropped, change) == {B: ("sleep", 2)}
