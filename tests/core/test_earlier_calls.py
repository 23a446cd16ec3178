"""What a server remembers of a run: by step, in order, and how much of it is still to come."""

from typing import Any

import pytest
from msgspec import Raw

from stephttp._core import waits
from stephttp._core.earlier_calls import NO_CALLS, EarlierCalls
from stephttp._core.run import Run
from stephttp._core.steps import CUT, EXECUTE, MEMOIZED, SUSPEND
from stephttp._wire.cut_entries import Cut, entry_id
from stephttp._wire.ids import CAPSULE, FIRST_CUT, hash_step_id, types_id
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import ErrorInfo
from stephttp._wire.stored_state import KnownStep, Memo, MemoKind
from stephttp.errors import DivergenceError
from tests.core.test_remembered import DONE, Reported, found, resumed, use
from tests.core.test_run import SECOND

A, B, C, D = map(hash_step_id, "abcd")
PENDING = Raw(b'{"pending":true}')
INPUT = Raw(b'{"input":[1]}')
FAILED = Raw(b'{"error":{"name":"E","message":"no"}}')
CHOICES = Raw(b'{"data":[["",["int"]]]}')


def value(number: int) -> Raw:
    return Raw(b'{"data":%d}' % number)


def entry(cut: Cut) -> Raw:
    return Raw(b'{"data":' + encode_struct(cut) + b"}")


EVERYTHING = {
    CAPSULE: value(0),
    FIRST_CUT: entry(Cut(D)),
    A: value(1),
    types_id(A): CHOICES,
    B: FAILED,
    C: PENDING,
    hash_step_id("edited"): INPUT,
}


def test_the_finished_steps_are_results_and_failures_without_what_is_kept_beside_them() -> None:
    assert EarlierCalls(EVERYTHING).finished() == {
        A: Memo(MemoKind.VALUE, Raw(b"1")),
        B: Memo(MemoKind.ERROR, error=ErrorInfo("E", "no")),
    }
    assert NO_CALLS.finished() == {}


def test_what_is_remembered_under_a_hash() -> None:
    earlier = EarlierCalls(EVERYTHING)
    assert earlier.memo_of(CAPSULE) == Memo(MemoKind.VALUE, Raw(b"0"))
    assert earlier.memo_of(C) == Memo(MemoKind.PENDING)
    assert earlier.memo_of(D) is None
    earlier.replace({C: value(3), D: value(4)})
    assert [earlier.memo_of(key) for key in (A, C, D)] == [
        Memo(MemoKind.VALUE, Raw(b"%d" % number)) for number in (1, 3, 4)
    ]


@pytest.mark.parametrize(
    ("memos", "has"),
    [
        ({}, False),
        ({CAPSULE: value(0)}, False),
        ({A: INPUT}, False),
        ({CAPSULE: value(0), A: INPUT, B: value(1)}, True),
        ({A: PENDING}, True),
        ({A: FAILED}, True),
    ],
)
def test_whether_anything_was_done_before(memos: dict[str, Raw], has: bool) -> None:
    assert EarlierCalls(memos).has_steps is has


def test_remembered_steps_are_given_back_in_the_order_in_which_they_ended() -> None:
    def order(memos: dict[str, Raw], *met: str) -> list[bool]:
        assert EarlierCalls(memos).order is None, "not all servers keep it"
        earlier = EarlierCalls(memos)
        earlier.keep_order()
        assert earlier.order is not None
        return [earlier.order.meet(step_hash) for step_hash in met]

    assert order({B: value(2), A: value(1)}, A, B) == [False, True]
    done = {CAPSULE: value(0), B: value(2), C: PENDING, A: value(1)}
    assert order(done, B, A) == [True, True]
    assert order(done, A, B) == [False, True]
    cut = {FIRST_CUT: entry(Cut(C, known=1)), A: value(1), B: value(2)}
    assert order(cut, A, FIRST_CUT, B) == [True, True, True], "the clocks disagree"
    assert order(cut, A, B) == [True, False]
    assert order({A: value(1), types_id(A): CHOICES, B: value(2)}, A, B) == [True, True]


def test_a_handler_replays_until_it_has_come_to_all_that_is_remembered() -> None:
    def replays(memos: dict[str, Raw], *step_ids: str) -> list[bool]:
        run = Run("R", memos)
        seen = [run.replaying]
        for step_id in step_ids:
            step = run.begin(step_id)
            if step.verdict is EXECUTE:
                run.abandon(step)
            run.earlier.choices_of(step.hash)
            seen.append(run.replaying)
        return seen

    assert replays({}) == replays({CAPSULE: value(0)}) == [False]
    assert replays({A: value(1)}, "a") == [True, False]
    three = {CAPSULE: value(0), A: value(1), B: FAILED, C: PENDING}
    assert replays(three, "a", "b", "c") == [True, True, True, False]
    beside = {A: value(1), types_id(A): CHOICES, B: value(2), types_id(B): FAILED}
    assert replays(beside, "a", "b") == [True, True, True], "one is no member of a union"
    assert replays({A: value(1), types_id(A): CHOICES}, "a") == [True, False]
    cut = {FIRST_CUT: entry(Cut(D)), entry_id(1): entry(Cut(C))}
    done = {hash_step_id(step_id): value(1) for step_id in ("a", "b", "e")}
    assert replays(cut | done, "d", "a", "b", "e") == [True, True, True, True, False]
    assert replays({A: value(1), B: value(2)}, "new") == [True, False], "something new has begun"


