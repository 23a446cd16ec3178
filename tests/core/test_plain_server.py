"""The rules for a server that is not ours, by their numbers in docs/protocol.md 13."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from stephttp._core.plain_marks import MARKER, Mark, Marks, take_marks
from stephttp._core.plain_opening import opening, storable
from stephttp._core.plain_server import (
    Mode,
    PlainCall,
    answer_at_once,
    call_of,
    nothing,
    report,
)
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, SUSPEND
from stephttp._core.waits import sleep, wait_for_event, wait_for_signal
from stephttp._wire.ids import hash_step_id
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode
from tests.core.test_run import SECOND

RUN = "01M81NT13NCCP5V7EQ9MPKSWMT"
X, Y = hash_step_id("x"), hash_step_id("y")
VALUE = Raw(b'{"data":1}')


def memos_of(*marks: Mark, **values: Raw) -> dict[str, Raw]:
    """What a server answers after it was sent these marks and results."""
    results = {hash_step_id(name): value for name, value in values.items()}
    return stored(*(mark.op() for mark in marks)) | results


def stored(*ops: Op) -> dict[str, Raw]:
    """What a server answers after it was sent these ops, the first one of each id."""
    return {op.id: Raw(b'{"data":' + bytes(op.data) + b"}") for op in reversed(ops)}  # type: ignore[arg-type]


def called(target: str | None = None, *marks: Mark, **values: Raw) -> tuple[PlainCall, Run]:
    memos = memos_of(*marks, **values)
    call = call_of(memos, target)
    return call, Run(RUN, memos, target=call.run_target)


def kinds(ops: list[Op]) -> list[str]:
    return [op.op.value for op in ops]


def names(ops: list[Op]) -> list[str]:
    return [(op.name or "").replace(X, "x").replace(Y, "y") for op in ops]


def run_step(run: Run, step_id: str) -> None:
    step = run.begin(step_id)
    assert step.verdict is EXECUTE
    run.complete(step, b"1", 0, 1)


def fail_step(run: Run, step_id: str, retries: int = 0) -> None:
    run.fail(run.begin(step_id, retries), ErrorInfo("Error", "no"), 0, 1)


SOLO, OWN, END = Mark("solo", X, 1, title="x"), Mark("own", X), Mark("end", X)
MISSED = Mark("missed", X, 1)
X2 = Marks(missed={X: 1}).plan_of(X)
"""The id under which `x` is planned once it was missed."""


@pytest.mark.parametrize(
    ("target", "marks", "ended", "mode", "section"),
    [
        (None, (), False, Mode.INLINE, ""),
        (None, (MARKER,), False, Mode.DISCOVER, ""),
        (None, (MARKER, SOLO), False, Mode.PLAN, X),
        (None, (MARKER, SOLO), True, Mode.DISCOVER, ""),
        (None, (MARKER, SOLO, MISSED), False, Mode.DISCOVER, ""),
        (None, (MARKER, SOLO, OWN), True, Mode.NOTHING, X),
        (None, (MARKER, SOLO, OWN), False, Mode.NOTHING, X),
        (None, (MARKER, SOLO, OWN, END), True, Mode.DISCOVER, ""),
        (X, (), False, Mode.TARGET, ""),
        (X, (MARKER,), False, Mode.TARGET, ""),
        (X, (MARKER,), True, Mode.AGAIN, ""),
        (X, (MARKER, MISSED), False, Mode.AGAIN, ""),
        (X2, (MARKER, MISSED), False, Mode.TARGET, ""),
        (X2, (MARKER, MISSED), True, Mode.AGAIN, ""),
        (X2, (MARKER, MISSED, Mark("missed", X, 2)), False, Mode.AGAIN, ""),
        (X, (MARKER, SOLO), False, Mode.INLINE, X),
        (X, (MARKER, SOLO, OWN), True, Mode.INLINE, X),
        (X, (MARKER, SOLO, OWN, MISSED), False, Mode.INLINE, X),
        (X, (MARKER, SOLO, OWN, END), True, Mode.AGAIN, ""),
        (X, (MARKER, SOLO, OWN, MISSED, END), False, Mode.AGAIN, ""),
        (X2, (MARKER, SOLO, OWN, MISSED, END, Mark("solo", X2, 2)), False, Mode.INLINE, X2),
        (X, (MARKER, Mark("planned", X), SOLO), False, Mode.INLINE, X),
        (X, (MARKER, Mark("planned", Y), SOLO), False, Mode.TARGET, ""),
        (X, (MARKER, Mark("planned", Y), Mark("missed", Y, 1), SOLO), False, Mode.INLINE, X),
        (X, (MARKER, Mark("solo", Y, 1)), False, Mode.PASS, ""),
        (X, (MARKER, Mark("solo", Y, 1), Mark("own", Y)), False, Mode.PASS, ""),
        (X, (MARKER, Mark("solo", Y, 1), Mark("own", Y), Mark("end", Y)), False, Mode.TARGET, ""),
    ],
)
def test_what_a_call_does(
    target: str | None, marks: tuple[Mark, ...], ended: bool, mode: Mode, section: str
) -> None:
    call, run = called(target, *marks, **({"x": VALUE} if ended else {}))
    assert (call.mode, call.section.step if call.section else "") == (mode, section)
    assert call.step == (None if target is None else X)
    assert run.earlier.memos.keys() == ({X} if ended else set()), "the marks are taken out"


@pytest.mark.parametrize(
    ("target", "marks", "answer"),
    [
        (None, (MARKER, SOLO, OWN), ["None"]),
        (None, (MARKER, SOLO), ["StepPlanned"]),
        (X, (MARKER, MISSED), ["DiscoveryRequest"]),
        (X, (MARKER,), None),
        (X, (MARKER, Mark("solo", Y, 1)), None),
        (None, (MARKER,), None),
    ],
)
def test_what_a_call_answers_without_its_handler(
    target: str | None, marks: tuple[Mark, ...], answer: list[str] | None
) -> None:
    for races in (False, True):
        ops = answer_at_once(call_of(memos_of(*marks), target, races=races), "1")
        assert (ops and kinds(ops)) == answer
        if ops and answer != ["None"]:
            assert [op.opts for op in ops] == [{"parallelMode": "race"} if races else None]


def test_p2_two_open_things_mark_a_run_before_they_are_opened() -> None:
    call, run = called()
    run_step(run, "x")
    run.wait(sleep("nap", SECOND))
    run.wait(sleep("other", SECOND))
    said = report(call, run, "1", parked=False)
    assert said is not None
    assert names(said.stored) == ["x", "stephttp:parallel"]
    assert kinds(said.answer) == ["Sleep", "Sleep"]


def test_p2_one_open_thing_does_not() -> None:
    call, run = called()
    run_step(run, "x")
    run.wait(sleep("nap", SECOND))
    said = report(call, run, "1", parked=False)
    assert said is not None
    assert (names(said.stored), kinds(said.answer)) == (["x"], ["Sleep"])


def test_p2a_a_wait_for_an_event_follows_the_first_checkpoint() -> None:
    run = Run(RUN)
    run_step(run, "x")
    run.wait(wait_for_event("go", "go", SECOND, None))
    first, then = opening(run.unreported.take_all())
    assert (kinds(first), kinds(then)) == (["StepRun"], ["WaitForEvent"])


def test_p3_a_marked_discovery_runs_nothing_and_reports_all_that_is_open_each_time() -> None:
    for _ in range(2):
        call, run = called(None, MARKER, y=VALUE)
        assert run.begin("x").verdict is SUSPEND
        assert run.begin("y").memo is not None
        assert run.begin("z").verdict is SUSPEND
        for wait in (
            sleep("nap", SECOND),
            wait_for_event("go", "go", SECOND, None),
            wait_for_signal("signal", "s", SECOND, "fail"),
        ):
            assert run.wait(wait).verdict is SUSPEND
        said = report(call, run, "1", parked=True)
        assert said is not None
        found = [(op.op, op.userland.id if op.userland else "") for op in said.answer]
        assert found == [
            (OpCode.STEP_PLANNED, "x"),
            (OpCode.STEP_PLANNED, "z"),
            (OpCode.SLEEP, "nap"),
            (OpCode.WAIT_FOR_EVENT, "go"),
            (OpCode.STEP_PLANNED, "signal"),
        ]
        signal = hash_step_id("signal")
        assert {op.name for op in said.stored} == {
            f"stephttp:planned:{step}" for step in (X, hash_step_id("z"), signal)
        }
        assert said.answer[0].opts is None
        assert (said.answer[0].name, said.answer[0].display_name) == ("x", "x")


@pytest.mark.parametrize(("generation", "failing", "before"), [(1, [], 0), (3, [], 2), (1, [X], 1)])
def test_p4_attempts_of_a_planned_step_count_by_themselves(
    generation: int, failing: list[str], before: int
) -> None:
    call, _ = called(X, MARKER)
    assert call.failed_before(generation, failing, unsure=True) == before


def test_p5_a_planned_gateway_is_reported_by_its_own_call() -> None:
    call, run = called(hash_step_id("signal"), MARKER)
    run.begin("x")
    run.wait(sleep("nap", SECOND))
    run.wait(wait_for_signal("signal", "s", SECOND, "fail"))
    said = report(call, run, "1", parked=False)
    assert said is not None
    assert (said.stored, kinds(said.answer)) == ([], ["WaitForSignal"])


@pytest.mark.parametrize(("retries", "answer"), [(0, "StepFailed"), (1, "StepError")])
def test_p5_a_step_that_fails_is_only_in_the_answer(retries: int, answer: str) -> None:
    call, run = called(X, MARKER)
    fail_step(run, "x", retries)
    said = report(call, run, "1", parked=False)
    assert said is not None
    assert (said.stored, kinds(said.answer)) == ([], [answer])


def test_p10_a_planned_step_is_stored_and_then_answered() -> None:
    call, run = called(X, MARKER)
    assert run.begin("y").verdict is SUSPEND
    run_step(run, "x")
    said = report(call, run, "1", parked=False)
    assert said is not None
    assert (names(said.stored), names(said.answer)) == (["x"], ["x"])


class TestMissedSteps:
    """A planned step that is not in the handler of the process which is asked for it."""

    @pytest.mark.parametrize(
        ("missed", "answer", "pause"),
        [(0, "DiscoveryRequest", None), (1, "Sleep", "1s"), (4, "Sleep", "8s"),
         (19, "Sleep", "300s")],
    )  # fmt: skip
    def test_its_plan_is_used_up_and_the_handler_called_again(
        self, missed: int, answer: str, pause: str | None
    ) -> None:
        marks = [Mark("missed", X, missed)] if missed else []
        call, run = called(Marks(missed={X: missed}).plan_of(X), MARKER, *marks)
        assert run.begin("y").verdict is SUSPEND
        said = report(call, run, "1", parked=False)
        assert said is not None
        assert names(said.stored) == [f"stephttp:missed:x:{missed + 1}"]
        (op,) = said.answer
        assert (op.op.value, op.opts and op.opts["duration"]) == (answer, pause)

    def test_the_next_discovery_plans_it_under_another_id(self) -> None:
        call, run = called(None, MARKER, MISSED)
        run.begin("x")
        run.begin("y")
        said = report(call, run, "1", parked=False)
        assert said is not None
        assert [op.id for op in said.answer] == [X2, Y]
        assert names(said.stored) == [f"stephttp:planned:{X2}", "stephttp:planned:y"]
        call, run = called(X2, MARKER, MISSED)
        run_step(run, "x")
        said = report(call, run, "1", parked=False)
        assert said is not None
        assert ([op.id for op in said.stored], [op.id for op in said.answer]) == ([X], [X])

    def test_its_failures_count_for_the_new_plan(self) -> None:
        call, run = called(X, MARKER)
        run.earlier.note_failures(call.failed_before(3, [], unsure=False), {})
        run.begin("y")
        said = report(call, run, "1", parked=False)
        assert said is not None
        assert names(said.stored) == ["stephttp:missed:x:1", "stephttp:failed:x:2"]
        call, _ = called(X2, MARKER, MISSED, Mark("failed", X, 2))
        assert call.failed_before(1, [], unsure=False) == 2

    def test_it_is_given_up_at_last(self) -> None:
        missed = Mark("missed", X, 20)
        call, run = called(Marks(missed={X: 20}).plan_of(X), MARKER, missed)
        run.begin("y")
        assert report(call, run, "1", parked=False) is None

    def test_one_beside_a_section_runs_nothing(self) -> None:
        call, run = called(X, MARKER, Mark("solo", Y, 1))
        assert run.begin("x").verdict is SUSPEND
        said = report(call, run, "1", parked=False)
        assert said is not None
        assert (names(said.stored), kinds(said.answer)) == (
            ["stephttp:missed:x:1"], ["DiscoveryRequest"]
        )  # fmt: skip

    def test_a_section_whose_first_step_is_missing_says_so_before_its_end(self) -> None:
        call, run = called(X, MARKER, SOLO)
        assert call.first_op is not None
        run.unreported.add(call.first_op)
        run_step(run, "y")
        run.wait(sleep("nap", SECOND))
        said = report(call, run, "1", parked=True)
        assert said is not None
        assert names(said.stored) == [
            "stephttp:own:x", "y", "stephttp:missed:x:1", "stephttp:end:x"
        ]  # fmt: skip
        assert kinds(said.answer) == ["Sleep"]


def test_p9_failures_before_the_marker_count_for_the_planned_step() -> None:
    call, run = called()
    run.earlier.note_failures(1, {})
    fail_step(run, "x", 5)
    run.wait(sleep("nap", SECOND))
    said = report(call, run, "1", parked=False)
    assert said is not None
    assert names(said.stored) == ["stephttp:parallel", "stephttp:failed:x:2"]
    assert kinds(said.answer) == ["StepError", "Sleep"], "which keeps the pause"
    call, _ = called(X, MARKER, Mark("failed", X, 1), Mark("failed", X, 2))
    assert call.failed_before(1, [X], unsure=True) == 2


def test_p9_failed_steps_alone_are_one_call_and_mark_nothing() -> None:
    call, run = called()
    fail_step(run, "x", 5)
    fail_step(run, "y", 5)
    said = report(call, run, "1", parked=False)
    assert said is not None
    assert (said.stored, kinds(said.answer)) == ([], ["StepError", "StepError"])


def test_p11_nothing_is_an_op_with_an_id_that_is_new() -> None:
    one, other = nothing("1"), nothing("2")
    assert (one.op, len(one.id), one.id != other.id) == (OpCode.NONE, 40, True)
    call, run = called(None, MARKER)
    said = report(call, run, "1", parked=True)
    assert said is not None
    assert kinds(said.answer) == ["DiscoveryRequest"], "or nothing would wake the run"


def test_p1_a_run_that_began_at_version_2_races() -> None:
    memos = memos_of(MARKER)
    call = call_of(memos, None, races=True)
    run = Run(RUN, memos, target=call.run_target)
    run.begin("x")
    run.wait(sleep("nap", SECOND))
    said = report(call, run, "1", parked=True)
    assert said is not None
    assert [op.opts and op.opts["parallelMode"] for op in said.answer] == ["race", "race"]


def test_p1_the_result_of_its_planned_step_does_too() -> None:
    memos = memos_of(MARKER)
    call = call_of(memos, X, races=True)
    run = Run(RUN, memos, target=call.run_target)
    run_step(run, "x")
    said = report(call, run, "1", parked=False)
    assert said is not None
    assert [(op.id, op.opts and op.opts["parallelMode"]) for op in said.answer] == [(X, "race")]


def test_r3_one_failed_step_leaves_the_first_request_and_the_run_is_marked() -> None:
    run = Run(RUN)
    fail_step(run, "x", 2)
    fail_step(run, "y", 2)
    first, then = opening(run.unreported.take_all())
    assert (names(first), then) == (["stephttp:parallel", "x"], [])


def test_s1_s2_signals_and_gateways_leave_the_first_request_in_another_form() -> None:
    gateway = Op(OpCode.GATEWAY, X, "x", "x", {"url": "http://a"})
    signal = Op(OpCode.WAIT_FOR_SIGNAL, Y, "s", "y", {"signal": "s", "conflict": "fail"})
    taken_over = Op(OpCode.WAIT_FOR_SIGNAL, Y, "s", "y", {"signal": "s", "conflict": "replace"})
    assert kinds(opening([gateway]).first) == ["StepPlanned"]
    assert opening([gateway]).first[0].opts is None
    assert kinds(opening([signal]).first) == ["DiscoveryRequest"]
    assert kinds(opening([taken_over]).first) == ["WaitForSignal"]
    both = opening([gateway, signal]).first
    assert kinds(both) == ["StepRun", "StepRun", "StepPlanned", "DiscoveryRequest"]
    assert names(both[:2]) == ["stephttp:parallel", "stephttp:planned:x"]


def test_a_failed_step_that_is_stored_leads_to_no_call() -> None:
    failed = Op(OpCode.STEP_FAILED, X, "x", error=ErrorInfo("Error", "no"))
    (kept,) = storable([failed])
    assert kept.op is OpCode.STEP_RUN
    memos = {kept.id: Raw(b'{"data":' + bytes(kept.data) + b"}")}  # type: ignore[arg-type]
    take_marks(memos)
    run = Run(RUN, memos)
    memo = run.begin("x").memo
    assert memo is not None
    assert memo.error == ErrorInfo("Error", "no")
    complete = Op(OpCode.RUN_COMPLETE, Y)
    assert storable([failed, complete]) == [failed, complete], "nobody calls an ended run"


class TestSoloSections:
    """Section 4."""

    def test_a_discovery_begins_one_where_one_step_is_all(self) -> None:
        call, run = called(None, MARKER)
        run.begin("x")
        said = report(call, run, "1", parked=True)
        assert said is not None
        assert names(said.stored) == ["stephttp:planned:x", "stephttp:solo:1"]
        assert kinds(said.answer) == ["StepPlanned"]
        assert take_marks(stored(*said.stored)).solo == {1: SOLO}

    def test_its_first_step_is_planned_again_by_each_discovery(self) -> None:
        """The answer that plans it first may be lost."""
        call, _ = called(None, MARKER, SOLO)
        (op,) = answer_at_once(call, "1") or []
        assert (op.op, op.id, op.name) == (OpCode.STEP_PLANNED, X, "x")

    def test_of_two_that_are_noted_at_once_the_first_one_counts(self) -> None:
        memos = memos_of(MARKER, SOLO, Mark("solo", Y, 1))
        assert call_of(dict(memos), X).mode is Mode.INLINE
        assert call_of(dict(memos), Y).mode is Mode.PASS

    @pytest.mark.parametrize(
        "more", ["another step", "a wait", "own code", "a signal alone", "of another release"]
    )
    def test_and_not_where_anything_else_may_be_open(self, more: str) -> None:
        planned = [Mark("planned", Y)] if more == "of another release" else []
        call, run = called(None, MARKER, *planned)
        if more == "a signal alone":
            run.wait(wait_for_signal("signal", "s", SECOND, "fail"))
        else:
            run.begin("x")
        if more == "another step":
            run.begin("y")
        elif more == "a wait":
            run.wait(sleep("nap", SECOND))
        said = report(call, run, "1", parked=more != "own code")
        assert said is not None
        assert not take_marks(stored(*said.stored)).solo

    def test_its_owner_says_so_before_its_first_result_and_ends_it_with_its_last(self) -> None:
        call, run = called(X, MARKER, SOLO)
        assert call.first_op is not None
        run.unreported.add(call.first_op)
        run_step(run, "x")
        run_step(run, "y")
        run.wait(sleep("nap", SECOND))
        said = report(call, run, "1", parked=True)
        assert said is not None
        assert names(said.stored) == ["stephttp:own:x", "x", "y", "stephttp:end:x"]
        assert kinds(said.answer) == ["Sleep"]

    def test_it_lasts_while_one_of_its_steps_is_to_be_tried_again(self) -> None:
        call, run = called(X, MARKER, SOLO, OWN, x=VALUE)
        assert (call.section, call.first_op) == (SOLO, None)
        run.begin("x")
        fail_step(run, "y", 3)
        said = report(call, run, "1", parked=True)
        assert said is not None
        assert (said.stored, kinds(said.answer)) == ([], ["StepError"])


@given(st.dictionaries(st.text("ab", min_size=40, max_size=40), st.text(), max_size=4), st.text())
def test_results_of_users_are_no_marks(results: dict[str, str], kind: str) -> None:
    mark: dict[str, Any] = {"data": {"stephttp:mark": kind, "step": X}}
    memos = {key: Raw(msgspec.json.encode({"data": text})) for key, text in results.items()}
    memos[Y] = Raw(msgspec.json.encode(mark))
    before = dict(memos)
    assert not take_marks(memos).parallel
    assert memos == before
