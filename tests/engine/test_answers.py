"""What the answers of endpoints mean, as whole values: every field, every kind of answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from stephttp._wire.opcodes import Op
from stephttp.engine.model.inputs import CallFailure, FailureKind, Hints
from stephttp.engine.model.run import Run, RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.rules.answers import (
    HTTPResponse,
    OpsAnswer,
    PlainAnswer,
    asks_first,
    is_current,
    is_ours,
    leaves_failed_steps,
    read_answer,
)

NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z
SDK, OURS = ("x-inngest-sdk", "t:v1"), ("x-inngest-sdk", "stephttp-py:v1")
GO = ("x-inngest-sdk", "go:0.16.0")
IN_7_S = ("retry-after", "Fri, 15 Jan 2027 08:00:07 GMT")
JSON = ("content-type", "application/json; charset=utf-8")
STEP = b'{"op":"StepRun","id":"a","data":"secret"}'
END = b'{"op":"RunComplete","id":"c","data":{"status":500}}'
LOST = "something on the way answered 200 in place of the SDK, which had been reached"
UNSIGNED = "the endpoint answered 401, it refused the signature (do the signing keys differ?)"
WITHOUT = "the endpoint answered {} without passing the request to the SDK"


def read(status: int, body: bytes, *headers: tuple[str, str], reached: bool = False) -> Any:
    found = read_answer(HTTPResponse(status, headers, body), NOW, reached=reached)
    return replace(found, steps=tuple(found.steps)) if isinstance(found, CallFailure) else found


def ops(raw: bytes) -> list[Op]:
    return msgspec.json.decode(raw, type=list[Op])


KIND = FailureKind


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (404, b"why", [IN_7_S],
         (KIND.FOREIGN, "UpstreamError", WITHOUT.format(404) + ": why", 7000)),
        (503, b"", [IN_7_S], (KIND.TRANSIENT, "UpstreamError", WITHOUT.format(503), 7000)),
        (500, b"why", [SDK, IN_7_S],
         (KIND.COUNTED, "EndpointError", "the endpoint answered 500: why", 7000)),
        (300, b"", [SDK], (KIND.COUNTED, "EndpointError", "the endpoint answered 300", None)),
        (504, b"{}", [SDK, IN_7_S],
         (KIND.TRANSIENT, "EndpointError", "the endpoint answered 504: {}", 7000)),
        (401, b"why", [SDK, IN_7_S],
         (KIND.TRANSIENT, "SignatureError", UNSIGNED + ": why", 7000)),
        (401, b"why", [GO, IN_7_S],
         (KIND.COUNTED, "EndpointError", "the endpoint answered 401: why", 7000)),
        (421, b'{"message":"m"}', [SDK, IN_7_S], (KIND.FOREIGN, "MisdirectedError", "m", 7000)),
        (421, b'{"message":"m"}', [GO], (KIND.COUNTED, "EndpointError", "m", None)),
        (400, b'{"name":"N","message":"m"}', [SDK, IN_7_S, ("x-inngest-no-retry", "TRUE")],
         (KIND.FINAL, "N", "m", 7000)),
        (503, b"", [SDK, ("x-inngest-no-retry", "true")],
         (KIND.FINAL, "EndpointError", "the endpoint answered 503", None)),
        (206, b'"\xff"', [SDK, JSON, IN_7_S],
         (KIND.BROKEN, "DamagedAnswerError",
          'the endpoint\'s answer arrived damaged: "\ufffd"', None)),
    ],
)  # fmt: skip
def test_failures(
    status: int, body: bytes, headers: list[tuple[str, str]], expected: tuple[Any, ...]
) -> None:
    assert read(status, body, *headers) == CallFailure(*expected)


def test_an_answer_without_the_sdk_that_had_been_reached_was_lost_on_the_way() -> None:
    lost = CallFailure(KIND.BROKEN, "LostAnswerError", f"{LOST}: page", 7000)
    assert read(200, b"page", IN_7_S, reached=True) == lost
    assert read(200, b"page", SDK, reached=True) == PlainAnswer(b"page", b"[200,[]]")


@pytest.mark.parametrize("status", [401, 421, 500, 503])
def test_a_handlers_failure_is_its_last_op_and_the_steps_before_it_are_kept(status: int) -> None:
    shown = "the endpoint answered " + str(status) + ": " + END.decode()
    failure = (KIND.COUNTED, "EndpointError", shown, 7000, b'{"status":500}')
    assert read(status, END, SDK, IN_7_S) == CallFailure(*failure)
    both = read(status, b"[" + STEP + b"," + END + b"]", SDK, IN_7_S)
    assert both == CallFailure(*failure, tuple(ops(b"[" + STEP + b"]")))
    empty = read(status, b'{"op":"RunComplete","id":"c"}', SDK)
    assert (empty.kind, empty.output, empty.steps) == (KIND.COUNTED, None, ())


def test_ops_that_cannot_be_read() -> None:
    bad = b'[{"op":"Nope","id":"a"}]'
    reason = "Invalid enum value 'Nope' - at `$[0].op`"
    message = f"the endpoint's answer cannot be read as step opcodes: {reason}"
    assert read(206, bad, SDK) == CallFailure(KIND.FINAL, "AnswerError", message)
    assert read(200, bad, SDK) == PlainAnswer(bad, b"[200,[]]")
    assert read(500, bad, SDK).message == f"the endpoint answered 500: {bad.decode()}"
    for broken in (b"[\xff]", b"[" * 100_000):
        assert read(206, broken, SDK).name == "AnswerError"
        assert read(200, broken, SDK) == PlainAnswer(broken, b"[200,[]]")


@pytest.mark.parametrize(
    ("headers", "hints"),
    [
        ([SDK], Hints(leaves=True, request_version=0)),
        ([OURS], Hints(leaves=False, request_version=0)),
        ([SDK, IN_7_S], Hints(7000, leaves=True, request_version=0)),
        ([SDK, ("x-inngest-no-retry", "True")], Hints(None, True, 0, True)),
        ([SDK, ("x-inngest-no-retry", "1")], Hints(None, False, 0, True)),
        ([SDK, ("x-inngest-req-version", "2"), ("x-inngest-req-version", "3")],
         Hints(request_version=2, leaves=True)),
        ([SDK, ("x-inngest-req-version", "12345678")],
         Hints(request_version=12_345_678, leaves=True)),
        ([SDK, ("x-inngest-req-version", "123456789")], Hints(request_version=0, leaves=True)),
        ([SDK, ("x-inngest-req-version", "-1")], Hints(request_version=0, leaves=True)),
        ([SDK, ("x-inngest-req-version", "\u0663")], Hints(request_version=0, leaves=True)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 206, 299, 500])
def test_the_headers_beside_ops(status: int, headers: list[tuple[str, str]], hints: Hints) -> None:
    body = b" [" + STEP + b"]"
    assert read(status, body, *headers) == OpsAnswer(ops(body), hints)


@pytest.mark.parametrize(
    ("body", "are_ops"),
    [
        (b" \n" + END, True),
        (END.replace(b"RunComplete", b"SyncRunComplete"), True),
        (END.replace(b"500", b'"op"'), True),
        (STEP, False),
        (STEP.replace(b"secret", b"Complete"), False),
        (END.replace(b'"op"', b'"po"'), False),
        (END.replace(b'"id"', b'"di"'), False),
        (b'{"op":"RunComplete","id":"c","data":"\xff"}', False),
        (b'{"op":"RunComplete","id":"c","data":' + b"[" * 100_000, False),
        (b'"op" Complete', False),
    ],
)
def test_which_single_objects_are_ops(body: bytes, are_ops: bool) -> None:
    found = read(200, body, SDK)
    if are_ops:
        expected = [msgspec.json.decode(body.lstrip(), type=Op)]
        assert found == OpsAnswer(expected, Hints(None, False, 0, True))
    else:
        assert found == PlainAnswer(body, b"[200,[]]")


@pytest.mark.parametrize(
    ("status", "kept", "header"),
    [
        (206, 200, None),
        (201, 201, None),
        (200, 200, ("x-a", "b")),
        (200, 200, ("datum", "1")),
        (200, 200, ("x-run", "1")),
    ],
)
def test_a_plain_answer_is_kept_without_what_was_for_the_engine(
    status: int, kept: int, header: tuple[str, str] | None
) -> None:
    for_engine = [
        SDK, ("x-inngest-more", "1"), ("x-run-id", "r"), ("x-stephttp-a", "1"),
        ("server-timing", "t"), ("date", "d"), ("server", "s"),
    ]  # fmt: skip
    given = [*for_engine, *([header] if header else [])]
    head = msgspec.json.encode([kept, [header] if header else []])
    assert read(status, b"\xc3\xa9", *given) == PlainAnswer(b"\xc3\xa9", head)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, [JSON], b'"\xff"'),
        (206, [("content-type", "text/plain")], b"\xff"),
        (206, [], b"\xff"),
        (206, [JSON], b'"\xc3\xa9"'),
        (206, [JSON], b'"e"'),
    ],
)
def test_what_is_not_damaged(status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    found = read(status, body, SDK, *headers)
    assert found == PlainAnswer(body, msgspec.json.encode([200, headers]))


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        (b'{"name":"N"}', "N", 'the endpoint answered 500: {"name":"N"}'),
        (b'{"message":"m","error":"e"}', "EndpointError", "m"),
        (b'{"error":{"name":"N","message":"m"},"name":"X","message":"Y"}', "N", "m"),
        (b'{"error":{"name":1,"message":2}}', "EndpointError",
         'the endpoint answered 500: {"error":{"name":1,"message":2}}'),
        (b'{"error":7}', "EndpointError", 'the endpoint answered 500: {"error":7}'),
        (b"  " + b"x" * 1300, "EndpointError", "the endpoint answered 500: " + "x" * 298),
        ("é".encode() * 400, "EndpointError", "the endpoint answered 500: " + "é" * 300),
        ("😀".encode() * 400, "EndpointError", "the endpoint answered 500: " + "😀" * 300),
        (b" " * 9, "EndpointError", "the endpoint answered 500"),
        (b"{" * 100_000, "EndpointError", "the endpoint answered 500: " + "{" * 300),
        (b'{"message":"\xff"}', "EndpointError",
         'the endpoint answered 500: {"message":"\ufffd"}'),
        (b'{"a":' + b"[" * 100_000, "EndpointError",
         'the endpoint answered 500: {"a":' + "[" * 295),
    ],
)  # fmt: skip
def test_the_error_is_taken_from_the_body(body: bytes, name: str, message: str) -> None:
    assert read(500, body, SDK) == CallFailure(KIND.COUNTED, name, message)


RUNNING = Run("r", RunStatus.ASYNC, job_id="j", attempt=1)
PLANNED = Timer("s", TimerKind.PLANNED, 0, job_id="k", attempt=2)
CALL = Timer(RESUME, TimerKind.RESUME, 0, job_id="x", attempt=9)


@pytest.mark.parametrize(
    ("step_id", "job_id", "attempt", "counts"),
    [
        (RESUME, "j", 1, True),
        (RESUME, "j", 0, False),
        (RESUME, "k", 1, False),
        (RESUME, "x", 9, False),
        ("s", "k", 2, True),
        ("s", "j", 1, False),
        ("s", "k", 1, False),
        ("t", "k", 2, False),
    ],
)
def test_which_calls_still_count(step_id: str, job_id: str, attempt: int, counts: bool) -> None:
    snapshot = Snapshot(RUNNING, timers={RESUME: CALL, "s": PLANNED})
    assert is_current(snapshot, step_id, job_id, attempt) is counts
    over = Snapshot(Run("r", RunStatus.FAILED, job_id="j", attempt=1), timers=snapshot.timers)
    assert is_current(over, step_id, job_id, attempt) is False


@pytest.mark.parametrize(
    ("sdk", "ours"), [("stephttp-py:v1", True), ("inngest-js:v4", False), ("", False)]
)
def test_whose_run_it_is(sdk: str, ours: bool) -> None:
    assert (is_ours(sdk), asks_first(sdk), leaves_failed_steps(sdk)) == (ours, ours, not ours)
