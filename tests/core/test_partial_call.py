"""What one call of the handler leaves to another: its time is over, or one step was asked for."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec import Raw

from stephttp._core import waits
from stephttp._core.call_state import State
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, MEMOIZED, SUSPEND
from stephttp._wire.ids import hash_step_id
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode

NAP = waits.sleep("nap", timedelta(seconds=1))
A, B = hash_step_id("a"), hash_step_id("b")
DONE = {A: Raw(b'{"data":1}')}


def again(step_id: str, remembered: int) -> Op:
    """Return the op that asks for another call, at a step."""
    text = f"stephttp:again:{hash_step_id(step_id)}:{remembered}"
    return Op(OpCode.DISCOVERY_REQUEST, hash_step_id(text), step_id)


def expired(run: Run) -> Run:
    run.expire()
    return run


def done(run: Run, step_id: str) -> None:
    assert run.complete(run.begin(step_id), b"1", 0, 0) is EXECUTE


class TestTimeOver:
    """`expire`: the next step is left to another call, unless this one has done nothing yet."""

    def test_a_first_call_leaves_the_next_step_and_asks_once(self) -> None:
        run = Run("R")
        done(run, "a")
        run.expire()
        for step_id in ("b", "c"):
            step = run.begin(step_id)
            assert (step.verdict, step.step_id, step.index, step.hash) == (
                SUSPEND, step_id, 0, hash_step_id(step_id)
            )  # fmt: skip
        assert (run.state, run.settled) == (State.WAITING, True)
        assert run.unreported.requests == [again("b", 0)]

    def test_a_reentry_does_one_new_step_at_least(self) -> None:
        run = expired(Run("R", DONE))
        assert run.begin("a").verdict is MEMOIZED
        done(run, "b")
        assert run.begin("c").verdict is SUSPEND
        assert run.unreported.requests == [again("c", 1)]

    def test_a_step_that_has_failed_is_progress(self) -> None:
        run = expired(Run("R", {}))
        assert run.fail(run.begin("a"), ErrorInfo("E"), 0, 0) is EXECUTE
        assert run.begin("b").verdict is SUSPEND

    def test_remembered_steps_are_no_progress(self) -> None:
        run = expired(Run("R", DONE))
        assert (run.begin("a").verdict, run.begin("b").verdict) == (MEMOIZED, EXECUTE)

    @pytest.mark.parametrize(
        "never", [Run.response_began, Run.end], ids=["the response began", "the run ended"]
    )
    def test_what_cannot_wait_continues(self, never: Callable[[Run], None]) -> None:
        run = Run("R")
        never(run)
        run.expire()
        assert run.begin("a").verdict is EXECUTE
        assert (run.unreported.requests, run.suspended, run.settled) == ([], False, False)

    def test_a_wait_is_asked_for_as_ever(self) -> None:
        run = expired(Run("R"))
        run.wait(NAP)
        assert [op.op for op in run.unreported.requests] == [OpCode.SLEEP]


class TestOver:
    """`stop`: the run has ended elsewhere, so nothing begins and nothing is asked for."""

    def test_no_step_begins(self) -> None:
        run = Run("R", DONE)
        run.stop()
        assert run.begin("a").verdict is MEMOIZED
        assert run.begin("b").verdict is run.wait(NAP).verdict is SUSPEND
        assert (run.state, run.settled) == (State.WAITING, True)
        assert run.unreported.take_all() == []

    def test_after_the_response_a_handler_continues_alone(self) -> None:
        run = Run("R")
        run.end()
        run.stop()
        assert run.begin("a").verdict is EXECUTE
        assert (run.state, run.settled) == (State.ENDED, False)


class TestReconsider:
    """A step that was to be executed, and has not begun when that changes."""

    @pytest.mark.parametrize("memos", [None, DONE])
    def test_it_begins_where_nothing_has_changed(self, memos: dict[str, Raw] | None) -> None:
        run = Run("R", memos)
        step = run.begin("b")
        assert run.reconsider(step) is step
        assert (run.settled, run.suspended) == (False, False)

    @pytest.mark.parametrize("memos", [None, DONE])
    def test_it_does_not_where_the_run_is_over(self, memos: dict[str, Raw] | None) -> None:
        run = Run("R", memos)
        step = run.begin("b")
        run.stop()
        left = run.reconsider(step)
        assert (left.verdict, left.step_id, left.hash) == (SUSPEND, "b", B)
        assert (run.settled, run.suspended, run.unreported.take_all()) == (True, True, [])

    def test_a_first_call_leaves_it_when_the_time_is_over(self) -> None:
        run = Run("R")
        step = run.begin("a")
        run.expire()
        assert run.reconsider(step).verdict is SUSPEND
        assert (run.settled, run.unreported.take_all()) == (True, [again("a", 0)])

    def test_a_reentry_has_to_make_progress(self) -> None:
        run = Run("R", DONE)
        step = run.begin("b")
        run.expire()
        assert run.reconsider(step) is step
        assert (run.settled, run.unreported.take_all()) == (False, [])

    def test_it_begins_where_the_caller_has_a_part_of_the_response(self) -> None:
        run = Run("R")
        step = run.begin("a")
        run.response_began()
        run.expire()
        assert run.reconsider(step) is step
        assert not run.settled


class TestLeaveEnd:
    """The answer is left to another call, which has the run by now."""

    def test_the_server_is_asked_for_another_call(self) -> None:
        run = Run("R")
        assert run.leave_end() is True
        run.end()
        assert run.state is State.UNWINDING
        op_id = hash_step_id("stephttp:again:end:R")
        assert run.unreported.take_all() == [Op(OpCode.DISCOVERY_REQUEST, op_id)]

    @pytest.mark.parametrize(
        "never",
        [Run.response_began, Run.end, lambda run: run.wait(NAP)],
        ids=["the response began", "the run ended", "it waits already"],
    )
    def test_it_is_not_where_that_is_too_late(self, never: Callable[[Run], object]) -> None:
        run = Run("R")
        never(run)
        state, asked = run.state, list(run.unreported.requests)
        assert run.leave_end() is False
        assert (run.state, run.unreported.requests) == (state, asked)

    def test_no_branch_that_the_handler_gives_up_brings_it_back(self) -> None:
        run = Run("R")
        run.wait(NAP)
        run.yield_to_another_run()
        for _ in range(2):
            run.give_up()
            assert run.suspended
        assert [op.op for op in run.unreported.take_all()] == [OpCode.SLEEP]


class TestTarget:
    """The server has asked for one step."""

    def test_its_end_suspends_the_handler(self) -> None:
        run = Run("R", {}, target=A)
        assert run.complete(run.begin("a"), b"1", 0, 0) is SUSPEND
        assert run.suspended

    def test_its_end_is_the_last_thing_even_after_the_response(self) -> None:
        run = Run("R", {}, target=A)
        step = run.begin("a")
        run.end()
        assert run.complete(step, b"1", 0, 0) is EXECUTE

    def test_a_step_whose_writes_last_only_with_the_handler_lets_that_continue(self) -> None:
        run = Run("R", {}, target=A)
        step = run.begin("a")
        run.unreported.hold_back(A)
        assert run.complete(step, b"1", 0, 0) is EXECUTE
        assert (run.target, run.suspended) == (None, False)
        assert run.begin("b").verdict is EXECUTE

    def test_the_others_are_passed_over_in_order(self) -> None:
        run = Run("R", DONE, target=hash_step_id("c"))
        steps = [run.begin(step_id) for step_id in ("a", "b", "d")]
        assert [step.verdict for step in steps] == [MEMOIZED, SUSPEND, SUSPEND]
        run.wait(NAP)
        assert [step.step_id for step in run.passed] == ["b", "d", "nap"]
        assert run.passed_waits == {hash_step_id("nap"): NAP}
        assert (run.unreported.take_all(), run.settled, run.targets_unknown) == ([], True, True)