def test_members_of_unions_are_kept_beside_a_result() -> None:
    earlier = EarlierCalls(EVERYTHING | {types_id(B): FAILED})
    assert earlier.choices_of(A) == Raw(b'[["",["int"]]]')
    assert earlier.choices_of(B) is None
    assert earlier.choices_of(C) is None


@pytest.mark.parametrize(
    ("memo", "verdict"),
    [
        (None, EXECUTE),
        (value(1), MEMOIZED),
        (FAILED, MEMOIZED),
        (INPUT, EXECUTE),
        (PENDING, SUSPEND),
    ],
)
def test_the_verdict_on_what_is_remembered(memo: Raw | None, verdict: Any) -> None:
    step = Run("R", {} if memo is None else {A: memo}).begin("a", 2)
    assert (step.verdict, step.step_id, step.index, step.hash, step.retries) == (
        verdict, "a", 0, A, 2
    )  # fmt: skip
    assert step.memo == (None if memo is None else EarlierCalls({A: memo}).memo_of(A))


def test_a_step_that_was_cut_off_keeps_its_own_retries() -> None:
    step = Run("R", {FIRST_CUT: entry(Cut(A))}).begin("a", 2)
    assert (step.verdict, step.hash, step.memo, step.retries) == (CUT, A, None, 2)


def test_how_often_a_step_has_failed_before() -> None:
    earlier = EarlierCalls({})
    assert earlier.failed_before(A) == 0
    earlier.note_failures(2, {A: 1})
    assert (earlier.failed_before(A), earlier.failed_before(B)) == (1, 2)


def test_a_divergence_may_be_made_to_fail_the_run_after_the_handler_has_branched() -> None:
    for fails in (True, False):
        run = resumed(("StepRun", "met", 0, DONE, "0"), ("Sleep", "x", 0, DONE))
        use(run, "run", "met", "0")
        run.earlier.fail_on_divergence(fails)
        if not fails:
            assert use(run, "run").index == 1
            continue
        with pytest.raises(DivergenceError, match=r"step 'x' was a step\.sleep and is a step"):
            use(run, "run")


def ran(step_id: str, index: int = 0) -> Reported:
    return "StepRun", step_id, index, DONE


@pytest.mark.parametrize(
    ("steps", "uses", "left"),
    [
        ([ran("x"), ran("y")], {"x": [0]}, ["step_not_met y"]),
        ([ran("x"), ran("x", 1)], {"x": [0]}, ["step_not_met x:1"]),
        ([ran("x"), ran("x", 1)], {"x": [0, 1]}, []),
        # The first use was lost with its process.
        ([ran("x", 1)], {"x": [1]}, []),
        ([ran("x", 1)], {"new": [0], "x": [1, 2]}, []),
        # An id that looks like a further use of another.
        ([ran("x:1")], {"x:1": [0]}, []),
        ([ran("x", 1)], {"x:1": [1]}, ["step_not_met x:1"]),
    ],
)
def test_what_is_left_without_branches(
    steps: list[Reported], uses: dict[str, list[int]], left: list[str]
) -> None:
    run = resumed(*steps)
    for step_id, indexes in uses.items():
        assert [use(run, "run", step_id).index for _ in indexes] == indexes
    assert found(run, ended=False) == []
    assert found(run) == left


def test_a_use_outside_of_branches_takes_nothing_of_a_branch() -> None:
    run = resumed(("StepRun", "x", 0, DONE, "0"), ran("x", 1))
    assert [use(run, "run").index, use(run, "run", "x", "0").index] == [1, 0]


def test_an_id_that_cannot_be_one_is_refused_before_anything_is_looked_up() -> None:
    for step_id in ("", "stephttp:own"):
        for names in (None, {A: KnownStep("StepRun", "a")}):
            with pytest.raises(ValueError, match="a step id must not be empty or start with"):
                Run("R", {A: value(1)}, names=names).begin(step_id)


def test_a_server_that_says_no_names_says_nothing_of_what_is_left() -> None:
    assert not Run("R", {A: value(1)}).earlier.is_named
    assert Run("R", {}, names={}).earlier.is_named
    run = Run("R", {A: value(1), B: value(2)})
    run.wait(waits.sleep("c", SECOND))
    assert found(run) == []
