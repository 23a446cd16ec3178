"""What one call of a handler is at: waits that are given up or kept, holds, and what it reports."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from stephttp._core import waits
from stephttp._core.call_state import State
from stephttp._core.run import Run
from stephttp._core.steps import CutTimes, Verdict
from stephttp._wire.cut_entries import Cut
from stephttp._wire.ids import CAPSULE, FIRST_CUT, hash_step_id
from stephttp._wire.opcodes import ErrorInfo, OpCode, Timing
from stephttp._wire.stored_state import UNSURE, KnownStep
from tests.core.test_cuts import TIMES, cut_of, cut_off
from tests.core.test_remembered import DONE, Reported, branches, found, resumed, use
from tests.core.test_run import SECOND, ended, failing, unwinding, waiting

A, B = map(hash_step_id, "ab")
PENDING = Raw(b'{"pending":true}')


def pending() -> Run:
    """A call that has come to a wait which the server knows already."""
    run = Run("R", {A: PENDING, B: PENDING})
    run.wait(waits.sleep("a", SECOND))
    return run


def both() -> Run:
    run = pending()
    run.wait(waits.sleep("new", SECOND))
    return run


def several() -> Run:
    run = pending()
    run.wait(waits.sleep("b", SECOND))
    return run


def given_up() -> Run:
    run = pending()
    run.give_up()
    return run


def new() -> Run:
    return Run("R")


@pytest.mark.parametrize("make", [new, lambda: Run("R", {})])
def test_a_call_begins_with_nothing_behind_it(make: Callable[[], Run]) -> None:
    run = make()
    facts: dict[str, Any] = {
        "state": State.RUNNING, "suspended": False, "pending": False, "expired": False,
        "over": False, "beside": False, "branched": False, "cut_short": False, "cannot_wait": None,
        "unwinding": False, "settled": True, "running": 0, "finished_count": 0,
    }  # fmt: skip
    assert {name: getattr(run, name) for name in facts} == facts


@pytest.mark.parametrize(
    ("make", "state", "cut_short"),
    [
        (new, State.RUNNING, False),
        (waiting, State.WAITING, False),
        (pending, State.RUNNING, True),
        (several, State.RUNNING, True),
        (both, State.WAITING, False),
        (given_up, State.RUNNING, True),
        (unwinding, State.UNWINDING, False),
        (ended, State.ENDED, False),
    ],
)
def test_a_handler_that_responds_gives_up_only_waits_that_were_asked_for_before(
    make: Callable[[], Run], state: State, cut_short: bool
) -> None:
    run = make()
    run.leave_pending()
    assert (run.state, run.cut_short) == (state, cut_short)
    assert run.suspended is (state in (State.WAITING, State.UNWINDING))
    run.complete(run.begin("after"), b"1", 0, 0)
    if state is State.RUNNING:
        assert branches(run) == {"after": ""}, "nothing is at work beside it"


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (new, State.RUNNING),
        (waiting, State.WAITING),
        (pending, State.WAITING),
        (given_up, State.WAITING),
    ],
)
def test_a_handler_without_a_response_waits_for_what_it_gave_up(
    make: Callable[[], Run], state: State
) -> None:
    run = make()
    run.wait_after_all()
    assert (run.state, run.suspended) == (state, state is State.WAITING)


def test_a_wait_that_is_given_up_is_recorded_with_its_step_alone() -> None:
    run = Run("R", {})
    step = run.wait(waits.sleep("a", SECOND))
    run.give_up(step, TIMES)
    assert (run.state, run.suspended, run.cut_short) == (State.RUNNING, False, True)
    run.wait(waits.sleep("b", SECOND))
    run.give_up()  # not a step, but something else that waits
    run.begin("c")
    entry, sleep = run.unreported.take_all()
    assert (entry.id, entry.timing, cut_of(entry)) == (
        FIRST_CUT, Timing(20, 30), Cut(A, "a", 0, UNSURE, after_ns=40)
    )  # fmt: skip
    assert sleep.id == B


def test_a_handler_waits_until_it_has_given_up_all_its_waits() -> None:
    run = Run("R")
    states = []
    for step_id in ("a", "b", "c"):
        run.wait(waits.sleep(step_id, SECOND))
    for _ in range(3):
        run.give_up()
        states.append(run.state)
    assert states == [State.WAITING, State.WAITING, State.RUNNING]


def test_a_call_for_one_step_records_nothing_that_is_given_up() -> None:
    run = Run("R", {}, target=hash_step_id("c"))
    run.give_up(run.wait(waits.sleep("a", SECOND)), TIMES)
    assert (run.state, run.finished_count) == (State.RUNNING, 0)


@pytest.mark.parametrize("times", [CutTimes(20, 20, 10), CutTimes(20, 15, 10)])
def test_a_cut_takes_no_time_where_the_clock_stood_still_or_was_set_back(times: CutTimes) -> None:
    run = Run("R", {})
    run.cut_off(run.begin("a"), times)
    run.begin("b")
    (entry,) = run.take_finished()
    assert (entry.timing, cut_of(entry).after_ns) == (Timing(20, 0), 10)


def test_what_is_cut_off_while_the_handler_is_ended_or_later_is_nothing_to_report() -> None:
    run = Run("R", {})
    cut_off(run, "a")
    assert run.finished_count == 1, "it is to be reported soon"
    late = run.begin("b")
    run.wait(waits.sleep("nap", SECOND))
    run.unwind()
    run.cut_off(late, TIMES)
    assert run.finished_count == 1
    run.end()
    assert [op.id for op in run.take_finished()] == [FIRST_CUT]


def test_a_run_is_held_until_each_hold_has_ended() -> None:
    run = Run("R")
    run.hold()
    run.hold()
    run.complete(run.begin("held"), b"1", 0, 0)
    run.release()
    assert (run.settled, run.running) == (False, 1)
    run.release()
    assert (run.settled, run.running) == (True, 0)
    run.complete(run.begin("alone"), b"1", 0, 0)
    one, two = run.begin("one"), run.begin("two")
    run.complete(one, b"1", 0, 0)
    run.complete(two, b"1", 0, 0)
    assert branches(run) == {"held": "", "alone": "", "one": UNSURE, "two": ""}


def test_whether_others_were_at_work_when_a_step_ended() -> None:
    run, beside = Run("R"), []
    for others in (lambda: None, lambda: run.begin("other"), lambda: None):
        step = run.begin("a")
        others()
        run.complete(step, b"1", 0, 0)
        beside.append(run.beside)
    assert beside == [False, True, True]
    run = waiting()
    run.complete(run.begin("a"), b"1", 0, 0)
    assert run.beside, "one branch waits"


def test_a_run_that_fails_instead_of_waiting_asks_for_nothing_and_keeps_what_lasts() -> None:
    run = Run("R", retries=1)
    run.complete(run.begin("done"), b"1", 0, 0)
    held = run.begin("held")
    run.unreported.hold_back(held.hash)
    run.complete(held, b"1", 0, 0)
    failing(run, "fails")
    run.wait(waits.sleep("nap", SECOND))
    run.fail_instead()
    assert (run.state, run.suspended) == (State.ENDED, False)
    assert [(op.op, op.id) for op in run.unreported.take_all()] == [
        (OpCode.STEP_RUN, hash_step_id("done")),
        (OpCode.STEP_FAILED, hash_step_id("fails")),
    ]
    run.end()
    assert run.state is State.ENDED


LEFT: Reported = ("StepRun", "left", 0, DONE)
CHANGED: Reported = ("Sleep", "changed", 0, DONE)
MET: Reported = ("StepRun", "met", 0, DONE)
BRANCH: Reported = ("StepRun", "met", 0, DONE, UNSURE)
WAITS: Reported = ("Sleep", "waits", 0, {"pending": True})


def side_by_side(run: Run) -> None:
    one, two = run.begin("one"), run.begin("two")
    run.complete(one, b"1", 0, 0)
    run.complete(two, b"1", 0, 0)


def abandon(run: Run) -> None:
    run.abandon(run.begin("new"))


def come_to_a_wait(run: Run) -> None:
    use(run, "sleep", "waits")


@pytest.mark.parametrize(
    ("steps", "happens", "before_the_end", "at_the_end"),
    [
        ([MET], None, [], []),
        ([LEFT, MET], None, [], ["step_not_met left"]),
        ([CHANGED, MET], None, ["step_changed changed"], ["step_changed changed"]),
        # With branches nothing is certain before the end,
        ([CHANGED, BRANCH], None, [], ["step_changed changed"]),
        ([CHANGED, MET], side_by_side, [], ["step_changed changed"]),
        ([LEFT, BRANCH], None, [], ["step_not_met left"]),
        # nor at the end, if one was cut short, or still waits.
        ([LEFT, BRANCH], Run.give_up, [], []),
        ([LEFT, MET], Run.give_up, [], ["step_not_met left"]),
        ([LEFT, BRANCH], abandon, [], []),
        ([LEFT, BRANCH, WAITS], come_to_a_wait, [], []),
        # A run that is over, or a call for one step, comes to none of the others.
        ([CHANGED, LEFT], Run.stop, [], []),
    ],
)
def test_what_is_left_over_counts_where_it_is_certain(
    steps: list[Reported],
    happens: Callable[[Run], Any] | None,
    before_the_end: list[str],
    at_the_end: list[str],
) -> None:
    run = resumed(*steps)
    use(run, "run", "met")
    if CHANGED in steps:
        run.abandon(use(run, "run", "changed"))
        run.cut_short = False
    if happens is not None:
        happens(run)
    assert found(run, ended=False) == before_the_end
    assert found(run) == at_the_end


def test_a_run_of_which_steps_were_side_by_side_has_branches_where_something_is_left() -> None:
    for steps, has in (([MET, LEFT], False), ([BRANCH], False), ([BRANCH, LEFT], True)):
        run = resumed(*steps)
        use(run, "run", "met")
        found(run)
        assert run.branched is has
    run = Run("R")
    side_by_side(run)
    assert run.branched


def test_a_call_for_one_step_has_nothing_left_over() -> None:
    memos, names = {A: Raw(b"null")}, {A: KnownStep("Sleep", "a", 0)}
    assert found(Run("R", memos, names=names)) == ["step_not_met a"]
    assert found(Run("R", memos, names=names, target=B)) == []


def test_whether_a_step_to_come_has_ended_before() -> None:
    assert not Run("R").remembers("left")
    run = resumed(LEFT)
    assert run.remembers("left")
    assert not run.remembers("other")
    use(run, "run", "left")
    assert not run.remembers("left")


def test_what_is_remembered_may_be_replaced() -> None:
    changed = {A: Raw(b'{"data":7}')}
    for run in (Run("R"), Run("R", {A: Raw(b'{"data":1}'), CAPSULE: Raw(b"1")})):
        run.remember(changed)
        step = run.begin("a")
        assert step.verdict is Verdict.MEMOIZED
        assert step.memo is not None
        assert bytes(step.memo.raw) == b"7"
    assert Run("R").begin("a").verdict is Verdict.EXECUTE, "other runs have nothing of it"


def test_a_failure_is_at_work_beside_others_as_a_result_is() -> None:
    run = Run("R")
    other = run.begin("other")
    run.fail(run.begin("fails"), ErrorInfo("E"), 0, 0)
    run.complete(other, b"1", 0, 0)
    assert branches(run) == {"fails": UNSURE, "other": ""}
