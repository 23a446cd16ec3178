"""What a run has recorded and not reported yet: taken, put back, held back, given up."""

from collections.abc import Callable

import pytest
from msgspec import Raw

from stephttp._core.reports import Unreported, step_op
from stephttp._core.steps import EXECUTE, Step
from stephttp._wire.ids import types_id
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Timing, Userland

STEP = Step(EXECUTE, "a", 0, "hash", branch="0.1")


def finished(key: str) -> Op:
    return Op(OpCode.STEP_RUN, key, data=Raw(b"1"))


def failed(key: str, **opts: str | int) -> Op:
    return Op(OpCode.STEP_ERROR, key, opts=opts or None, error=ErrorInfo("E"))


def wait(key: str, name: str | None = None, shown: str | None = None) -> Op:
    return Op(OpCode.SLEEP, key, name, shown)


def recorded(*ops: Op) -> Unreported:
    unreported = Unreported()
    for op in ops:
        unreported.add(op)
    return unreported


def ids(ops: list[Op]) -> str:
    return " ".join(op.id for op in ops)


@pytest.mark.parametrize(
    ("op", "is_request"),
    [
        (OpCode.STEP_RUN, False),
        (OpCode.STEP_FAILED, False),
        (OpCode.STEP_ERROR, True),
        (OpCode.SLEEP, True),
        (OpCode.DISCOVERY_REQUEST, True),
    ],
)
def test_what_makes_the_server_act_is_kept_apart(op: OpCode, is_request: bool) -> None:
    one = Op(op, "1")
    unreported = recorded(one)
    assert (unreported.finished, unreported.requests) == (
        ([], [one]) if is_request else ([one], [])
    )


def test_what_makes_the_server_act_is_taken_last() -> None:
    ops = wait("w"), finished("a"), failed("e"), finished("b")
    unreported = recorded(*ops)
    assert ids(unreported.take_all()) == "a b w e"
    assert unreported.take_all() == []
    done, asked = recorded(*ops).take_by_kind()
    assert (ids(done), ids(asked)) == ("a b", "w e")


def test_what_could_not_be_stored_comes_first_the_next_time() -> None:
    unreported = recorded(finished("c"))
    unreported.requeue([finished("a"), finished("b")])
    assert ids(unreported.take_finished()) == "a b c"


def test_a_wait_that_is_withdrawn_is_not_asked_for() -> None:
    unreported = recorded(wait("a"), wait("b"), wait("c"), finished("a"))
    unreported.withdraw({"a", "c"})
    assert (ids(unreported.finished), ids(unreported.requests)) == ("a", "b")


@pytest.mark.parametrize(
    ("ops", "name"),
    [
        ((), ""),
        ((finished("a"),), ""),
        ((wait("w", "1h", "nap"), wait("v", "2h", "other")), "nap"),
        ((wait("w", "1h"),), "1h"),
        ((wait("w"),), ""),
    ],
)
def test_the_first_step_that_is_waited_for(ops: tuple[Op, ...], name: str) -> None:
    assert recorded(*ops).waiting_for == name


class TestHeldBack:
    """Steps whose writes may be rolled back, and what is kept beside their results."""

    @staticmethod
    def held() -> Unreported:
        unreported = recorded(finished("a"), finished(types_id("b")), finished("b"), finished("c"))
        unreported.add(failed("b"))
        unreported.add(Op(OpCode.STEP_FAILED, "b"))
        unreported.hold_back("b")
        unreported.hold_back("c")
        return unreported

    def test_they_are_not_taken(self) -> None:
        unreported = self.held()
        assert unreported.count == 2, "the failure is not held back"
        assert ids(unreported.take_finished()) == "a b"
        assert ids(unreported.finished) == f"{types_id('b')} b c"
        assert (unreported.count, unreported.take_finished()) == (0, [])
        unreported.requeue([finished("d")])
        assert ids(unreported.take_finished()) == "d"

    def test_the_order_stays(self) -> None:
        unreported = self.held()
        unreported.take_finished()
        unreported.add(finished("d"))
        unreported.release_held()
        assert ids(unreported.take_finished()) == f"{types_id('b')} b c d"

    def test_one_is_reported_once_what_it_wrote_lasts(self) -> None:
        unreported = self.held()
        unreported.settle("b")
        assert unreported.count == 4
        assert ids(unreported.take_finished()) == f"a {types_id('b')} b b"
        assert ids(unreported.finished) == "c"

    def test_it_is_known_which_are_and_have_finished(self) -> None:
        unreported = self.held()
        unreported.hold_back("at work")
        asked = "a", "b", "c", "at work"
        assert [unreported.holds_back(key) for key in asked] == [False, True, True, False]
        failure = recorded(Op(OpCode.STEP_FAILED, "b"))
        failure.hold_back("b")
        assert not failure.holds_back("b")

    @pytest.mark.parametrize(
        ("leave", "left"),
        [(Unreported.release_held, "a b c b"), (Unreported.drop_held, "a c b")],
    )
    def test_all_are_reported_or_none(self, leave: Callable[[Unreported], None], left: str) -> None:
        unreported = recorded(finished("a"), finished("b"), finished("c"))
        unreported.hold_back("b")
        leave(unreported)
        unreported.add(finished("b"))
        assert ids(unreported.take_finished()) == left

    def test_nothing_changes_where_none_is(self) -> None:
        unreported = recorded(finished("a"))
        unreported.settle("a")
        assert (unreported.count, unreported.holds_back("a")) == (1, False)
        unreported.drop_held()
        assert ids(unreported.take_finished()) == "a"


def test_a_run_that_cannot_wait_has_failed_at_the_steps_that_were_to_be_tried_again() -> None:
    unreported = recorded(
        finished("b"), wait("w"), failed("e", retries=2, retry_after="2030", input=1)
    )
    taken = [finished("a"), failed("f", retries=1), wait("v")]
    unreported.give_up_waits(taken)
    assert ids(unreported.finished) == "a b f e"
    assert unreported.requests == []


def test_their_last_failure_is_reported() -> None:
    unreported = recorded(failed("e", retries=2, retry_after="2030", input=1), failed("f"))
    unreported.give_up_waits()
    assert unreported.take_all() == [
        Op(OpCode.STEP_FAILED, "e", opts={"input": 1}, error=ErrorInfo("E")),
        Op(OpCode.STEP_FAILED, "f", error=ErrorInfo("E")),
    ]


def test_an_op_says_what_step_it_is_of() -> None:
    error, timing = ErrorInfo("E"), Timing(1, 2)
    userland = Userland("a", None, "0.1")
    assert step_op(STEP, OpCode.SLEEP) == Op(OpCode.SLEEP, "hash", "a", "a", userland=userland)
    assert step_op(
        STEP, OpCode.STEP_FAILED, name="1h", opts={"x": 1}, error=error, timing=timing
    ) == Op(
        OpCode.STEP_FAILED, "hash", "1h", "a", {"x": 1}, error=error, timing=timing,
        userland=userland,
    )  # fmt: skip
    later = step_op(Step(EXECUTE, "a", 2, "hash"), OpCode.SLEEP)
    assert later.userland == Userland("a", 2)
