"""The rows of the table in `transitions.py` that wait for something from outside."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from stephttp._wire.opcodes import Op
from stephttp.engine import Settings
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment, Origin
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.run import Known, Run, RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.rules.endings import cancelled
from stephttp.engine.rules.transitions import apply_ops, arrived, fell_due
from stephttp.engine.rules.waiting_ops import INVOKE_TIMED_OUT, invoked_result

from .support import EXACT, OTHER, RUN, A, B, Z, complete, sleep, step

NOW = 1_800_000_000_000
AT = Moment(NOW, Random(1), Settings(**EXACT))  # type: ignore[arg-type]
SYNC = Snapshot(Run(RUN, RunStatus.SYNC, retries=2))
CALLING = Timer(RESUME, TimerKind.RESUME, NOW - 10)
ASYNC = Snapshot(Run(RUN, RunStatus.ASYNC, retries=2), timers={RESUME: CALLING})
ENDPOINT = Endpoint(
    app_id="app",
    fn_id="fn",
    slug="child",
    event_name="inngest/http.request",
    fn="child",
    domain="http://child.test",
    method="POST",
    path="/child",
    sdk="test:v1",
    retries=3,
    request_version=2,
)
CHECKPOINT, ANSWER = Origin.CHECKPOINT, Origin.ANSWER
YEAR = 365 * 86_400.0
AGAIN = ("resume", 0.0)


def event(**opts: Any) -> dict[str, Any]:
    return {"op": "WaitForEvent", "id": A, "name": "go", "opts": {"timeout": "20s", **opts}}


def signal(id_: str = A, name: Any = "s1", **opts: Any) -> dict[str, Any]:
    return {"op": "WaitForSignal", "id": id_, "name": name, "opts": {"signal": name, **opts}}


def invoke(function: Any = "child", payload: Any = None, **opts: Any) -> dict[str, Any]:
    payload = {"data": {"x": 1}} if payload is None else payload
    opts = {"function_id": function, "payload": payload, **opts}
    return {"op": "InvokeFunction", "id": A, "name": "i", "opts": opts}


def ops(*raw: dict[str, Any]) -> list[Op]:
    return msgspec.json.decode(msgspec.json.encode(raw), type=list[Op])


def with_child(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, endpoints={"child": ENDPOINT})


def timers(snapshot: Snapshot, change: Change) -> dict[str, tuple[str, float]]:
    if change.ended:
        return {}
    left = {k: v for k, v in snapshot.timers.items() if k not in change.dropped}
    left |= {timer.step_id: timer for timer in change.timers}
    return {key: (timer.kind.value, (timer.due_ms - NOW) / 1000) for key, timer in left.items()}


@pytest.mark.parametrize("snapshot", [SYNC, ASYNC])
@pytest.mark.parametrize(
    ("op", "kind", "due", "key", "condition"),
    [
        (event(), "event", 20.0, "go", None),
        (event(event="other"), "event", 20.0, "other", None),
        (event(timeout=""), "event", 0.0, "go", None),
        (event(timeout=None), "event", 0.0, "go", None),
        (event(timeout="2027-01-15T08:00:05Z"), "event", 5.0, "go", None),
        (event(**{"if": "async.data.x == event.data.x"}), "event", 20.0, "go",
         "async.data.x == event.data.x"),
        (event(**{"if": ""}), "event", 20.0, "go", None),
        (signal(), "signal", YEAR, "s1", None),
        (signal(timeout="1h"), "signal", 3600.0, "s1", None),
        (signal(conflict="replace"), "signal", YEAR, "s1", None),
        ({"op": "WaitForSignal", "id": A, "name": "s2"}, "signal", YEAR, "s2", None),
    ],
)  # fmt: skip
def test_waits_are_opened(
    snapshot: Snapshot, op: Any, kind: str, due: float, key: str, condition: str | None
) -> None:
    origin = CHECKPOINT if snapshot is SYNC else ANSWER
    change = apply_ops(snapshot, ops(op), origin, AT)
    assert change.run.status is RunStatus.ASYNC
    assert timers(snapshot, change) == {A: (kind, due)}
    assert (change.timers[0].key, change.timers[0].condition) == (key, condition)
    assert [(s.step_id, s.memo) for s in change.steps] == [(A, None)]


@pytest.mark.parametrize("op", [event(), signal(), invoke()])
def test_a_wait_that_is_known_is_not_opened_again(op: Any) -> None:
    timer = Timer(A, TimerKind.EVENT, NOW + 9000, key="go")
    snapshot = with_child(
        replace(ASYNC, steps={A: Known(1, resolved=False)}, timers={RESUME: CALLING, A: timer})
    )
    change = apply_ops(snapshot, ops(op), ANSWER, AT)
    assert timers(snapshot, change) == {A: ("event", 9.0)}
    assert not change.steps
    assert not change.invoked


def test_waits_for_events_go_before_the_rest_of_their_batch() -> None:
    change = apply_ops(SYNC, ops(step(B), sleep(Z), event()), CHECKPOINT, AT)
    assert [(s.step_id, s.seq) for s in change.steps] == [(A, 1), (B, 2), (Z, 3)]


@pytest.mark.parametrize(
    ("op", "complaint"),
    [
        ({"op": "WaitForEvent", "id": A}, "opts.event: a WaitForEvent needs the name"),
        (event(event=5), "opts.event: expected text, got int"),
        (event(timeout="soon"), "opts.timeout: 'soon' is not a duration"),
        (event(timeout=5), "opts.timeout: expected text"),
        (event(timeout="367d"), "opts.timeout: '367d' is more than 366 days"),
        (event(**{"if": ["x"]}), "opts.if: expected text, got list"),
        ({"op": "WaitForSignal", "id": A}, "opts.signal: a WaitForSignal needs the name"),
        (signal(name=["x"]) | {"name": None}, "opts.signal: expected text, got list"),
        (signal(conflict="maybe"), "opts.conflict: expected 'fail' or 'replace', got 'maybe'"),
        (signal(timeout="x"), "opts.timeout: 'x'"),
        (invoke(function=""), "opts.function_id: must name a function"),
        (invoke(function=7), "opts.function_id: expected text, got int"),
        (invoke(payload=[]), "opts.payload: expected an object"),
        ({"op": "InvokeFunction", "id": A, "opts": {"function_id": "child"}}, "opts.payload: "),
        (invoke(timeout="x"), "opts.timeout: 'x'"),
    ],
)
def test_a_bad_wait_fails_its_step(op: Any, complaint: str) -> None:
    given = [step(B), op | {"userland": {"id": "mine"}}]
    for snapshot, origin in ((SYNC, CHECKPOINT), (ASYNC, ANSWER)):
        change = apply_ops(with_child(snapshot), ops(*given), origin, AT)
        failed = {s.step_id: json.loads(s.memo or b"null") for s in change.steps}
        assert failed[A]["error"]["name"] == "RefusedError"
        assert failed[A]["error"]["message"].startswith(f"step 'mine': {complaint}")
        assert failed[B] == {"data": 1}
        assert timers(snapshot, change) == {RESUME: ("resume", 0)}


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("event.", "if: not a valid CEL expression"),
        ("1 + 'a' == 2", "if: not a valid CEL expression"),
        ("1", "if: the expression must be true or false"),
        ("async.data.name == 'O'Neil'", "if: not a valid CEL expression"),
        (f"async.data.x == '{'x' * 5000}'", "if: the expression is longer than"),
    ],
)
def test_an_invalid_condition_fails_its_step(condition: str, complaint: str) -> None:
    snapshots = [
        (SYNC, CHECKPOINT, None),
        (replace(ASYNC, timers={RESUME: CALLING}), ANSWER, None),
        (replace(ASYNC, steps={A: Known(1, resolved=True)}, timers={RESUME: CALLING}), ANSWER, A),
    ]
    for snapshot, origin, known in snapshots:
        change = apply_ops(snapshot, ops(step(B), event(**{"if": condition})), origin, AT)
        assert not change.ended
        saved = {saved.step_id: saved.memo for saved in change.steps}
        assert saved.keys() == ({B} if known else {A, B})
        if not known:
            error = json.loads(saved[A] or b"")["error"]
            assert error["name"] == "ConditionError"
            assert error["message"].startswith(f"step 'go': {complaint}")
            assert timers(snapshot, change).keys() == {RESUME}


@pytest.mark.parametrize(("conflict", "failed"), [({}, True), ({"conflict": "fail"}, True),
                                                  ({"conflict": "replace"}, False)])  # fmt: skip
def test_two_waits_for_one_signal(conflict: dict[str, str], failed: bool) -> None:
    held = replace(SYNC, signals={"s1": (OTHER, B)})
    change = apply_ops(held, ops(signal(**conflict)), CHECKPOINT, AT)
    assert not change.ended
    if failed:
        (saved,) = change.steps
        error = json.loads(saved.memo or b"")["error"]
        assert timers(held, change).keys() == {RESUME}
        assert error["name"] == "SignalConflictError"
        assert OTHER in error["message"]
        assert not change.displaced
    else:
        assert change.displaced == ((OTHER, B),)
        assert timers(held, change) == {A: ("signal", YEAR)}


def test_a_run_can_be_in_conflict_with_itself() -> None:
    change = apply_ops(SYNC, ops(signal(A), signal(B)), CHECKPOINT, AT)
    failed = {saved.step_id for saved in change.steps if saved.memo}
    assert failed == {B}


@pytest.mark.parametrize("snapshot", [SYNC, ASYNC])
def test_an_invocation_begins_a_run(snapshot: Snapshot) -> None:
    snapshot = with_child(snapshot)
    origin = CHECKPOINT if snapshot.run.status is RunStatus.SYNC else ANSWER
    change = apply_ops(snapshot, ops(invoke(timeout="1m")), origin, AT)
    assert timers(snapshot, change) == {A: ("invoke", 60.0)}
    ((new, first),) = change.invoked
    assert change.timers[0].key == new.run_id == first.run.run_id
    assert (new.domain, new.method, new.path, new.query) == (
        "http://child.test", "POST", "/child", "",
    )  # fmt: skip
    assert (new.body, new.content_type, new.app_id, first.run.fn_id) == (
        b'{"x":1}', "application/json", "app", "fn",
    )  # fmt: skip
    assert (first.run.status, first.run.retries, first.run.request_version) == (
        RunStatus.ASYNC, 3, 2,
    )  # fmt: skip
    assert first.run.invoked_by == f"{RUN}.{A}"
    assert first.timers == (Timer(RESUME, TimerKind.RESUME, NOW),)


@pytest.mark.parametrize(
    ("method", "data", "query", "body"),
    [
        ("GET", {"a": "x y", "n": 1, "l": [1, "b"], "o": {"k": None}, "t": True},
         "a=x+y&n=1&l=1&l=b&o=%7B%22k%22%3Anull%7D&t=true", None),
        ("HEAD", [1], "", None),
        ("GET", None, "", None),
        ("PUT", None, "", None),
        ("DELETE", {"a": 1}, "", b'{"a":1}'),
        ("POST", "text", "", b'"text"'),
    ],
)  # fmt: skip
def test_the_payload_as_a_request(method: str, data: Any, query: str, body: bytes | None) -> None:
    snapshot = replace(SYNC, endpoints={"child": replace(ENDPOINT, method=method)})
    change = apply_ops(snapshot, ops(invoke(payload={"data": data})), CHECKPOINT, AT)
    ((new, _),) = change.invoked
    assert (new.query, new.body) == (query, body)


@pytest.mark.parametrize("snapshot", [SYNC, ASYNC])
def test_an_unknown_function(snapshot: Snapshot) -> None:
    origin = CHECKPOINT if snapshot is SYNC else ANSWER
    change = apply_ops(snapshot, ops(invoke("nobody")), origin, AT)
    assert timers(snapshot, change) == {RESUME: AGAIN}
    (step,) = change.steps
    error = json.loads(step.memo or b"")["error"]
    assert error.pop("message").startswith("could not find function with ID: nobody; ")
    assert error == {"name": "Error", "data": None}
    assert not change.invoked


def test_a_step_whose_function_is_forgotten_waits_on() -> None:
    timer = Timer(A, TimerKind.INVOKE, NOW + 9000, key=OTHER)
    steps = {A: Known(1, resolved=False)}
    snapshot = Snapshot(ASYNC.run, steps, {RESUME: CALLING, A: timer})
    change = apply_ops(snapshot, ops(invoke("nobody")), ANSWER, AT)
    assert (timers(snapshot, change), change.steps) == ({A: ("invoke", 9.0)}, ())


def test_a_run_that_ends_in_the_same_batch_invokes_nothing() -> None:
    change = apply_ops(with_child(SYNC), ops(invoke(), complete(1)), CHECKPOINT, AT)
    assert (change.ended, change.invoked) == (True, ())


@pytest.mark.parametrize(
    ("kind", "memo"),
    [("event", b"null"), ("signal", b"null"), ("invoke", INVOKE_TIMED_OUT), ("wake", None)],
)
def test_waits_that_last_too_long(kind: str, memo: bytes | None) -> None:
    timer = Timer(A, TimerKind(kind), NOW, key="k")
    snapshot = Snapshot(ASYNC.run, timers={A: timer})
    change = fell_due(snapshot, AT)
    assert change.resolved == (() if memo is None else ((A, memo),))
    assert (timers(snapshot, change), change.call) == ({RESUME: AGAIN}, True)


@pytest.mark.parametrize("kind", ["event", "signal", "invoke"])
def test_what_arrives_ends_the_wait(kind: str) -> None:
    timer = Timer(A, TimerKind(kind), NOW + 9000, key="k")
    nap = Timer(Z, TimerKind.SLEEP, NOW + 5000)
    snapshot = Snapshot(ASYNC.run, timers={A: timer, Z: nap})
    change = arrived(snapshot, {A: b"1"}, AT)
    assert change.resolved == ((A, b"1"),)
    assert timers(snapshot, change) == {Z: ("sleep", 5.0), RESUME: AGAIN}


def test_what_arrives_during_a_call_wakes_the_run_after_it() -> None:
    timer = Timer(A, TimerKind.EVENT, NOW + 9000, key="k")
    snapshot = replace(ASYNC, timers={RESUME: CALLING, A: timer})
    change = arrived(snapshot, {A: b"1"}, AT)
    assert change.resolved == ((A, b"1"),)
    assert timers(snapshot, change) == {RESUME: ("resume", -0.01), A: ("wake", 0.0)}
    wake = replace(ASYNC, timers={RESUME: CALLING, A: change.timers[0]})
    assert change.timers[0].key is None
    # The call ends in another wait; still the run is called at once.
    answered = apply_ops(wake, ops(sleep()), ANSWER, AT)
    assert timers(wake, answered) == {A: ("wake", 0.0), Z: ("sleep", 5.0)}


@pytest.mark.parametrize(
    ("snapshot", "step_id"),
    [
        (replace(ASYNC, timers={Z: Timer(Z, TimerKind.SLEEP, NOW + 1)}), A),
        (replace(ASYNC, timers={Z: Timer(Z, TimerKind.SLEEP, NOW + 1)}), Z),
        (replace(ASYNC, timers={A: Timer(A, TimerKind.WAKE, NOW)}), A),
        (Snapshot(Run(RUN, RunStatus.COMPLETED)), A),
    ],
)
def test_what_nobody_waits_for_changes_nothing(snapshot: Snapshot, step_id: str) -> None:
    assert arrived(snapshot, {step_id: b"1"}, AT) == Change(snapshot.run)


def test_cancelling() -> None:
    for snapshot in (SYNC, ASYNC):
        change = cancelled(snapshot, AT)
        assert (change.ended, change.run.status) == (True, RunStatus.CANCELLED)
        assert change.run.ended_ms == NOW
    over = Snapshot(Run(RUN, RunStatus.FAILED))
    assert cancelled(over, AT) == Change(over.run)


ENVELOPE = b'{"status":404,"headers":{"x":"y"},"body":"no"}'
ANSWERED = {"status": 404, "headers": {"x": "y"}, "body": "no"}


@pytest.mark.parametrize(
    ("run", "memo"),
    [
        ({"status": "completed", "output": ENVELOPE}, {"data": ANSWERED}),
        ({"status": "completed", "output": b'{"any":[1]}'}, {"data": {"any": [1]}}),
        ({"status": "completed"}, {"data": None}),
        ({"status": "completed", "output": b"hi", "head": b'[201,[["x","y"]]]'},
         {"data": {"status": 201, "headers": {"x": "y"}, "body": "hi"}}),
        ({"status": "completed", "output": b"\xff", "head": b"[200,[]]"},
         {"data": {"status": 200, "headers": {}, "body": "/w==", "encoding": "base64"}}),
        ({"status": "failed", "error": b'{"name":"E","message":"m"}'},
         {"error": {"name": "E", "message": "m", "data": None}}),
        ({"status": "failed", "error": b'{"name":"E","message":"m"}', "output": ENVELOPE},
         {"error": {"name": "E", "message": "m", "data": ANSWERED}}),
        ({"status": "cancelled"},
         {"error": {"name": "CancelledError", "message": "the invoked run was cancelled",
                    "data": None}}),
    ],
)  # fmt: skip
def test_results_of_invoked_runs(run: dict[str, Any], memo: Any) -> None:
    ended = Run(run_id=OTHER, **{**run, "status": RunStatus(run["status"])})
    assert json.loads(invoked_result(ended, 10_000)) == memo
    if run["status"] == "completed" and "output" in run:
        small = json.loads(invoked_result(ended, 10))
        assert small["error"]["name"] == "ResultError"
