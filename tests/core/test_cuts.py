"""Steps that were cut off: what is recorded of them, and what later calls make of it."""

from collections.abc import Iterable

import msgspec
import pytest
from msgspec import Raw

from stephttp._core import waits
from stephttp._core.cuts import CutSteps
from stephttp._core.run import Run
from stephttp._core.steps import CutTimes, Step, Verdict
from stephttp._wire.cut_entries import Cut, entry_id, step_cut_off
from stephttp._wire.ids import CAPSULE, CUT_NAME, FIRST_CUT, hash_step_id
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Timing
from stephttp._wire.stored_state import KnownStep
from tests.core.test_run import SECOND

TIMES = CutTimes(started_ns=20, ended_ns=50, call_ns=10)
A, B, C = map(hash_step_id, "abc")


def remembered(ops: Iterable[Op]) -> dict[str, Raw]:
    """What a server makes of ops."""
    return {
        op.id: Raw(b'{"data":' + bytes(op.data) + b"}") for op in ops if isinstance(op.data, Raw)
    }


def cut_of(op: Op) -> Cut:
    assert isinstance(op.data, Raw)
    return msgspec.json.decode(op.data, type=Cut)


def cut_off(run: Run, step_id: str = "a") -> Step:
    step = run.begin(step_id)
    run.cut_off(step, TIMES)
    return step


def test_a_step_is_recorded_as_cut_off_once_the_handler_comes_to_another() -> None:
    run = Run("R", {})
    cut_off(run)
    assert run.settled
    assert run.take_finished() == []
    run.complete(run.begin("b"), b"1", 0, 0)
    entry, other = run.take_finished()
    assert (entry.id, other.id) == (FIRST_CUT, B)
    assert entry.op is OpCode.STEP_RUN
    assert entry.timing == Timing(20, 30)
    assert cut_of(entry) == Cut(A, "a", after_ns=40)
    assert step_cut_off(entry) == A
    assert step_cut_off(other) is None
    again = Run("R", remembered([entry, other]))
    assert again.begin("a").verdict is Verdict.CUT
    assert again.begin("b").verdict is Verdict.MEMOIZED
    assert again.begin("c").verdict is Verdict.EXECUTE


def test_entries_are_numbered_across_calls() -> None:
    run = Run("R", {})
    cut_off(run)
    run.wait(waits.sleep("nap", SECOND))
    run.unwind()
    first = run.unreported.take_all()[0]
    run = Run("R", remembered([first]))
    assert run.begin("a").verdict is Verdict.CUT
    cut_off(run)
    cut_off(run, "b")
    run.begin("c")
    assert [op.id for op in run.take_finished()] == [entry_id(1), entry_id(2)]


def test_what_decides_that_the_handler_has_cut_a_step_off() -> None:
    def another_step(run: Run) -> None:
        run.begin("b")

    def a_wait(run: Run) -> None:
        run.wait(waits.sleep("nap", SECOND))

    def end(run: Run) -> None:
        run.end()

    def nothing(run: Run) -> None:
        pass

    def others(run: Run) -> None:
        run.forget_cuts()
        run.end()

    found = {}
    for after in (another_step, a_wait, end, nothing, others):
        run = Run("R", {})
        cut_off(run)
        after(run)
        found[after.__name__] = len(run.take_finished())
    assert found == {"another_step": 1, "a_wait": 1, "end": 1, "nothing": 0, "others": 0}


def test_a_run_that_ends_in_its_first_call_says_nothing_of_it() -> None:
    run = Run("R")
    cut_off(run)
    run.complete(run.begin("b"), b"1", 0, 0)
    run.end()
    assert [op.id for op in run.unreported.take_all()] == [B]


