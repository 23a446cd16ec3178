"""What a call of a server that is not ours stores and answers, op by op."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from msgspec import Raw

from stephttp._core import waits
from stephttp._core.plain_marks import MARKER, Mark, Marks
from stephttp._core.plain_opening import Opening, opening, storable
from stephttp._core.plain_server import (
    Mode,
    PlainCall,
    Report,
    answer_at_once,
    call_of,
    nothing,
    report,
)
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, SUSPEND
from stephttp._wire.ids import hash_step_id
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Timing, Userland

X, Y = hash_step_id("x"), hash_step_id("y")
SECOND = timedelta(seconds=1)
SOLO = Mark("solo", X, 1, title="x")
OWN = Mark("own", X)
AGAIN = Op(
    OpCode.DISCOVERY_REQUEST,
    hash_step_id("stephttp:discover:1"),
    "stephttp:discover:1",
    "stephttp:discover:1",
)
"""What asks for another call."""


def call(target: str | None, *marks: Mark, **results: bytes) -> tuple[PlainCall, Run]:
    memos = {hash_step_id(name): Raw(raw) for name, raw in results.items()}
    for mark in marks:
        data = mark.op().data
        assert isinstance(data, Raw)
        memos[mark.op().id] = Raw(b'{"data":' + bytes(data) + b"}")
    made = call_of(memos, target)
    return made, Run("R", memos, target=made.run_target)


def said(made: tuple[PlainCall, Run], *, parked: bool = False) -> Report | None:
    return report(*made, "1", parked=parked)


def finish(run: Run, step_id: str) -> Op:
    """Run a step, and return what is stored of it."""
    step = run.begin(step_id)
    assert step.verdict is EXECUTE
    run.complete(step, b"1", 3, 4)
    return run.unreported.finished[-1]


def fail(run: Run, step_id: str, retries: int = 0) -> Op:
    """Let a step fail, and return what is recorded of it."""
    run.fail(run.begin(step_id, retries), ErrorInfo("E"), 3, 4)
    return (run.unreported.requests if retries else run.unreported.finished)[-1]


def planned(step_id: str, plan: str | None = None) -> Op:
    return Op(
        OpCode.STEP_PLANNED, plan or hash_step_id(step_id), step_id, step_id,
        userland=Userland(step_id),
    )  # fmt: skip


def racing(op: Op) -> Op:
    return Op(
        op.op, op.id, op.name, op.display_name, {**(op.opts or {}), "parallelMode": "race"},
        op.data, op.error, op.timing, op.userland,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "marks", "answer", "races"),
    [
        (None, (MARKER, SOLO), planned("x"), True),
        (X, (MARKER, Mark("missed", X, 1)), AGAIN, True),
        (None, (MARKER, SOLO, OWN), Op(OpCode.NONE, hash_step_id("stephttp:none:1")), False),
    ],
)
def test_what_is_answered_without_the_handler(
    target: str | None, marks: Sequence[Mark], answer: Op, races: bool
) -> None:
    made, _ = call(target, *marks)
    assert answer_at_once(made, "1") == [answer]
    made.races = True
    assert answer_at_once(made, "1") == [racing(answer) if races else answer]


def test_what_runs_the_handler_is_not_answered_at_once() -> None:
    for mode in (Mode.INLINE, Mode.DISCOVER, Mode.TARGET, Mode.PASS):
        assert answer_at_once(PlainCall(mode, None, Marks(), section=SOLO), "1") is None


@pytest.mark.parametrize(
    ("mode", "target"),
    [
        (Mode.TARGET, X),
        (Mode.DISCOVER, "plan"),
        (Mode.PASS, "plan"),
        (Mode.INLINE, None),
        (Mode.PLAN, None),
    ],
)
def test_what_the_run_is_to_execute(mode: Mode, target: str | None) -> None:
    assert PlainCall(mode, X, Marks()).run_target == target


@pytest.mark.parametrize(
    ("step", "marks", "generation", "failing", "unsure", "before"),
    [
        (X, Marks(), 1, [], False, 0),
        (X, Marks(), 3, [], False, 2),
        (X, Marks(), 1, [X], False, 1),
        (X, Marks(), 1, [Y], False, 0),
        (X, Marks(), 3, [Y, X], False, 3),
        (X, Marks(failed={X: 4}), 2, [X], False, 5),
        (X, Marks(failed={X: 0}), 1, [X], True, 0),
        (X, Marks(failed={Y: 4}), 2, [], True, 1),
        (None, Marks(), 1, [], True, 0),
        (None, Marks(), 3, [], True, 2),
        (None, Marks(), 1, [X], False, 0),
        (None, Marks(), 1, [X], True, 1),
        (None, Marks(), 2, [X], False, 2),
        (None, Marks(), 2, [X], True, 2),
        (None, Marks(parallel=True), 2, [X], True, 1),
    ],
)
def test_how_often_a_call_has_failed_before(
    step: str | None, marks: Marks, generation: int, failing: list[str], unsure: bool, before: int
) -> None:
    made = PlainCall(Mode.TARGET if step else Mode.INLINE, step, marks)
    assert made.failed_before(generation, failing, unsure=unsure) == before


def test_a_discovery_answers_each_open_thing_once_and_as_it_is() -> None:
    made = call(None, MARKER)
    _, run = made
    assert run.begin("x").verdict is SUSPEND
    run.wait(waits.sleep("nap", SECOND))
    run.wait(waits.wait_for_signal("go", "s", SECOND, "fail"))
    run.unreported.add(Op(OpCode.SLEEP, X, "first"))
    nap = Op(
        OpCode.SLEEP, hash_step_id("nap"), "1s", "nap", {"duration": "1s"}, userland=Userland("nap")
    )
    answer = [planned("x"), nap, planned("go")]
    notes = [Mark("planned", hash_step_id(step_id)).op() for step_id in ("x", "go")]
    assert said(made, parked=True) == Report(notes, answer)


@pytest.mark.parametrize("parked", [True, False])
def test_a_discovery_that_finds_one_step_begins_a_section(parked: bool) -> None:
    made = call(None, MARKER)
    made[1].begin("x")
    notes = [Mark("planned", X).op(), *([SOLO.op()] if parked else [])]
    assert said(made, parked=parked) == Report(notes, [planned("x")])


def test_a_step_that_was_planned_before_may_begin_one_too() -> None:
    made = call(None, MARKER, Mark("planned", X))
    made[1].begin("x")
    assert said(made, parked=True) == Report([SOLO.op()], [planned("x")])


def test_a_discovery_in_which_a_step_has_finished_begins_none() -> None:
    made = call(None, MARKER)
    _, run = made
    run.begin("x")
    run.target = None
    done = finish(run, "y")
    assert said(made, parked=True) == Report([done, Mark("planned", X).op()], [planned("x")])


def test_a_discovery_that_finds_nothing_asks_for_another_call() -> None:
    assert said(call(None, MARKER), parked=True) == Report([], [AGAIN])


def test_the_call_of_a_step_answers_its_end_and_stores_that_too() -> None:
    made = call(X, MARKER)
    done = finish(made[1], "x")
    assert said(made) == Report([done], [done])
    made = call(X, MARKER)
    failed = fail(made[1], "x")
    assert said(made) == Report([], [failed])
    made = call(X, MARKER)
    made[0].races = True
    again = fail(made[1], "x", 2)
    assert said(made) == Report([], [racing(again)])


def test_the_call_of_a_step_stores_what_else_was_finished_in_it() -> None:
    made = call(X, MARKER)
    _, run = made
    run.target = None
    other, failed, done = finish(run, "y"), fail(run, "z"), finish(run, "x")
    kept = Mark("failure", failed.id, error=ErrorInfo("E")).op()
    assert said(made) == Report([other, kept, done], [done])


@pytest.mark.parametrize(
    ("missed", "seconds"), [(1, 1), (2, 2), (4, 8), (9, 256), (10, 300), (19, 300)]
)
def test_a_step_that_is_missed_again_is_planned_after_a_pause(missed: int, seconds: int) -> None:
    made = call(Marks(missed={X: missed}).plan_of(X), MARKER, Mark("missed", X, missed))
    made[1].begin("y")
    name, text = f"stephttp:pause:{X}:{missed + 1}", f"{seconds}s"
    pause = Op(
        OpCode.SLEEP, hash_step_id(name), text, name, {"duration": text}, userland=Userland(name)
    )
    assert said(made) == Report([Mark("missed", X, missed + 1).op()], [pause])


def test_a_step_that_is_missed_for_the_first_time_keeps_the_number_of_its_failures() -> None:
    for failed in (0, 1):
        made = call(X, MARKER)
        made[1].earlier.note_failures(0, {X: failed})
        notes = [Mark("missed", X, 1).op()]
        if failed:
            notes.append(Mark("failed", X, 1).op())
        assert said(made) == Report(notes, [AGAIN])


class TestInline:
    def test_one_open_thing_is_answered_as_it_is(self) -> None:
        made = call(None)
        _, run = made
        done = finish(run, "x")
        run.wait(waits.sleep("nap", SECOND))
        (nap,) = run.unreported.requests
        assert said(made) == Report([done], [nap])

    def test_nothing_open_asks_for_another_call(self) -> None:
        made = call(None)
        done = finish(made[1], "x")
        assert said(made) == Report([done], [AGAIN])

    def test_several_mark_the_run_and_plan_what_a_server_does_each_time(self) -> None:
        made = call(None)
        _, run = made
        run.earlier.note_failures(0, {Y: 2})
        failed = fail(run, "y", 5)
        run.wait(waits.wait_for_signal("go", "s", SECOND, "fail"))
        run.wait(waits.sleep("nap", SECOND))
        nap = run.unreported.requests[-1]
        go = run.unreported.requests[-2]
        plan = Op(OpCode.STEP_PLANNED, go.id, "go", "go", userland=go.userland)
        stored = [MARKER.op(), Mark("failed", Y, 3).op(), Mark("planned", go.id).op()]
        assert said(made) == Report(stored, [failed, plan, nap])

    def test_a_run_that_is_marked_is_not_marked_again(self) -> None:
        made = call(X, MARKER, SOLO)
        _, run = made
        done = finish(run, "x")
        run.wait(waits.sleep("nap", SECOND))
        run.wait(waits.sleep("other", SECOND))
        naps = list(run.unreported.requests)
        assert said(made) == Report([done, Mark("end", X).op()], naps)

    def test_a_signal_alone_is_planned_in_a_run_that_is_marked(self) -> None:
        made = call(X, MARKER, SOLO)
        _, run = made
        done = finish(run, "x")
        run.wait(waits.wait_for_signal("go", "s", SECOND, "fail"))
        note = Mark("planned", hash_step_id("go")).op()
        assert said(made) == Report([done, note, Mark("end", X).op()], [planned("go")])

    def test_a_section_that_has_missed_its_step_says_so_and_asks_for_another_call(self) -> None:
        made = call(X, MARKER, SOLO)
        notes = [Mark("missed", X, 1).op(), Mark("end", X).op()]
        assert said(made) == Report(notes, [AGAIN])

    def test_a_section_that_has_missed_its_step_too_often_is_given_up(self) -> None:
        missed = Mark("missed", X, 20)
        plan = Marks(missed={X: 20}).plan_of(X)
        made = call(plan, MARKER, missed, Mark("solo", plan, 1, title="x"))
        assert made[0].mode is Mode.INLINE
        assert said(made) is None

    def test_the_second_use_of_an_id_may_be_the_first_step_of_a_section(self) -> None:
        second = hash_step_id("x", 1)
        made = call(second, MARKER, Mark("solo", second, 1, title="x"), x=b'{"data":1}')
        _, run = made
        run.begin("x")
        done = finish(run, "x")
        assert done.id == second
        assert said(made) == Report([done, Mark("end", second).op()], [AGAIN])


class TestSections:
    def test_the_first_result_is_preceded_by_a_note_once(self) -> None:
        made, _ = call(X, MARKER, SOLO)
        assert made.first_op == OWN.op()
        assert call(X, MARKER, SOLO, OWN)[0].first_op is None
        assert call(X, MARKER)[0].first_op is None


class TestOpening:
    """The first checkpoint."""

    DONE = Op(OpCode.STEP_RUN, "1", data=Raw(b"1"))
    NAP = Op(OpCode.SLEEP, "2", "1s", "nap", {"duration": "1s"})
    EVENT = Op(OpCode.WAIT_FOR_EVENT, "3", "go")
    GATEWAY = Op(OpCode.GATEWAY, X, "name", "x", {"url": "a"}, userland=Userland("x"))
    INFER = Op(OpCode.AI_GATEWAY, X, "name", "x", {"url": "a"}, userland=Userland("x"))
    FAILED = Op(OpCode.STEP_ERROR, "4", error=ErrorInfo("E"))

    def test_one_open_thing_marks_nothing(self) -> None:
        assert opening([self.NAP, self.DONE]) == Opening([self.DONE, self.NAP], [])
        assert opening([self.EVENT, self.DONE]) == Opening([self.DONE], [self.EVENT])
        assert opening([self.FAILED]) == Opening([self.FAILED], [])
        assert opening([self.DONE]) == Opening([self.DONE], [])

    def test_two_mark_the_run_and_what_is_planned_in_it(self) -> None:
        plan, note = planned("x"), Mark("planned", X).op()
        for gateway in (self.GATEWAY, self.INFER):
            assert opening([gateway, self.EVENT, self.DONE]) == Opening(
                [self.DONE, MARKER.op(), note, plan], [self.EVENT]
            )
        assert opening([self.NAP, self.FAILED, self.FAILED]) == Opening(
            [MARKER.op(), self.FAILED, self.NAP], []
        )

    @pytest.mark.parametrize(
        ("opts", "stays"),
        [(None, False), ({"conflict": "fail"}, False), ({"conflict": "replace"}, True)],
    )
    def test_a_signal_is_waited_for_where_no_other_run_can_have_it(
        self, opts: dict[str, str] | None, stays: bool
    ) -> None:
        signal = Op(OpCode.WAIT_FOR_SIGNAL, "1", opts=opts)
        assert opening([signal]) == Opening([signal if stays else AGAIN], [])


def test_failures_are_kept_by_marks_unless_the_run_ends_with_them() -> None:
    failed = Op(OpCode.STEP_FAILED, X, error=ErrorInfo("E"), timing=Timing(1, 2))
    bare = Op(OpCode.STEP_FAILED, Y)
    done, end = TestOpening.DONE, Op(OpCode.RUN_COMPLETE, "end")
    assert storable([done, failed, bare]) == [
        done,
        Mark("failure", X, error=ErrorInfo("E")).op(),
        Mark("failure", Y, error=ErrorInfo()).op(),
    ]
    assert storable([failed, end]) == [failed, end]


def test_nothing_is_an_op_of_its_own_id() -> None:
    assert nothing("7") == Op(OpCode.NONE, hash_step_id("stephttp:none:7"))
