"""Waits as whole values: their timers, the runs that they start, and the errors of their steps."""

from __future__ import annotations

from hashlib import sha256
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
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Known, NewRun, Run, RunStatus, Snapshot, Step
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id, new_ulid
from stephttp.engine.rules.transitions import apply_ops

from .support import EXACT, OTHER, RUN, A, B

NOW = 1_800_000_000_000
YEAR = 365 * 86_400_000
SYNC = Snapshot(Run(RUN, RunStatus.SYNC, retries=2))
ENDPOINT = Endpoint(
    app_id="app", fn_id="f1", slug="child", event_name="named", fn="fn",
    domain="http://child.test", method="POST", path="/child", sdk="sdk", retries=3,
    request_version=2, reads_state=True,
)  # fmt: skip
CHILD = replace(SYNC, endpoints={"child": ENDPOINT})
RNG = Random(1)
CHILD_ID, EVENT_ID, JOB = new_ulid(NOW, RNG), new_ulid(NOW, RNG), new_job_id(RNG)


def wait(op: str, name: str | None = None, opts: Any = None, **more: Any) -> dict[str, Any]:
    return {"op": op, "id": A, "name": name, "opts": opts, **more}


def event(**opts: Any) -> dict[str, Any]:
    return wait("WaitForEvent", "go", {"timeout": "20s", **opts})


def signal(**opts: Any) -> dict[str, Any]:
    return wait("WaitForSignal", "s1", opts)


def invoke(**opts: Any) -> dict[str, Any]:
    return wait("InvokeFunction", "i", {"function_id": "child", "payload": {"data": 1}, **opts})


def apply(snapshot: Snapshot, op: dict[str, Any], **settings: Any) -> Change:
    at = Moment(NOW, Random(1), Settings(**{**EXACT, **settings}))
    found = msgspec.json.decode(msgspec.json.encode([op]), type=list[Op])
    return apply_ops(snapshot, found, Origin.CHECKPOINT, at)


def written(op: dict[str, Any], memo: bytes | None = None) -> Step:
    opts = op["opts"]
    return Step(
        A, 1, None, 0, op["name"], op["op"], memo, 1, NOW * 1_000_000, 0,
        opts=msgspec.json.encode(opts) if opts else None,
    )  # fmt: skip


def opened(op: dict[str, Any], timer: Timer, **more: Any) -> Change:
    run = replace(SYNC.run, status=RunStatus.ASYNC, step_count=1)
    return Change(run, steps=(written(op),), timers=(timer,), **more)


def failed(op: dict[str, Any], name: str, message: str) -> Change:
    memo = msgspec.json.encode({"error": {"name": name, "message": message, "data": None}})
    job = new_job_id(Random(1))
    run = replace(SYNC.run, status=RunStatus.ASYNC, step_count=1, state_size=len(memo), job_id=job)
    return Change(run, steps=(written(op, memo),), timers=(Timer(RESUME, TimerKind.RESUME, NOW),))


EVENT = TimerKind.EVENT


@pytest.mark.parametrize(
    ("op", "timer"),
    [
        (event(), Timer(A, EVENT, NOW + 20_000, key="go")),
        (event(event="other", lookback="3s"),
         Timer(A, EVENT, NOW + 20_000, key="other", lookback_ms=3000)),
        (event(event="", **{"if": None}), Timer(A, EVENT, NOW + 20_000, key="go")),
        (wait("WaitForEvent", "go"), Timer(A, EVENT, NOW, key="go")),
        (event(**{"if": "event.x == async.x"}),
         Timer(A, EVENT, NOW + 20_000, key="go", condition="event.x == async.x")),
        (event(**{"if": "async.data.id == 'o'"}),
         Timer(A, EVENT, NOW + 20_000, "go", "async.data.id == 'o'", '[["data","id"]]', '["o"]')),
        (signal(), Timer(A, TimerKind.SIGNAL, NOW + YEAR, key="s1")),
        (signal(signal="s2", timeout="1h", conflict=""),
         Timer(A, TimerKind.SIGNAL, NOW + 3_600_000, key="s2")),
    ],
)  # fmt: skip
def test_waits(op: dict[str, Any], timer: Timer) -> None:
    assert apply(SYNC, op) == opened(op, timer)


