"""The state machine alone: its table row by row, and programs run with every possible cut."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from stephttp._core import waits
from stephttp._core.call_state import State
from stephttp._core.run import Run
from stephttp._core.steps import Verdict
from stephttp._wire.ids import hash_step_id
from stephttp._wire.json import encode_struct
from stephttp._wire.limits_of_run import RunLimits
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode
from stephttp.errors import CannotWaitError

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
    assert [op.op for op in run.unreported.take_all()] == [OpCode.SLEEP] * sleeps


@pytest.mark.parametrize("reason", ["the response has started", None])
def test_a_wait_that_nobody_can_be_made_to_wait_for(reason: str | None) -> None:
    run = Run("R") if reason else ended()
    if reason is not None:
        run.response_began()
    with pytest.raises(CannotWaitError, match="'b' has to wait, but the response"):
        run.wait(waits.sleep("b", SECOND))
    assert run.unreported.take_all() == []


def test_a_finished_step_is_recorded_with_its_times() -> None:
    run = Run("R")
    run.complete(run.begin("a"), b'{"x":1}', 100, 5)
    assert json.loads(encode_struct(run.unreported.take_all())) == [
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
    assert run.unreported.take_all() == []


@pytest.mark.parametrize(
    ("retries", "error", "cannot_wait", "op", "verdict"),
    [
        (0, ErrorInfo("E"), None, OpCode.STEP_FAILED, Verdict.EXECUTE),
        (2, ErrorInfo("E"), None, OpCode.STEP_ERROR, Verdict.SUSPEND),
        (2, ErrorInfo("E", no_retry=True), None, OpCode.STEP_FAILED, Verdict.EXECUTE),
        (2, ErrorInfo("E"), "the response has started", OpCode.STEP_FAILED, Verdict.EXECUTE),
    ],
)
def test_a_failed_step(
    retries: int, error: ErrorInfo, cannot_wait: str | None, op: OpCode, verdict: Verdict
) -> None:
    run = Run("R", retries=retries)
    if cannot_wait is not None:
        run.refuse_waits(cannot_wait)
    assert run.fail(run.begin("a"), error, 0, 0) is verdict
    assert run.suspended is (verdict is Verdict.SUSPEND)
    (recorded,) = run.unreported.take_all()
    assert (recorded.op, recorded.error) == (op, error)


@pytest.mark.parametrize(
    ("attempt", "failures", "op"),
    [
        (0, {}, OpCode.STEP_ERROR),
        (0, {hash_step_id("a"): 1}, OpCode.STEP_ERROR),
        (0, {hash_step_id("a"): 2}, OpCode.STEP_FAILED),
        (0, {hash_step_id("b"): 2}, OpCode.STEP_ERROR),
        (1, {}, OpCode.STEP_ERROR),
        (2, {}, OpCode.STEP_FAILED),
    ],
)
def test_a_step_fails_for_good_when_its_earlier_failures_have_used_its_retries(
    attempt: int, failures: dict[str, int], op: OpCode
) -> None:
    run = Run("R", {}, retries=2)
    run.earlier.note_failures(attempt, failures)
    verdict = run.fail(run.begin("a"), ErrorInfo("E"), 0, 0)
    assert verdict is (Verdict.EXECUTE if op is OpCode.STEP_FAILED else Verdict.SUSPEND)
    assert [recorded.op for recorded in run.unreported.take_all()] == [op]


def test_an_abandoned_step_leaves_no_trace() -> None:
    run = Run("R")
    run.abandon(run.begin("a"))
    assert run.settled
    assert run.unreported.take_all() == []


def test_after_the_end_nothing_is_recorded() -> None:
    run = Run("R")
    step = run.begin("a")
    run.end()
    run.complete(step, b"1", 0, 0)
    assert run.settled
    assert run.unreported.take_all() == []


def test_what_makes_the_server_act_comes_last_and_can_be_left() -> None:
    run = waiting()
    run.complete(run.begin("a"), b"1", 0, 0)
    assert [op.op for op in run.take_finished()] == [OpCode.STEP_RUN]
    assert [op.op for op in run.unreported.take_all()] == [OpCode.SLEEP]


def test_a_known_wait_is_not_reported_again() -> None:
    run = Run("R", {hash_step_id("nap"): Raw(b'{"pending":true}')})
    assert run.wait(waits.sleep("nap", SECOND)).verdict is Verdict.SUSPEND
    assert run.suspended
    assert run.unreported.take_all() == []


def test_sleeps_that_no_server_takes() -> None:
    run = Run("R")
    with pytest.raises(ValueError, match="366 days"):
        run.wait(waits.sleep("a", timedelta(days=367)))
    with pytest.raises(ValueError, match="time zone"):
        run.wait(waits.sleep_until("a", datetime(2026, 1, 1)))  # noqa: DTZ001
    with pytest.raises(ValueError, match="empty"):
        run.wait(waits.sleep("", SECOND))
    assert not run.suspended


class Text(str):
    pass


@pytest.mark.parametrize("meet", [Run.begin, lambda run, id_: run.wait(waits.sleep(id_, SECOND))])
@pytest.mark.parametrize(
    ("step_id", "error", "message"),
    [
        (7, TypeError, "a step id must be a str, not 7"),
        (None, TypeError, "a step id must be a str, not None"),
        (b"a", TypeError, "a step id must be a str"),
        (["a"], TypeError, "a step id must be a str"),
        ("a\ud800b", ValueError, "a step id must be valid Unicode"),
        ("", ValueError, "empty"),
    ],
)
def test_what_is_no_step_id(meet: Any, step_id: Any, error: type[Exception], message: str) -> None:
    run = Run("R")
    with pytest.raises(error, match=message) as raised:
        meet(run, step_id)
    assert raised.type is error
    assert (run.used, run.settled, run.unreported.take_all()) == (False, True, [])


def test_an_id_of_a_subclass_of_str_is_its_text() -> None:
    run = Run("R")
    run.complete(run.begin(Text("a")), b"1", 0, 0)
    (op,) = run.unreported.take_all()
    assert (type(op.name), op.id) == (str, hash_step_id("a"))


def test_a_sleep_until_a_time_says_when() -> None:
    run = Run("R")
    run.wait(waits.sleep_until("a", datetime(2026, 1, 2, 3, tzinfo=UTC)))
    (op,) = run.unreported.take_all()
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
        remember(run.unreported.take_all())
        if result is not None:
            break
    else:
        result = play(Run("R", dict(memos)), len(program))
        if result is None:
            return  # cut off each time before it came further; nothing to compare
    assert len(executed) == len(set(executed)) == sum(kind == "run" for kind, _ in program)
    assert len(result) == len(program)


def failing(run: Run, step_id: str = "a", retries: int | None = None, **wishes: Any) -> Verdict:
    return run.fail(run.begin(step_id, retries), ErrorInfo("E"), 0, 0, **wishes)


@pytest.mark.parametrize(
    ("run_retries", "own", "attempt", "op"),
    [
        (0, None, 0, OpCode.STEP_FAILED),
        (0, 2, 0, OpCode.STEP_ERROR),
        (3, 0, 0, OpCode.STEP_FAILED),
        (3, None, 2, OpCode.STEP_ERROR),
        (3, None, 3, OpCode.STEP_FAILED),
        (3, 1, 1, OpCode.STEP_FAILED),
        (1, 3, 1, OpCode.STEP_ERROR),
    ],
)
def test_a_steps_own_retries(run_retries: int, own: int | None, attempt: int, op: OpCode) -> None:
    run = Run("R", {}, run_retries)
    run.earlier.note_failures(attempt, {})
    failing(run, retries=own)
    (recorded,) = run.unreported.take_all()
    assert recorded.op is op
    limit = run_retries if own is None else own
    assert recorded.opts == ({"retries": limit} if op is OpCode.STEP_ERROR else None)
    assert run.declared_retries == (
        max(run_retries, limit) if op is OpCode.STEP_ERROR else run_retries
    )


def test_when_a_failed_step_wants_to_be_tried_again() -> None:
    run = Run("R", retries=1)
    failing(run, retry_after="2026-01-01T00:00:00.000Z")
    (op,) = run.unreported.take_all()
    assert op.opts == {"retries": 1, "retry_after": "2026-01-01T00:00:00.000Z"}


def test_only_the_targeted_step_is_executed() -> None:
    run = Run("R", {hash_step_id("a"): Raw(b'{"data":1}')}, target=hash_step_id("c"))
    assert run.begin("a").verdict is Verdict.MEMOIZED
    assert run.begin("b").verdict is Verdict.SUSPEND
    target = run.begin("c")
    assert target.verdict is Verdict.EXECUTE
    assert run.suspended
    assert not run.settled
    assert run.complete(target, b"2", 0, 0) is Verdict.SUSPEND
    assert run.wait(waits.sleep("d", SECOND)).verdict is Verdict.SUSPEND
    assert run.take_finished() == []
    assert [(op.op, op.id) for op in run.unreported.take_all()] == [
        (OpCode.STEP_RUN, hash_step_id("c"))
    ]
    assert [step.step_id for step in run.passed] == ["b", "d"]


@pytest.mark.parametrize(("retries", "op"), [(0, OpCode.STEP_FAILED), (1, OpCode.STEP_ERROR)])
def test_a_targeted_step_that_fails_ends_the_call_too(retries: int, op: OpCode) -> None:
    run = Run("R", {}, retries, target=hash_step_id("a"))
    assert failing(run) is Verdict.SUSPEND
    assert [one.op for one in run.unreported.take_all()] == [op]


def test_a_target_may_be_a_wait_and_may_be_unknown_or_over() -> None:
    run = Run("R", {}, target=hash_step_id("nap"))
    run.wait(waits.sleep("nap", SECOND))
    assert [op.op for op in run.unreported.take_all()] == [OpCode.SLEEP]
    assert Run("R", {}, target="other").targets_unknown
    assert not Run("R", {"known": Raw(b"null")}, target="known").targets_unknown
    assert not Run("R", {}).targets_unknown


def test_threads_at_work_keep_a_run_from_being_settled() -> None:
    run = waiting()
    run.hold()
    assert not run.settled
    run.release()
    assert run.settled


def test_finished_steps_weigh_what_they_gave_and_what_they_were_called_with() -> None:
    run = Run("R")
    run.complete(run.begin("a"), b"[1]", 0, 0, {"input": Raw(b'["in"]')})
    run.fail(run.begin("b"), ErrorInfo("E", "no"), 0, 0, opts={"input": Raw(b"[2]")})
    run.complete(run.begin("c"), b"null", 0, 0)
    assert (run.finished_count, run.unreported.kept_bytes) == (3, 3 + 6 + 3 + 4)
    run.take_finished()
    assert run.unreported.kept_bytes == 0


def test_a_run_that_has_ended_keeps_its_options_and_limits() -> None:
    """Its record may be encoded later, and code may outlive the handler."""
    first, late = RunLimits(priority=1), RunLimits(priority=2)
    run = Run("R")
    run.configure(id="own", omit_request_body=True, retries=3)
    run.limit(first)
    run.end()
    run.configure(id="late", omit_request_body=False, retries=7)
    run.limit(late)
    assert (run.opts.id, run.opts.omit_request_body, run.declared_retries) == ("own", True, 3)
    assert run.limits is first