@pytest.mark.parametrize("how", ["sleep", "retry"])
def test_a_wait_that_was_cut_off_is_not_asked_for(how: str) -> None:
    run = Run("R", {}, retries=1)
    if how == "sleep":
        step = run.wait(waits.sleep("a", SECOND))
    else:
        step = run.begin("a")
        assert run.fail(step, ErrorInfo("E", "no"), 0, 0) is Verdict.SUSPEND
    run.give_up(step, TIMES)
    assert not run.suspended
    run.wait(waits.sleep("nap", SECOND))
    run.unwind()
    assert [(op.op, op.id) for op in run.unreported.take_all()] == [
        (OpCode.STEP_RUN, FIRST_CUT),
        (OpCode.SLEEP, hash_step_id("nap")),
    ]


def test_a_wait_that_the_server_ended_too_late_stays_cut_off() -> None:
    entry = Raw(b'{"data":' + msgspec.json.encode(Cut(A)) + b"}")
    run = Run("R", {FIRST_CUT: entry, A: Raw(b"null")})
    run.earlier.keep_order()
    replayed = [run.replaying]
    assert run.wait(waits.sleep("a", SECOND)).verdict is Verdict.CUT
    replayed.append(run.replaying)
    assert replayed == [True, False]
    assert not run.suspended


def test_what_begins_again_is_no_longer_cut_off() -> None:
    run = Run("R", {FIRST_CUT: Raw(b'{"data":' + msgspec.json.encode(Cut(A)) + b"}")})
    step = run.renew(run.begin("a"), 70, body=True)
    assert step.verdict is Verdict.EXECUTE
    assert not run.settled
    run.complete(step, b"1", 0, 0)
    void, result = run.take_finished()
    assert cut_of(void) == Cut(A, "a", void=True)
    assert (void.display_name, void.timing) == (f"{CUT_NAME}:a", Timing(70, 0))
    assert step_cut_off(void) is None
    entry = Raw(b'{"data":' + msgspec.json.encode(Cut(A)) + b"}")
    run = Run("R", {FIRST_CUT: entry} | remembered([void, result]))
    assert run.begin("a").verdict is Verdict.MEMOIZED


def test_a_further_use_of_an_id_may_begin_again_on_its_own() -> None:
    further = hash_step_id("a", 1)
    entry = Raw(b'{"data":' + msgspec.json.encode(Cut(further, "a", 1)) + b"}")
    run = Run("R", {FIRST_CUT: entry, A: Raw(b"1")})
    assert run.begin("a").verdict is Verdict.MEMOIZED
    run.renew(run.begin("a"), 70)
    (void,) = run.take_finished()
    assert cut_of(void) == Cut(further, "a", 1, void=True)


def test_taking_back_what_was_not_cut_off_is_passed_over() -> None:
    entry = Raw(b'{"data":' + msgspec.json.encode(Cut(A, "a", void=True)) + b"}")
    assert Run("R", {FIRST_CUT: entry}).begin("a").verdict is Verdict.EXECUTE


def test_a_body_that_is_cut_off_while_the_handler_is_ended_will_run_again() -> None:
    run = Run("R", {})
    step = run.begin("a")
    run.wait(waits.sleep("nap", SECOND))
    run.unwind()
    run.cut_off(step, TIMES)
    run.end()
    assert [op.op for op in run.unreported.take_all()] == [OpCode.SLEEP]


def test_a_cut_comes_after_all_that_its_call_began_with_whatever_the_clocks_say() -> None:
    def entry(known: int) -> Raw:
        return Raw(b'{"data":' + msgspec.json.encode(Cut(A, known=known)) + b"}")

    memos = {CAPSULE: Raw(b"1"), FIRST_CUT: entry(2), B: Raw(b"1"), C: Raw(b"2")}
    placed = CutSteps(memos).placed([FIRST_CUT, B, C])
    assert placed == [B, C, FIRST_CUT]
    memos[FIRST_CUT] = entry(1)
    assert CutSteps(memos).placed([FIRST_CUT, B, C]) == [B, FIRST_CUT, C]
    assert CutSteps(memos).placed([B, A, FIRST_CUT, C]) == [B, FIRST_CUT, C], "the step came late"