REFUSED = "RefusedError"
WHEN_KNOWN = (
    "endpoints are known after their first durable request, functions once their app has registered"
)
UNDECLARED = "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')"


@pytest.mark.parametrize(
    ("op", "name", "message"),
    [
        (wait("WaitForEvent"), REFUSED,
         f"step {A!r}: opts.event: a WaitForEvent needs the name of an event"),
        (wait("WaitForSignal", "", {"signal": ""}), REFUSED,
         f"step {A!r}: opts.signal: a WaitForSignal needs the name of a signal"),
        (event(event=5), REFUSED, "step 'go': opts.event: expected text, got int"),
        (event(**{"if": False}), REFUSED, "step 'go': opts.if: expected text, got bool"),
        (event(lookback="x"), REFUSED,
         "step 'go': opts.lookback: 'x' is not a duration such as '30s', '1h30m' or '2w'"),
        (event(**{"if": "1"}), "ConditionError",
         "step 'go': if: the expression must be true or false, not int"),
        (event(**{"if": "foo == 1"}), "ConditionError",
         f"step 'go': if: not a valid CEL expression: {UNDECLARED}"),
        (signal(conflict="x" * 65), REFUSED,
         f"step 's1': opts.conflict: expected 'fail' or 'replace', got {'x' * 64!r}"),
        (signal(conflict=5), REFUSED, "step 's1': opts.conflict: expected text, got int"),
        (invoke(function_id=None), REFUSED,
         "step 'i': opts.function_id: must name a function"),
        (invoke(payload=None), REFUSED,
         "step 'i': opts.payload: expected an object such as {'data': {}}"),
        (invoke(function_id="none"), "Error",
         f"could not find function with ID: none; {WHEN_KNOWN}"),
        (invoke(timeout="367d"), REFUSED,
         "step 'i': opts.timeout: '367d' is more than 366 days ahead"),
        (wait("Sleep", "soon"), REFUSED,
         "step 'soon': name: 'soon' is not a duration such as '30s', '1h30m' or '2w'"),
    ],
)  # fmt: skip
def test_what_cannot_be_waited_for_fails_its_step(
    op: dict[str, Any], name: str, message: str
) -> None:
    assert apply(CHILD, op) == failed(op, name, message)
    # A step that is known keeps what it has, and waits.
    nap = Timer(A, TimerKind.SLEEP, NOW + 5)
    for resolved, timers in ((True, {}), (False, {A: nap})):
        run = replace(SYNC.run, status=RunStatus.ASYNC, job_id="j")
        call = Timer(RESUME, TimerKind.RESUME, NOW)
        known = replace(
            CHILD, run=run, steps={A: Known(1, resolved)}, timers={RESUME: call, **timers}
        )
        assert apply(known, op) == Change(run)


LONG = "x" * 200


@pytest.mark.parametrize(
    "op",
    [event(**{"if": LONG}), wait("WaitForSignal", "s1", {"signal": LONG}),
     invoke(function_id=LONG)],
)  # fmt: skip
def test_a_reason_that_is_too_long_is_left_out(op: dict[str, Any]) -> None:
    held = replace(SYNC, signals={LONG: (OTHER, B)})
    message = f"step {op['name']!r}: data: more than 150 bytes"
    assert apply(held, op, max_step_output=150) == failed(op, REFUSED, message)
    with pytest.raises(Refused, match=r"^steps\[0\]\.data: more than 50 bytes$"):
        apply(held, op, max_step_output=50)
    # Where the step waits already, the answer is one that waits.
    call, nap = Timer(RESUME, TimerKind.RESUME, NOW), Timer(A, TimerKind.SLEEP, NOW + 5)
    run = replace(SYNC.run, status=RunStatus.ASYNC)
    known = replace(
        held, run=run, steps={A: Known(1, resolved=False)}, timers={RESUME: call, A: nap}
    )
    raw = [{"op": "StepRun", "id": B}, op]
    ops = msgspec.json.decode(msgspec.json.encode(raw), type=list[Op])
    change = apply_ops(known, ops, Origin.ANSWER, Moment(NOW, Random(1), Settings()))
    assert (change.timers, change.dropped) == ((), (RESUME,))


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"userland": {"id": "mine"}, "displayName": "Mine"}, "mine"),
        ({"displayName": "Mine"}, "Mine"),
        ({}, "s1"),
        ({"name": None}, A),
    ],
)
def test_the_name_by_which_people_know_a_step(more: dict[str, Any], shown: str) -> None:
    change = apply(SYNC, {**signal(signal="s", conflict="x"), **more})
    error = msgspec.json.decode(change.steps[0].memo or b"")["error"]
    assert error["message"].startswith(f"step '{shown}': opts.conflict: expected")


