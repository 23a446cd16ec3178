"""What a run says of itself and records, op by op, where a handler comes to steps, waits, races."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec import UNSET, Raw

from stephttp._core import http_steps, waits
from stephttp._core.call_state import State
from stephttp._core.run import Run
from stephttp._core.steps import CUT, EXECUTE, MEMOIZED, NEVER, SUSPEND, CutTimes, Step
from stephttp._wire.ids import CAPSULE, hash_step_id, types_id
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Timing, Userland
from stephttp.errors import CannotWaitError, DivergenceError

A, B = hash_step_id("a"), hash_step_id("b")
NAP = waits.sleep("nap", timedelta(seconds=1))
NAP_OP = Op(
    OpCode.SLEEP, hash_step_id("nap"), "1s", "nap", {"duration": "1s"}, userland=Userland("nap")
)
LATE = waits.wait_for_event("late", "e", timedelta(seconds=1), "event.data.x == 1")
DONE, CAPSULED = Raw(b'{"data":1}'), {CAPSULE: Raw(b'{"data":{}}')}


def done(run: Run, step_id: str = "a", **more: Any) -> Op:
    """Run a step, and return what is recorded of it."""
    assert run.complete(run.begin(step_id), b"1", 100, 5, **more) is EXECUTE
    return run.unreported.finished[-1]


def of(step_id: str = "a", **more: Any) -> Op:
    """Return the op of a step that took from 100 to 105."""
    given: dict[str, Any] = {
        "op": OpCode.STEP_RUN, "id": hash_step_id(step_id), "name": step_id,
        "display_name": step_id, "data": Raw(b"1"), "timing": Timing(100, 5),
        "userland": Userland(step_id),
    } | more  # fmt: skip
    return Op(**given)


class TestFinished:
    def test_a_step_is_recorded_with_what_else_is_said_of_it(self) -> None:
        run = Run("R")
        assert done(run) == of()
        assert done(run, "b", opts={"input": Raw(b"[]")}) == of("b", opts={"input": Raw(b"[]")})
        second = of(id=hash_step_id("a", 1), userland=Userland("a", 1))
        assert done(run) == second

    def test_the_types_that_it_returned_are_recorded_before_it(self) -> None:
        run = Run("R")
        done(run, kept=b"[]")
        name = "stephttp:types:a"
        kept = Op(
            OpCode.STEP_RUN, types_id(A), name, name, data=Raw(b"[]"), userland=Userland(name)
        )
        assert run.unreported.finished == [kept, of()]

    def test_one_beside_others_ends_after_them_and_has_no_sure_branch(self) -> None:
        run = Run("R")
        first, second = run.begin("a"), run.begin("b")
        run.complete(first, b"1", 100, 50)
        run.complete(second, b"1", 100, 5)
        assert run.unreported.finished == [
            of(timing=Timing(100, 50), userland=Userland("a", None, "?")),
            of("b", timing=Timing(100, 51)),
        ]
        assert (run.branched, run.beside, run.settled) == (True, False, True)

    def test_one_whose_branch_is_known_keeps_it(self) -> None:
        run = Run("R")
        step = run.begin("a", branch="0.1")
        run.complete(step, b"1", 100, 5)
        assert run.unreported.finished == [of(userland=Userland("a", None, "0.1"))]


class TestFailed:
    def test_for_good(self) -> None:
        run, error = Run("R"), ErrorInfo("E", "no")
        step = run.begin("a")
        assert run.fail(step, error, 100, 5, "2030", {"input": 1}) is EXECUTE
        assert run.unreported.take_all() == [
            of(op=OpCode.STEP_FAILED, data=UNSET, error=error, opts={"input": 1})
        ]
        assert (run.settled, run.suspended) == (True, False)

    @pytest.mark.parametrize(("run_retries", "own", "most"), [(2, None, 2), (2, 5, 5), (5, 2, 5)])
    def test_to_be_tried_again(self, run_retries: int, own: int | None, most: int) -> None:
        run, error = Run("R", None, run_retries), ErrorInfo("E", "no")
        given = {"input": 1}
        assert run.fail(run.begin("a", own), error, 100, 5, "2030", given) is SUSPEND
        retries = run_retries if own is None else own
        assert run.unreported.take_all() == [
            Op(
                OpCode.STEP_ERROR, A, "a", "a",
                {"input": 1, "retries": retries, "retry_after": "2030"}, error=error,
                timing=Timing(100, 5), userland=Userland("a"),
            )
        ]  # fmt: skip
        assert (given, run.declared_retries, run.suspended) == ({"input": 1}, most, True)

    def test_after_the_end_nothing_is_recorded_and_the_handler_continues(self) -> None:
        run = Run("R", None, 2)
        step = run.begin("a")
        run.end()
        assert run.fail(step, ErrorInfo("E"), 100, 5) is EXECUTE
        assert (run.unreported.take_all(), run.declared_retries, run.settled) == ([], 2, True)

    def test_beside_others(self) -> None:
        run = Run("R")
        first, second = run.begin("a"), run.begin("b")
        run.fail(first, ErrorInfo("E"), 100, 50)
        run.fail(second, ErrorInfo("E"), 100, 5)
        times = [(op.timing, op.userland) for op in run.unreported.take_all()]
        assert times == [
            (Timing(100, 50), Userland("a", None, "?")), (Timing(100, 51), Userland("b"))
        ]  # fmt: skip


class TestCutOff:
    TIMES = CutTimes(100, 105, 90)

    def test_an_abandoned_step_is_forgotten(self) -> None:
        run = Run("R")
        run.abandon(run.begin("a"))
        assert (run.cut_short, run.settled, run.cuts) == (True, True, None)

    @pytest.mark.parametrize("body", [True, False])
    def test_one_that_was_cancelled_may_begin_again(self, body: bool) -> None:
        run = Run("R", {})
        step = run.begin("a")
        run.cut_off(step, self.TIMES)
        assert (run.cut_short, run.settled) == (True, True)
        run.begin("b")
        (entry,) = run.unreported.take_all()
        assert b'"raised"' not in bytes(entry.data)  # type: ignore[arg-type]
        memo = Raw(b'{"data":' + bytes(entry.data) + b"}")  # type: ignore[arg-type]
        later = Run("R", {entry.id: memo, B: DONE})
        cut = later.begin("a")
        assert cut.verdict is CUT
        begun = later.renew(cut, 200, body=body)
        assert (begun.verdict, begun.step_id, begun.hash) == (EXECUTE, "a", A)
        assert (later.running, later.replaying) == (int(body), False)
        (entry,) = later.unreported.take_all()
        assert (entry.op, entry.name) == (OpCode.STEP_RUN, "stephttp:cut:a")

    def test_none_begins_again_while_the_handler_is_ended(self) -> None:
        run = Run("R", {})
        run.wait(NAP)
        run.unwind()
        step = Step(CUT, "a", 0, A)
        assert run.renew(step, 200, body=True) == Step(SUSPEND, "a", 0, A)
        assert run.settled

    def test_where_none_was_cut_off_nothing_is_recorded(self) -> None:
        run = Run("R")
        assert run.renew(Step(CUT, "a", 0, A), 200) == Step(EXECUTE, "a", 0, A)
        run.end()
        run.end_late(Step(EXECUTE, "a", 0, A), NEVER)
        assert (run.unreported.take_all(), run.cuts) == ([], None)


class TestMet:
    """What a run knows of the steps to which its handler has come."""

    def test_it_replays_until_something_is_new_or_all_is_met(self) -> None:
        assert not Run("R").replaying
        assert not Run("R", CAPSULED).replaying
        run = Run("R", {A: DONE, B: DONE})
        seen = [run.replaying]
        for step_id in ("a", "b"):
            run.begin(step_id)
            seen.append(run.replaying)
        assert seen == [True, True, False]
        run = Run("R", {A: DONE})
        run.begin("b")
        assert not run.replaying

    @pytest.mark.parametrize(
        ("memos", "failures", "target", "none"),
        [
            (None, {}, None, False),
            ({}, {}, None, False),
            (CAPSULED, {}, None, False),
            ({A: DONE}, {}, None, True),
            ({A: Raw(b'{"input":[1]}')}, {}, None, False),
            ({}, {A: 1}, None, True),
            ({}, {}, A, True),
        ],
    )
    def test_that_it_came_to_none_is_known(
        self,
        memos: dict[str, Raw] | None,
        failures: dict[str, int],
        target: str | None,
        none: bool,
    ) -> None:
        run = Run("R", memos, target=target)
        if memos is not None:
            run.earlier.note_failures(0, failures)
        assert run.met_none is none
        run.begin("other")
        assert not run.met_none

    def test_edited_arguments_are_given_to_the_body(self) -> None:
        run = Run("R", {A: Raw(b'{"input":[1]}')})
        step = run.begin("a")
        assert (step.verdict, step.memo and bytes(step.memo.raw)) == (EXECUTE, b"[1]")

    def test_a_step_knows_its_retries_and_its_branch(self) -> None:
        assert Run("R").begin("a", 3, "0.1") == Step(EXECUTE, "a", 0, A, None, 3, "0.1")
        run = Run("R", {A: Raw(b'{"pending":true}')})
        met = run.begin("a", 3, "0.1")
        assert (met.verdict, met.retries, met.branch) == (SUSPEND, 3, "0.1")
        assert (run.pending, run.state, run.settled) == (True, State.WAITING, True)
        run.unwind()
        assert run.begin("b", 3, "0.1") == Step(SUSPEND, "b", 0, B, None, 3)
        assert (run.uses, run.used) == ({"a": 1, "b": 1}, True)

    def test_a_divergence_ends_the_call(self) -> None:
        run = Run("R", {A: Raw(b"null")})
        run.configure(on_divergence="fail")
        with pytest.raises(DivergenceError) as raised:
            run.begin("a")
        assert run.diverged is raised.value
        assert (run.over, run.begin("b").verdict) == (True, SUSPEND)
        calm = Run("R", {A: Raw(b"null")})
        calm.configure(on_divergence="warn", retries=4)
        assert (calm.begin("a").index, calm.diverged, calm.retries) == (1, None, 4)


def test_what_happens_outside_of_steps_is_noted() -> None:
    run = Run("R", None, 3)
    assert (run.unreached, run.carried, run.used, run.resumed) == (False, None, False, False)
    for note, unreached in ((run.middleware_began, True), (run.handler_reached, False)):
        note()
        assert run.unreached is unreached
    run.carry({"a": "b"})
    run.track()
    assert (run.carried, run.used) == ({"a": "b"}, True)
    run.configure(id="x")
    assert (run.opts.id, run.retries, run.declared_retries) == ("x", 3, 3)
    run.configure(retries=1)
    assert (run.opts.id, run.opts.retries, run.retries) == ("x", 1, 1)
    assert run.run_id == "R"


class TestWaits:
    def test_a_wait_is_asked_for_once(self) -> None:
        run = Run("R")
        step = run.wait(NAP)
        assert step == Step(SUSPEND, "nap", 0, hash_step_id("nap"))
        assert (run.unreported.take_all(), run.state) == ([NAP_OP], State.WAITING)
        known = Run("R", {step.hash: Raw(b"null")})
        assert known.wait(NAP).verdict is MEMOIZED
        assert known.unreported.take_all() == []

    def test_one_beside_a_body_has_no_sure_branch(self) -> None:
        run = Run("R")
        run.begin("a")
        run.wait(NAP)
        (op,) = run.unreported.requests
        assert op.userland == Userland("nap", None, "?")
        run = Run("R")
        run.wait(NAP, "0.1")
        (op,) = run.unreported.requests
        assert op.userland == Userland("nap", None, "0.1")

    def test_why_it_cannot_be(self) -> None:
        run = Run("R")
        run.refuse_waits("there is no server.")
        with pytest.raises(CannotWaitError) as raised:
            run.wait(NAP)
        assert str(raised.value) == "step 'nap' has to wait, but there is no server."
        run = Run("R")
        run.end()
        with pytest.raises(CannotWaitError) as raised:
            run.wait(NAP)
        assert str(raised.value) == (
            "step 'nap' has to wait, but the response is complete, so the caller can no longer be "
            "redirected; wait before the first byte of the response is sent"
        )

    def test_one_that_may_not_travel_early_asks_for_another_call(self) -> None:
        name = f"stephttp:discover:{hash_step_id('late')}"
        run = Run("R")
        run.wait(LATE)
        assert run.unreported.take_all() == [
            Op(OpCode.DISCOVERY_REQUEST, hash_step_id(name), name, name)
        ]
        again = Run("R", {})
        again.wait(LATE)
        assert [op.op for op in again.unreported.take_all()] == [OpCode.WAIT_FOR_EVENT]

    def test_that_of_a_call_for_another_step_is_kept(self) -> None:
        run = Run("R", {}, target=A)
        run.wait(NAP)
        assert run.wait(LATE).verdict is SUSPEND
        assert run.passed_waits == {hash_step_id("nap"): NAP, hash_step_id("late"): LATE}
        assert run.unreported.take_all() == []

    @pytest.mark.parametrize(
        ("memos", "retries", "failed", "told"),
        [
            (None, 0, None, None),
            (None, 2, None, 2),
            ({}, 0, None, 0),
            (None, 0, 3, 0),
        ],
    )
    def test_a_request_says_how_often_it_may_be_repeated(
        self, memos: dict[str, Raw] | None, retries: int, failed: int | None, told: int | None
    ) -> None:
        run = Run("R", memos, retries)
        if failed is not None:
            run.fail(run.begin("a", failed), ErrorInfo("E"), 0, 0)
        run.wait(http_steps.fetch("f", "http://x.test", "POST", None, None))
        op = run.unreported.requests[-1]
        assert op.opts is not None
        assert op.opts.get("retries") == told
        assert op.opts["headers"] == {"Idempotency-Key": f"R-{hash_step_id('f')}"}


class TestRaces:
    def test_who_has_won_is_recorded(self) -> None:
        run = Run("R")
        step = run.meet_race("a")
        assert (step.verdict, run.settled) == (EXECUTE, True)
        assert run.win(step, b"1", 100, 5) is EXECUTE
        assert run.unreported.take_all() == [of()]

    def test_it_has_no_branch_and_no_retries(self) -> None:
        assert Run("R").meet_race("a") == Step(EXECUTE, "a", 0, A)

    def test_a_race_keeps_no_server_from_its_step(self) -> None:
        run = Run("R", {}, target=B)
        race = run.meet_race("a")
        assert (race.verdict, run.target) == (EXECUTE, B)
        assert run.win(race, b"1", 100, 5) is SUSPEND
        assert (run.unreported.take_all(), list(run.passed)) == ([], [race])
        with pytest.raises(ValueError, match="empty"):
            run.meet_race("")
        assert run.target == B

    def test_the_server_may_ask_for_the_race_itself(self) -> None:
        run = Run("R", {}, target=A)
        assert run.win(run.meet_race("a"), b"1", 100, 5) is SUSPEND
        assert run.unreported.take_all() == [of()]

    @pytest.mark.parametrize("target", [None, A, B])
    def test_after_the_end_it_is_not_recorded(self, target: str | None) -> None:
        run = Run("R", {}, target=target)
        race = run.meet_race("a")
        run.end()
        assert run.win(race, b"1", 100, 5) is EXECUTE
        assert (run.unreported.take_all(), run.passed) == ([], ())


def test_further_uses_of_an_id_are_counted() -> None:
    run = Run("R")
    steps = [run.begin(step_id) for step_id in ("a", "a:1", "a", "a", "a:2")]
    assert [step.index for step in steps] == [0, 0, 2, 3, 1]
    assert len({step.hash for step in steps}) == 5
