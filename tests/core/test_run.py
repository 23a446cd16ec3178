"""The state machine alone: its table row by row, and programs run with every possible cut."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from stephttp._core import waits
from stephttp._core.codec import encode_struct
from stephttp._core.ids import hash_step_id
from stephttp._core.ops import ErrorInfo, Op, OpCode
from stephttp._core.run import Run, State, Verdict
from stephttp.errors import CannotWaitError, UsageError

SECOND = timedelta(seconds=1)


def waiting() -> Run:
    run = Run("R")
    run.wait(waits.sleep("nap", SECOND))
    return run


def unwinding() -> Run:
    run = waiting()
    run.unwind()
    return run


def ended() -> Run:
    run = Run("R")
    run.end()
    return run


@pytest.mark.parametrize(
    ("make", "verdict", "state"),
    [
        (lambda: Run("R"), Verdict.EXECUTE, State.RUNNING),
        (waiting, Verdict.EXECUTE, State.WAITING),
        (unwinding, Verdict.SUSPEND, State.UNWINDING),
        (ended, Verdict.EXECUTE, State.ENDED),
    ],
)
def test_a_step_body(make: Any, verdict: Verdict, state: State) -> None:
    run = make()
    assert run.begin("a").verdict is verdict
    assert run.state is state


@pytest.mark.parametrize(
    ("make", "state", "sleeps"),
    [
        (lambda: Run("R"), State.WAITING, 1),
        (waiting, State.WAITING, 2),
        (unwinding, State.UNWINDING, 1),
    ],
)
def test_a_wait(make: Any, state: State, sleeps: int) -> None:
    run = make()
    assert run.wait(waits.sleep("b", SECOND)).verdict is Verdict.SUSPEND
    assert run.state is state
    assert [op.op for op in run.take_ops()] == [OpCode.SLEEP] * sleeps


@pytest.mark.parametrize("reason", ["the response has begun", None])
def test_a_wait_that_nobody_can_be_made_to_wait_for(reason: str | None) -> None:
    run = Run("R") if reason else ended()
    run.cannot_wait = reason
    with pytest.raises(CannotWaitError, match="'b' has to wait, but the response"):
        run.wait(waits.sleep("b", SECOND))
    assert run.take_ops() == []


def test_a_finished_step_is_recorded_with_its_times() -> None:
    run = Run("R")
    run.complete(run.begin("a"), b'{"x":1}', 100, 5)
    assert json.loads(encode_struct(run.take_ops())) == [
        {
            "op": "StepRun",
            "id": hash_step_id("a"),
            "name": "a",
            "displayName": "a",
            "data": {"x": 1},
            "timing": {"a": 100, "b": 5},
            "userland": {"id": "a"},
        }
    ]
    assert run.take_ops() == []


@pytest.mark.parametrize(
    ("retries", "error", "cannot_wait", "op", "verdict"),
    [
        (0, ErrorInfo("E"), None, OpCode.STEP_FAILED, Verdict.EXECUTE),
        (2, ErrorInfo("E"), None, OpCode.STEP_ERROR, Verdict.SUSPEND),
        (2, ErrorInfo("E", no_retry=True), None, OpCode.STEP_FAILED, Verdict.EXECUTE),
        (2, ErrorInfo("E"), "the response has begun", OpCode.STEP_FAILED, Verdict.EXECUTE),
    ],
)
def test_a_failed_step(
    retries: int, error: ErrorInfo, cannot_wait: str | None, op: OpCode, verdict: Verdict
) -> None:
    run = Run("R", retries=retries)
    run.cannot_wait = cannot_wait
    assert run.fail(run.begin("a"), error, 0, 0) is verdict
    assert run.suspended is (verdict is Verdict.SUSPEND)
    (recorded,) = run.take_ops()
    assert (recorded.op, recorded.error) == (op, error)


def test_an_abandoned_step_leaves_no_trace() -> None:
    run = Run("R")
    run.abandon(run.begin("a"))
    assert run.settled
    assert run.take_ops() == []


def test_after_the_end_nothing_is_recorded() -> None:
    run = Run("R")
    step = run.begin("a")
    run.end()
    run.complete(step, b"1", 0, 0)
    assert run.settled
    assert run.take_ops() == []


def test_what_makes_the_server_act_comes_last_and_can_be_left() -> None:
    run = waiting()
    run.complete(run.begin("a"), b"1", 0, 0)
    assert [op.op for op in run.take_finished()] == [OpCode.STEP_RUN]
    assert [op.op for op in run.take_ops()] == [OpCode.SLEEP]


def test_a_known_wait_is_not_reported_again() -> None:
    run = Run("R", {hash_step_id("nap"): Raw(b'{"pending":true}')})
    assert run.wait(waits.sleep("nap", SECOND)).verdict is Verdict.SUSPEND
    assert run.suspended
    assert run.take_ops() == []


def test_sleeps_that_no_server_takes() -> None:
    run = Run("R")
    with pytest.raises(ValueError, match="366 days"):
        run.wait(waits.sleep("a", timedelta(days=367)))
    with pytest.raises(ValueError, match="time zone"):
        run.wait(waits.sleep_until("a", datetime(2026, 1, 1)))  # noqa: DTZ001
    with pytest.raises(UsageError, match="empty"):
        run.wait(waits.sleep("", SECOND))
    assert not run.suspended


def test_a_sleep_until_a_time_says_when() -> None:
    run = Run("R")
    run.wait(waits.sleep_until("a", datetime(2026, 1, 2, 3, tzinfo=UTC)))
    (op,) = run.take_ops()
    assert op.opts == {"duration": "2026-01-02T03:00:00.000+00:00"}


def test_a_run_without_steps_is_not_used() -> None:
    assert not Run("R").used
    assert Run("R", {}).used
    assert waiting().used


# A program is a list of things a handler does in order; ids repeat on purpose.
programs = st.lists(
    st.tuples(st.sampled_from(["run", "sleep"]), st.sampled_from("ab")), max_size=12
)


@given(programs, st.data())
def test_a_program_cut_anywhere_gives_what_it_gives_uncut(
    program: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Each step body runs once, whatever the cuts, and every step gets its own id."""
    executed: list[str] = []
    memos: dict[str, Raw] = {}

    def play(run: Run, stop_after: int) -> list[bytes] | None:
        seen: list[bytes] = []
        for count, (kind, step_id) in enumerate(program):
            if count == stop_after:
                return None
            if kind == "sleep":
                step = run.wait(waits.sleep(step_id, SECOND))
            else:
                step = run.begin(step_id)
                if step.verdict is Verdict.EXECUTE:
                    executed.append(step.hash)
                    value = f'"{len(executed)}"'.encode()
                    run.complete(step, value, 0, 0)
                    seen.append(value)
                    continue
            if step.verdict is Verdict.SUSPEND:
                return None
            assert step.memo is not None
            seen.append(bytes(step.memo.raw))
        return seen

    def remember(ops: list[Op]) -> None:
        for op in ops:
            entry = b"null" if op.op is OpCode.SLEEP else b'{"data":' + bytes(op.data) + b"}"  # type: ignore[arg-type]
            assert op.id not in memos, "reported twice"
            memos[op.id] = Raw(entry)

    result = None
    for _ in range(2 * len(program) + 1):
        run = Run("R", dict(memos))
        # A handler may also be cut off from outside, between any two things it does.
        result = play(run, data.draw(st.integers(0, len(program) + 3)))
        remember(run.take_ops())
        if result is not None:
            break
    else:
        result = play(Run("R", dict(memos)), len(program))
        if result is None:
            return  # cut off each time before it came further; nothing to compare
    assert len(executed) == len(set(executed)) == sum(kind == "run" for kind, _ in program)
    assert len(result) == len(program)
