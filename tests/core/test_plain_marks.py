"""Marks as they are stored on other servers, and what each says when it is read again."""

from collections.abc import Mapping

import pytest
from msgspec import Raw

from stephttp._core.plain_marks import MARKER, Mark, Marks, take_marks
from stephttp._wire.ids import hash_step_id
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Userland

X, Y = hash_step_id("x"), hash_step_id("y")


def plan(step: str, missed: int) -> str:
    return hash_step_id(f"stephttp:plan:{step}:{missed}")


def taken(*marks: Mark, **results: bytes) -> tuple[Marks, dict[str, Raw]]:
    """Return what is taken of memos that have these results and marks, and what is left."""
    memos = {hash_step_id(name): Raw(raw) for name, raw in results.items()}
    for mark in marks:
        data = mark.op().data
        assert isinstance(data, Raw)
        memos[mark.op().id] = Raw(b'{"data":' + bytes(data) + b"}")
    return take_marks(memos), memos


@pytest.mark.parametrize(
    ("mark", "name", "data"),
    [
        (MARKER, "parallel", '{"stephttp:mark":"parallel"}'),
        (Mark("planned", X), f"planned:{X}", f'{{"stephttp:mark":"planned","step":"{X}"}}'),
        (Mark("own", X), f"own:{X}", f'{{"stephttp:mark":"own","step":"{X}"}}'),
        (
            Mark("solo", X, 3, title="x"),
            "solo:3",
            f'{{"stephttp:mark":"solo","step":"{X}","count":3,"title":"x"}}',
        ),
        (
            Mark("missed", X, 2),
            f"missed:{X}:2",
            f'{{"stephttp:mark":"missed","step":"{X}","count":2}}',
        ),
        (
            Mark("failure", X, error=ErrorInfo("E", "no")),
            f"failure:{X}",
            f'{{"stephttp:mark":"failure","step":"{X}","error":{{"name":"E","message":"no"}}}}',
        ),
    ],
)
def test_a_mark_is_a_step_that_says_so(mark: Mark, name: str, data: str) -> None:
    full = f"stephttp:{name}"
    assert mark.op() == Op(
        OpCode.STEP_RUN, hash_step_id(full), full, full, data=Raw(data.encode()),
        userland=Userland(full),
    )  # fmt: skip


ERROR = ErrorInfo("E", "no")
FAILURE = b'{"error":{"name":"E","message":"no"}}'


@pytest.mark.parametrize(
    ("marks", "read"),
    [
        ([], Marks()),
        ([MARKER], Marks(parallel=True)),
        ([Mark("planned", X), Mark("planned", Y)], Marks(planned={X, Y})),
        ([Mark("own", X), Mark("end", Y)], Marks(own={X}, end={Y})),
        (
            [Mark("solo", X, 1, title="x"), Mark("solo", Y, 2)],
            Marks(solo={1: Mark("solo", X, 1, title="x"), 2: Mark("solo", Y, 2)}),
        ),
        ([Mark("missed", X, 2), Mark("missed", X, 1)], Marks(missed={X: 2})),
        ([Mark("missed", X, 1), Mark("missed", X, 2)], Marks(missed={X: 2})),
        ([Mark("failed", X, 1), Mark("failed", Y, 3)], Marks(failed={X: 1, Y: 3})),
        ([Mark("later", X)], Marks()),
        ([Mark("failure", X)], Marks()),
    ],
)
def test_marks_are_taken_out_of_what_is_remembered(marks: list[Mark], read: Marks) -> None:
    assert taken(*marks, y=b'{"data":1}') == (read, {Y: Raw(b'{"data":1}')})


def test_a_failure_is_remembered_of_its_step_unless_that_has_ended() -> None:
    failure = Mark("failure", X, error=ERROR)
    assert taken(failure) == (Marks(), {X: Raw(FAILURE)})
    assert taken(failure, x=b'{"data":1}') == (Marks(), {X: Raw(b'{"data":1}')})


@pytest.mark.parametrize(
    "results",
    [
        {"x": b'{"data":{"stephttp:mark":"parallel"}}'},
        {"stephttp:parallel": b'{"data":{"stephttp:mark":7}}'},
        {"stephttp:parallel": b'{"error":{"message":"\\"stephttp:mark\\""}}'},
    ],
)
def test_what_only_looks_like_a_mark_stays(results: Mapping[str, bytes]) -> None:
    marks, left = taken(Mark("own", X), **dict(results))
    assert (marks, list(left)) == (Marks(own={X}), [hash_step_id(name) for name in results])


