"""Which remembered step a use gets, and what counts as a divergence, without anything around it."""

import json
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from stephttp._core import http_steps, waits
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, MEMOIZED, SUSPEND, Step
from stephttp._wire.ids import hash_step_id
from stephttp._wire.stored_state import UNSURE, KnownStep
from stephttp.errors import DivergenceError

NAP = timedelta(minutes=1)
EVENT = {"name": "go", "data": {}, "id": "1", "ts": 1}
DONE: Any = object()

Reported = tuple[str, str, int, Any] | tuple[str, str, int, Any, str]
"""Op, id, index, memo (`DONE`: of its kind; `...`: it has none), branch."""


def memo(op: str, value: Any) -> Raw:
    if value is DONE:
        value = None if op in ("Sleep", "WaitForEvent", "WaitForSignal") else {"data": 1}
    return Raw(json.dumps(value).encode())


def resumed(*steps: Reported, named: bool = True) -> Run:
    """A run of which these steps are remembered."""
    memos, names = {}, {}
    for op, step_id, index, value, *branch in steps:
        key = hash_step_id(step_id, index)
        names[key] = KnownStep(op, step_id, index, *branch)
        if value is not ...:
            memos[key] = memo(op, value)
    return Run("R", memos, names=names if named else None)


def use(run: Run, kind: str, step_id: str = "x", branch: str = "") -> Step:
    if kind == "run":
        return run.begin(step_id, None, branch)
    wait = {
        "sleep": lambda: waits.sleep(step_id, NAP),
        "wait_for_event": lambda: waits.wait_for_event(step_id, "go", NAP, None),
        "wait_for_signal": lambda: waits.wait_for_signal(step_id, "go", NAP, "fail"),
        "invoke": lambda: waits.invoke(step_id, "f", None, None, None),
        "fetch": lambda: http_steps.fetch(step_id, "http://x.test", "GET", None, None),
    }[kind]()
    return run.wait(wait, branch)


def found(run: Run, *, ended: bool = True) -> list[str]:
    return [f"{one.kind} {one.step_id}" for one in run.divergences(ended=ended)]


KINDS = {
    "run": ("StepRun", "StepFailed"),
    "sleep": ("Sleep",),
    "wait_for_event": ("WaitForEvent",),
    "wait_for_signal": ("WaitForSignal",),
    "invoke": ("InvokeFunction",),
    "fetch": ("Gateway",),
}