@pytest.mark.parametrize("data", [b'{"error":{"name":"E"}}', b"1", b'{"data":{"step":7}}'])
def test_an_entry_that_makes_no_sense_is_passed_over(data: bytes) -> None:
    run = Run("R", {FIRST_CUT: Raw(data)})
    assert run.begin("a").verdict is Verdict.EXECUTE
    assert not run.earlier.finished()


def test_what_ends_in_one_moment_keeps_its_order() -> None:
    """Also where the clock is set back; but the time of a step does not matter that was alone."""
    run = Run("R", {})
    one, two, three = run.begin("a"), run.begin("b"), run.begin("c")
    run.complete(one, b"1", 10, 40)
    run.cut_off(two, TIMES)
    run.complete(three, b"1", 10, 20)
    run.complete(run.begin("d"), b"1", 10, 20)
    timings = [op.timing for op in run.take_finished() if op.timing is not None]
    # The entry of what was cut off comes when the handler continues.
    assert [timing.a + timing.b for timing in timings] == [50, 52, 51, 30]


def test_a_step_whose_task_was_cancelled_before_it_came_back_has_ended_after_what_was_cut_off() -> (
    None
):
    run = Run("R", {})
    one, two = run.begin("a"), run.begin("b")
    run.complete(one, b"1", 10, 20)
    run.cut_off(two, TIMES)
    run.end_late(one, CutTimes(60, 60, 10))
    run.wait(waits.sleep("nap", SECOND))
    run.unwind()
    result, cut, late, _ = run.unreported.take_all()
    assert (result.id, cut_of(cut).step) == (A, B)
    assert cut_of(late) == Cut(A, "a", after_ns=50, late=True)
    assert step_cut_off(late) is None
    memos = remembered([result, cut, late])
    assert CutSteps(memos).placed([A, cut.id, late.id]) == [cut.id, A]
    assert (CutSteps(memos).late(A), CutSteps(memos).late(B)) == (cut_of(late), None)
    again = Run("R", memos)
    assert again.begin("a").verdict is Verdict.MEMOIZED
    assert again.begin("b").verdict is Verdict.CUT


def test_an_entry_says_how_many_steps_had_ended_before_its_call() -> None:
    entry = Raw(b'{"data":' + msgspec.json.encode(Cut(A)) + b"}")
    pending = Raw(b'{"pending":true}')
    run = Run("R", {CAPSULE: Raw(b"1"), FIRST_CUT: entry, B: Raw(b"1"), C: pending})
    assert run.begin("b").verdict is Verdict.MEMOIZED
    cut_off(run, "d")
    late = run.begin("e")
    run.complete(late, b"1", 60, 5)
    run.end_late(late, CutTimes(65, 65, 10))
    run.begin("f")
    ops = run.take_finished()
    assert [cut_of(op) for op in ops if op.id != late.hash] == [
        Cut(hash_step_id("d"), "d", after_ns=40, known=1),
        Cut(late.hash, "e", after_ns=55, known=1, late=True),
    ]


def test_a_branch_leaves_what_another_branch_cut_off() -> None:
    cut = Cut(hash_step_id("x", 1), "x", 1, "1")
    memos = {FIRST_CUT: Raw(b'{"data":' + msgspec.json.encode(cut) + b"}")}
    run = Run("R", memos, names={hash_step_id("x"): KnownStep("StepRun", "x", 0, "0")})
    found = {branch: run.begin("x", None, branch) for branch in ("1", "0")}
    assert {branch: (step.verdict, step.index) for branch, step in found.items()} == {
        "1": (Verdict.CUT, 1), "0": (Verdict.EXECUTE, 0)
    }  # fmt: skip
    other = Run("R", memos, names={})
    assert other.begin("x", None, "0").index == 0


def test_a_cut_that_is_older_than_its_call_comes_at_its_beginning() -> None:
    run = Run("R", {})
    run.cut_off(run.begin("a"), CutTimes(5, 7, 10))
    run.begin("b")
    (op,) = run.take_finished()
    assert cut_of(op).after_ns == 0