class TestPlans:
    """The ids under which steps are planned, a new one after each call that has missed its step."""

    MARKS = Marks(missed={Y: 1, X: 2})

    def test_a_plan_has_the_id_of_its_step_until_that_is_missed(self) -> None:
        assert Marks().plan_of(X) == X
        assert [self.MARKS.plan_of(step) for step in (X, Y)] == [plan(X, 2), plan(Y, 1)]

    @pytest.mark.parametrize(
        ("of", "step"),
        [
            (X, X),
            (plan(X, 1), X),
            (plan(X, 2), X),
            (plan(X, 3), plan(X, 3)),
            (plan(Y, 1), Y),
            (plan(Y, 2), plan(Y, 2)),
        ],
    )
    def test_the_step_of_a_plan(self, of: str, step: str) -> None:
        assert self.MARKS.step_of(of) == step

    def test_only_the_last_plan_of_a_step_is_open_until_that_has_ended(self) -> None:
        plans = X, plan(X, 1), plan(X, 2), Y, plan(Y, 1), "0" * 40
        assert [self.MARKS.is_open(one, ()) for one in plans] == [
            False, False, True, False, True, True
        ]  # fmt: skip
        assert not self.MARKS.is_open(plan(X, 2), {X})
        assert self.MARKS.is_open(plan(X, 2), {plan(X, 2)})

    def test_a_plan_is_alone_while_no_other_is_open(self) -> None:
        marks = Marks(planned={X, Y, plan(X, 1)}, missed={X: 1})
        assert not marks.is_alone(plan(X, 1), ())
        assert marks.is_alone(plan(X, 1), {Y})
        assert not marks.is_alone(Y, ())
        assert marks.is_alone(Y, {X})
        assert Marks().is_alone(X, ())

    def test_an_op_is_planned_by_its_shown_name_and_without_its_options(self) -> None:
        op = Op(OpCode.GATEWAY, X, "name", "x", {"url": "a"}, userland=Userland("x", 2, "?"))
        assert self.MARKS.as_plan(op) == Op(
            OpCode.STEP_PLANNED, plan(X, 2), "x", "x", userland=Userland("x", 2, "?")
        )

    def test_new_plans_are_noted(self) -> None:
        ops = [Op(OpCode.STEP_PLANNED, X), Op(OpCode.SLEEP, Y), Op(OpCode.STEP_PLANNED, Y)]
        assert Marks().notes_of(ops) == [Mark("planned", X).op(), Mark("planned", Y).op()]
        assert Marks(planned={X}).notes_of(ops) == [Mark("planned", Y).op()]


FIRST, SECOND = Mark("solo", X, 1, title="x"), Mark("solo", Y, 2, title="y")


class TestSections:
    @pytest.mark.parametrize(
        ("marks", "memos", "section"),
        [
            (Marks(), (), None),
            (Marks(solo={1: FIRST}), (), FIRST),
            (Marks(solo={2: SECOND, 1: FIRST}), (), SECOND),
            (Marks(solo={1: FIRST, 2: SECOND}, end={X}), (), SECOND),
            (Marks(solo={1: FIRST, 2: SECOND}, end={Y}), (), None),
            (Marks(solo={1: FIRST}), (X,), None),
            (Marks(solo={1: FIRST}, own={X}), (X,), FIRST),
            (Marks(solo={1: FIRST}, own={Y}), (X,), None),
            (Marks(solo={1: FIRST}, own={X}, end={X}), (X,), None),
            (Marks(solo={1: FIRST}, missed={X: 1}), (), None),
        ],
    )
    def test_the_last_one_counts_while_its_step_can_begin_or_is_at_work(
        self, marks: Marks, memos: tuple[str, ...], section: Mark | None
    ) -> None:
        assert marks.section(memos) == section

    def test_the_next_one_has_the_next_number(self) -> None:
        assert Marks().next_section(X, "x") == FIRST
        assert Marks(solo={3: FIRST, 1: FIRST}).next_section(Y, "y") == Mark(
            "solo", Y, 4, title="y"
        )