@pytest.mark.parametrize("now", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_a_memo_answers_only_a_use_of_its_kind(before: str, now: str) -> None:
    for op in KINDS[before]:
        run = resumed((op, "x", 0, DONE))
        step = use(run, now)
        if before == now:
            assert (step.verdict, step.index, found(run)) == (MEMOIZED, 0, [])
        else:
            assert step.verdict is (EXECUTE if now == "run" else SUSPEND)
            assert (step.index, step.hash) == (1, hash_step_id("x", 1))
            assert found(run) == found(run, ended=False) == ["step_changed x"]


FORMS: list[tuple[Any, set[str]]] = [
    (None, {"sleep", "wait_for_event", "wait_for_signal"}),
    ({"data": 1}, {"run", "wait_for_signal", "invoke", "fetch"}),
    ({"data": None}, set(KINDS)),
    (EVENT, {"wait_for_event"}),
    ({"error": {"name": "E"}}, set(KINDS) - {"sleep"}),
    ("bare", set(KINDS) - {"sleep"}),
    ({"pending": True}, set(KINDS)),
]


@pytest.mark.parametrize("now", KINDS)
@pytest.mark.parametrize(("value", "kinds"), FORMS, ids=[str(form) for form, _ in FORMS])
def test_another_server_shows_some_kinds_by_the_form_of_a_memo(
    value: Any, kinds: set[str], now: str
) -> None:
    if value == "bare" and now == "sleep":
        return  # no server sends that
    run = resumed(("?", "x", 0, value), named=False)
    assert use(run, now).index == (0 if now in kinds else 1)
    assert found(run) == ([] if now in kinds else ["step_changed x"])


def test_another_server_does_not_say_what_is_left_over() -> None:
    assert found(resumed(("StepRun", "x", 0, DONE), named=False)) == []


def test_what_nothing_came_to_is_left_over_once_the_handler_has_ended() -> None:
    steps: list[Reported] = [
        ("StepRun", "x", 0, DONE),
        ("StepFailed", "x", 1, {"error": {"name": "E"}}),
        ("StepRun", "met", 0, DONE),
        ("Sleep", "waits", 0, {"pending": True}),
        ("StepRun", "edited", 0, {"input": [1]}),
        ("StepError", "fails", 0, ...),
        ("StepRun", "stephttp:types:x", 0, DONE),
        ("StepRun", "", 0, DONE),
    ]
    run = resumed(*steps)
    use(run, "run", "met")
    assert found(run, ended=False) == []
    assert found(run) == ["step_not_met x", "step_not_met x:1"]


def test_a_step_that_failed_is_not_what_a_sleep_of_its_id_is() -> None:
    # The engine would take the sleep for a step that it knows, and start no timer.
    run = resumed(("StepError", "x", 0, ...))
    assert use(run, "sleep").index == 1
    assert found(run) == ["step_changed x"]
    assert use(resumed(("StepError", "x", 0, ...)), "run").index == 0


def test_a_planned_step_may_be_of_any_kind() -> None:
    for kind in KINDS:
        assert use(resumed(("StepPlanned", "x", 0, {"pending": True})), kind).index == 0


def test_a_loop_of_sleeps_that_became_one_of_steps() -> None:
    sleeps: list[Reported] = [("Sleep", "x", n, DONE) for n in range(3)]
    run = resumed(*sleeps)
    assert [use(run, "run").index for _ in range(3)] == [3, 4, 5]
    assert found(run) == ["step_changed x", "step_changed x:1", "step_changed x:2"]
    later = resumed(*sleeps, ("StepRun", "x", 3, DONE))
    assert [use(later, "run").index for _ in range(3)] == [3, 4, 5]


def test_a_change_is_fresh_in_the_call_in_which_the_new_step_is_new() -> None:
    old, new = ("Sleep", "x", 0, DONE), ("StepRun", "x", 1, DONE)
    for steps, fresh in (((old,), True), ((old, new), False)):
        run = resumed(*steps)
        use(run, "run")
        (change,) = run.divergences(ended=True)
        assert (change.kind, change.before, change.now) == ("step_changed", "sleep", "run")
        assert change.fresh is fresh


def test_one_id_for_steps_of_several_kinds_is_no_change_whatever_comes_first() -> None:
    steps: list[Reported] = [("StepRun", "x", 0, DONE), ("Sleep", "x", 1, DONE, UNSURE)]
    for order in (("run", "sleep"), ("sleep", "run")):
        run = resumed(*steps)
        assert {kind: use(run, kind).index for kind in order} == {"run": 0, "sleep": 1}
        assert found(run) == []
    # One of them is new, and comes first.
    run = resumed(steps[0])
    assert [use(run, "sleep").index, use(run, "run").index] == [1, 0]
    assert found(run) == []


def test_a_change_may_fail_the_run_at_the_step() -> None:
    run = resumed(("Sleep", "x", 0, DONE))
    run.configure(on_divergence="fail")
    with pytest.raises(DivergenceError, match=r"step 'x' was a step\.sleep and is a step\.run"):
        use(run, "run")
    assert use(run, "run", "other").verdict is use(run, "sleep", "nap").verdict is SUSPEND
    assert run.unreported.take_all() == [], "nothing begins after that"
    run = resumed(("Sleep", "x", 0, DONE), ("StepRun", "y", 0, DONE, UNSURE))
    run.configure(on_divergence="fail")
    assert use(run, "run").verdict is EXECUTE, "a branch may still come to the sleep"


def test_branches_of_parallel_get_their_own_results_whichever_is_first() -> None:
    steps: list[Reported] = [("StepRun", "save", n, DONE, f"{1 - n}") for n in (0, 1)]
    for order in (("0", "1"), ("1", "0")):
        run = resumed(*steps)
        assert {branch: use(run, "run", "save", branch).index for branch in order} == {
            "0": 1, "1": 0
        }  # fmt: skip
    # The other branch has not come to it before.
    run = resumed(steps[0])
    assert use(run, "run", "save", "0").index == 1
    assert use(run, "run", "save", "1").index == 0


def test_a_loop_within_a_branch_counts_on_its_own() -> None:
    run = resumed(*(("StepRun", "save", n, DONE, "01"[n % 2]) for n in range(4)))
    assert [use(run, "run", "save", "1").index for _ in range(3)] == [1, 3, 4]
    assert [use(run, "run", "save", "0").index for _ in range(3)] == [0, 2, 5]


@pytest.mark.parametrize(("before", "now"), [("0", ""), ("", "0"), (UNSURE, "")])
def test_a_step_may_move_into_a_branch_or_out_of_it(before: str, now: str) -> None:
    assert use(resumed(("StepRun", "x", 0, DONE, before)), "run", "x", now).verdict is MEMOIZED


Uses = list[tuple[str, int]]


@pytest.mark.parametrize(
    ("ids", "uses"),
    [
        (["pay", "pay", "pay"], [0, 1, 2]),
        (["pay:1", "pay", "pay"], [0, 0, 2]),
        (["pay", "pay", "pay:1"], [0, 1, 1]),
        (["pay", "pay", "pay:1", "pay:1", "pay"], [0, 1, 1, 2, 2]),
        (["pay", "pay:1", "pay:1", "pay", "pay"], [0, 0, 1, 2, 3]),
    ],
)
def test_an_id_that_looks_like_a_further_use_is_another_step(
    ids: list[str], uses: list[int]
) -> None:
    first = Run("R")
    steps = [first.begin(step_id) for step_id in ids]
    assert [step.index for step in steps] == uses
    assert len({step.hash for step in steps}) == len(ids)
    for step in steps:
        assert step.hash == hash_step_id(step.step_id, step.index)
        first.complete(step, b"1", 0, 0)
    memos = {op.id: Raw(b'{"data":1}') for op in first.unreported.take_all()}
    named = {step.hash: KnownStep("StepRun", step.step_id, step.index) for step in steps}
    for names in (named, None):
        later = Run("R", memos, names=names)
        again = [later.begin(step_id) for step_id in ids]
        assert [step.hash for step in again] == [step.hash for step in steps]
        assert {step.verdict for step in again} == {MEMOIZED}


def branches(run: Run) -> dict[str, str]:
    return {op.userland.id: op.userland.branch for op in run.unreported.take_all() if op.userland}


def test_steps_are_marked_that_are_at_work_side_by_side() -> None:
    run = Run("R")
    alone = run.begin("alone")
    run.complete(alone, b"1", 0, 0)
    one, two = run.begin("one"), run.begin("two")
    run.complete(one, b"1", 0, 0)
    run.complete(two, b"1", 0, 0)
    use(run, "sleep", "nap")
    late = run.begin("late")
    run.complete(late, b"1", 0, 0)
    use(run, "sleep", "other nap")
    known = run.begin("known", None, "0.1")
    run.complete(known, b"1", 0, 0)
    assert branches(run) == {
        "alone": "", "one": "?", "two": "", "nap": "", "late": "?", "other nap": "?", "known": "0.1"
    }  # fmt: skip


def test_work_outside_of_bodies_makes_no_branches() -> None:
    run = Run("R")
    run.hold()  # middleware
    run.complete(run.begin("a"), b"1", 0, 0)
    use(run, "sleep", "nap")
    run.release()
    assert branches(run) == {"a": "", "nap": ""}


def test_a_use_that_was_lost_takes_nothing_of_a_known_branch() -> None:
    """Its process died while it was at work beside the others."""
    done = ("StepRun", "x", 0, DONE), ("StepRun", "x", 2, DONE, "0")
    for branch in ("", "1"):
        run = resumed(*done)
        assert [use(run, "run").index, use(run, "run", "x", branch).index] == [0, 1]
        assert use(run, "run", "x", "0").index == 2
    run = resumed(("StepRun", "x", 0, DONE), ("StepRun", "x", 2, DONE, UNSURE))
    assert [use(run, "run").index, use(run, "run", "x", "1").index] == [0, 1]
    assert use(run, "run").index == 2