def test_a_signal_has_one_wait() -> None:
    held = replace(SYNC, signals={"s1": (OTHER, B)})
    op = signal()
    message = f"step {B} of run {OTHER} waits for the signal 's1' already"
    assert apply(held, op) == failed(op, "SignalConflictError", message)
    over = signal(conflict="replace")
    timer = Timer(A, TimerKind.SIGNAL, NOW + YEAR, key="s1")
    assert apply(held, over) == opened(over, timer, displaced=((OTHER, B),))
    # Known, without a timer: it was cut off and is begun again, so it takes the signal over.
    known = replace(held, steps={A: Known(1, resolved=False)})
    assert apply(known, op).displaced == ((OTHER, B),)
    waiting = replace(known, timers={A: timer})
    assert apply(waiting, over).displaced == ()


@pytest.mark.parametrize("conflict", [{}, {"conflict": "fail"}])
def test_a_run_can_be_in_conflict_with_itself(conflict: dict[str, str]) -> None:
    ops = [signal(), {**signal(**conflict), "id": B}]
    found = msgspec.json.decode(msgspec.json.encode(ops), type=list[Op])
    at = Moment(NOW, Random(1), Settings())
    change = apply_ops(SYNC, found, Origin.CHECKPOINT, at)
    message = f"step {A} of run {RUN} waits for the signal 's1' already"
    assert msgspec.json.decode(change.steps[1].memo or b"")["error"]["message"] == message


def new_run(**more: Any) -> NewRun:
    fields: dict[str, Any] = {
        "run_id": CHILD_ID, "app_id": "app", "slug": "child",
        "digest": sha256(CHILD_ID.encode()).digest(), "event_id": EVENT_ID, "event_name": "named",
        "event_ts": NOW, "fn": "fn", "domain": "http://child.test", "method": "POST",
        "path": "/child", "query": "", "content_type": "application/json", "ip": "", "sdk": "sdk",
        "created_ms": NOW, "began_ms": NOW, "body": b"1", "reads_state": True,
    }  # fmt: skip
    return NewRun(**{**fields, **more})


@pytest.mark.parametrize(
    ("endpoint", "payload", "new"),
    [
        (ENDPOINT, {"data": 1}, new_run()),
        (ENDPOINT, {}, new_run(body=None)),
        (replace(ENDPOINT, event_name=""), {"data": 1}, new_run(event_name="inngest/http.request")),
        (replace(ENDPOINT, method="get"), {"data": {"a": ["x", 1], "b": "y"}},
         new_run(method="get", body=None, content_type="", query="a=x&a=1&b=y")),
        (replace(ENDPOINT, method="HEAD"), {"data": "text"},
         new_run(method="HEAD", body=None, content_type="")),
    ],
)  # fmt: skip
def test_an_invocation(endpoint: Endpoint, payload: dict[str, Any], new: NewRun) -> None:
    op = invoke(payload=payload)
    run = Run(
        CHILD_ID, RunStatus.ASYNC, retries=3, request_version=2, job_id=JOB,
        invoked_by=f"{RUN}.{A}", fn_id="f1",
    )  # fmt: skip
    first = Change(run, timers=(Timer(RESUME, TimerKind.RESUME, NOW),))
    timer = Timer(A, TimerKind.INVOKE, NOW + YEAR, key=CHILD_ID)
    expected = opened(op, timer, invoked=((new, first),))
    assert apply(replace(SYNC, endpoints={"child": endpoint}), op) == expected


def test_how_long_an_invocation_may_take() -> None:
    op = invoke(timeout="1m")
    (timer,) = apply(CHILD, op).timers
    assert timer == Timer(A, TimerKind.INVOKE, NOW + 60_000, key=CHILD_ID)
