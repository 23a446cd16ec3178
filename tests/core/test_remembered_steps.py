"""`Remembered` by itself: which use a step is, what is left, and divergences as they are said."""

from __future__ import annotations

import pytest
from msgspec import Raw

from stephttp._core.remembered import Divergence, Remembered, failure, next_index, title_of
from stephttp._wire.ids import CAPSULE, hash_step_id
from stephttp._wire.opcodes import OpCode
from stephttp._wire.stored_state import UNSURE, KnownStep
from stephttp.errors import DivergenceError

RUN, SLEEP = OpCode.STEP_RUN, OpCode.SLEEP
VALUE, FAILED, PENDING = Raw(b'{"data":1}'), Raw(b'{"error":{}}'), Raw(b'{"pending":true}')
A, A1, A2 = (hash_step_id("a", index) for index in range(3))
B = hash_step_id("b")


def known(op: str = "StepRun", step_id: str = "a", index: int = 0, branch: str = "") -> KnownStep:
    return KnownStep(op, step_id, index, branch)


def test_a_divergence_says_what_a_step_was_and_is() -> None:
    changed = Divergence(A, "pay:1", "sleep", "run")
    assert (changed.kind, changed.fresh) == ("step_changed", True)
    assert str(changed) == (
        "step 'pay:1' was a step.sleep and is a step.run now, which is a new step"
    )
    assert str(Divergence(A, "pay", "", "run")) == (
        "step 'pay' was a step of another kind and is a step.run now, which is a new step"
    )
    gone = Divergence(A, "pay", "run")
    assert gone.kind == "step_not_met"
    assert str(gone) == (
        "step 'pay', which was a step.run, is remembered, but the handler no longer uses it"
    )
    assert str(failure([changed, gone])) == (
        f"the handler has changed since this run began: {changed}; {gone}"
    )


def test_an_id_with_the_number_of_its_use() -> None:
    assert [title_of("a", index) for index in (0, 1, 2)] == ["a", "a:1", "a:2"]


def test_a_use_takes_no_number_that_an_id_looks_like() -> None:
    uses = {"a": 1, "a:1": 1, "a:2": 1}
    assert next_index("a", 1, uses) == 3
    assert uses == {"a": 1, "a:1": 1, "a:2": 1, "a:3": 1}
    assert next_index("b", 1, uses) == 1


@pytest.mark.parametrize("named", [True, False])
def test_whether_the_server_names_steps(named: bool) -> None:
    steps = Remembered({A: VALUE}, {A: known()} if named else None)
    assert (steps.is_named, steps.side_by_side) == (named, False)
    beside = {A: known(), B: known(step_id="b", branch=UNSURE)}
    assert Remembered({A: VALUE, B: VALUE}, beside).side_by_side


@pytest.mark.parametrize("memo", [VALUE, FAILED])
@pytest.mark.parametrize("named", [True, False])
def test_a_finished_step_is_left_until_it_is_met(memo: Raw, named: bool) -> None:
    names = {A: known(), A1: known(index=1)} if named else None
    steps = Remembered({A: PENDING, A1: memo}, names)
    uses: dict[str, int] = {}
    assert (steps.has_left("a"), steps.has_left("b")) == (True, False)
    assert steps.place("a", RUN, "", uses) == 0
    assert steps.has_left("a")
    assert steps.place("a", RUN, "", uses) == 1
    assert (steps.has_left("a"), uses) == (False, {"a": 2})


def test_what_is_cut_off_or_waits_is_not_left() -> None:
    for memo in (VALUE, None):
        memos = {} if memo is None else {A: memo}
        steps = Remembered(memos, {A: known()})
        steps.add_cuts({A: known()})
        assert not steps.has_left("a")
        assert steps.place("a", RUN, "", {}) == 0, "and still has its place"
    assert not Remembered({A: PENDING}, {A: known()}).has_left("a")
    assert not Remembered({}, {A: known("StepError")}).has_left("a")


def test_a_cut_of_a_server_that_names_nothing_has_its_place() -> None:
    steps = Remembered({A: VALUE, A2: VALUE}, None)
    steps.add_cuts({A1: known(index=1)})
    uses: dict[str, int] = {}
    assert [steps.place("a", RUN, "", uses) for _ in range(4)] == [0, 1, 2, 3]


def test_a_new_use_is_behind_all_that_is_remembered() -> None:
    memos = {A: Raw(b"null"), A2: VALUE}
    steps = Remembered(memos, {A: known("Sleep"), A1: known("Sleep", index=1), A2: known(index=2)})
    uses: dict[str, int] = {}
    assert [steps.place("a", RUN, "", uses) for _ in range(2)] == [2, 3]
    assert uses == {"a": 4}
    assert [steps.place("a", SLEEP, "", uses) for _ in range(3)] == [0, 1, 4]
    assert (uses, steps.found(ended=True)) == ({"a": 5}, [])


def test_a_step_that_is_met_by_the_id_that_it_looks_like_is_not_met_again() -> None:
    names = {A: known(), A1: known(index=1), A2: known(index=2)}
    order = ["a:1", "a", "a", "a"]
    for known_names, placed in ((None, [0, 0, 2, 3]), (names, [1, 0, 1, 2])):
        steps = Remembered({A: VALUE, A1: VALUE, A2: VALUE}, known_names)
        uses: dict[str, int] = {}
        assert [steps.place(step_id, RUN, "", uses) for step_id in order] == placed
    steps = Remembered({A: VALUE, A1: VALUE, A2: VALUE}, None)
    assert steps.place("a:1", RUN, "", {}) == 0
    assert steps.place("a", RUN, "0", {}) == 0


def test_of_two_branches_each_takes_its_own_first() -> None:
    names = {
        A: known(branch="0"), A1: known(index=1, branch=UNSURE), A2: known(index=2, branch="1"),
    }  # fmt: skip
    for order, placed in (
        (("1", "0", ""), [2, 0, 1]),
        (("", "1", "0"), [1, 2, 0]),
        (("2", "0", "1"), [1, 0, 2]),
        (("0", "0", "0"), [0, 1, 3]),
    ):
        steps = Remembered({A: VALUE, A1: VALUE, A2: VALUE}, names)
        uses: dict[str, int] = {}
        assert [steps.place("a", RUN, branch, uses) for branch in order] == placed


def test_what_is_left_over_once_the_handler_has_ended() -> None:
    names = {
        "4": known(step_id="no memo"),
        CAPSULE: known(step_id="capsule"),
        A: known(),
        A1: known("StepPlanned", index=1),
        B: known("Sleep", "b"),
        "1": known(step_id=""),
        "2": known(step_id="stephttp:types:x"),
        "3": known(step_id="waits"),
    }
    memos = {key: VALUE for key in names if key != "4"} | {"3": PENDING, B: FAILED}
    steps = Remembered(memos, names)
    assert steps.found(ended=False) == []
    assert steps.found(ended=True) == [
        Divergence(A, "a", "run"),
        Divergence(A1, "a:1", ""),
        Divergence(B, "b", "sleep"),
    ]


def test_a_change_is_noted_once_and_is_not_left_over_too() -> None:
    steps = Remembered({A: Raw(b"null")}, {A: known("Sleep")})
    uses: dict[str, int] = {}
    for _ in range(2):
        steps.place("a", RUN, "", uses)
    change = Divergence(A, "a", "sleep", "run")
    assert steps.found(ended=False) == steps.found(ended=True) == [change]
    steps.place("a", SLEEP, "", uses)
    assert steps.found(ended=True) == []


def test_a_change_that_an_earlier_call_has_reported_is_not_fresh() -> None:
    names = {A: known("Sleep"), A1: known(index=1), A2: known("Sleep", index=2)}
    steps = Remembered({A: Raw(b"null"), A1: VALUE, A2: Raw(b"null")}, names)
    uses: dict[str, int] = {}
    steps.place("a", RUN, "", uses)
    steps.place("b", RUN, "", uses)
    assert steps.found(ended=True) == [
        Divergence(A, "a", "sleep", "run", fresh=False),
        Divergence(A2, "a:2", "sleep", "run", fresh=False),
    ]


def test_a_change_fails_the_run_unless_branches_may_explain_it() -> None:
    for beside, raises in (("", True), (UNSURE, False)):
        names = {A: known("Sleep"), B: known(step_id="b", branch=beside)}
        steps = Remembered({A: Raw(b"null"), B: VALUE}, names)
        steps.fails = True
        if not raises:
            assert steps.place("a", RUN, "", {}) == 1
            assert steps.failure is None
            continue
        with pytest.raises(DivergenceError) as raised:
            steps.place("a", RUN, "", {})
        assert steps.failure is raised.value
        assert str(raised.value) == str(failure([Divergence(A, "a", "sleep", "run")]))


def test_the_first_change_is_noted_first() -> None:
    names = {A: known("Sleep"), A1: known("Sleep", index=1)}
    steps = Remembered({A: Raw(b"null"), A1: Raw(b"null")}, names)
    steps.place("a", RUN, "", {})
    assert steps.found(ended=False) == [Divergence(A, "a", "sleep", "run")]
    steps.place("a", RUN, "", {"a": 1})
    assert [one.step_id for one in steps.found(ended=False)] == ["a", "a:1"]
