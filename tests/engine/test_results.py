"""What readers of outputs get, and what endpoints' answers mean."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from stephttp.engine.model.inputs import CallFailure, FailureKind
from stephttp.engine.model.run import RunStatus
from stephttp.engine.rules.answers import HTTPResponse, OpsAnswer, PlainAnswer, read_answer
from stephttp.engine.rules.results import complete_result, render

JSON = [("content-type", "application/json")]
HTTP = {"status": 418, "headers": {"x-q": "1"}, "body": "teapot"}
PLAIN = b'[200,[["content-type","text/plain"]]]'


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (HTTP, (418, [("x-q", "1")], b"teapot")),
        ({"data": HTTP}, (418, [("x-q", "1")], b"teapot")),
        ({"status": 200, "headers": None, "body": None}, (200, [], b"")),
        ({"status": 204, "headers": {}, "body": "x"}, (204, [], b"")),
        ({"status": 0, "headers": None, "duration": 0}, None),
        ({"status": 99, "body": ""}, None),
        ({"status": 1000, "body": ""}, None),
        ({"status": True, "body": ""}, None),
        ({"status": 200}, None),
        ({"status": 200, "body": 5}, None),
        ([1, 2], None),
        ("text", None),
        (None, None),
    ],
)
def test_run_complete_data_is_replayed(output: Any, expected: Any) -> None:
    stored = json.dumps(output).encode()
    result = render(RunStatus.COMPLETED, stored, None, None)
    found = (result.status, result.headers, result.body)
    assert found == (expected or (200, JSON, stored))


def test_headers_that_cannot_be_sent_are_left_out() -> None:
    headers = {
        "X-Good": " yes\t",
        "Connection": "close",
        "Content-Length": "99",
        "Transfer-Encoding": "chunked",
        "Content-Encoding": "gzip",
        "bad name": "x",
        "x-bad": "a\r\nset-cookie: b",
    }
    data = json.dumps({"status": 200, "headers": headers, "body": ""}).encode()
    assert render(RunStatus.COMPLETED, data, None, None).headers == [("X-Good", "yes")]


def test_raw_results_keep_bytes_and_repeated_headers() -> None:
    headers = [["set-cookie", "a=1"], ["set-cookie", "b=2"], ["content-encoding", "gzip"]]
    raw = {"headers": headers, "body": base64.b64encode(b"\xff\x00").decode()}
    data = json.dumps({**HTTP, "raw": raw}).encode()
    result = render(RunStatus.COMPLETED, data, None, None)
    assert (result.status, result.body) == (418, b"\xff\x00")
    assert [list(pair) for pair in result.headers] == headers


@pytest.mark.parametrize("raw", [{}, {"headers": {}}, {"headers": [], "body": "%"}, 5])
def test_a_broken_raw_part_is_ignored(raw: Any) -> None:
    data = json.dumps({**HTTP, "raw": raw}).encode()
    assert render(RunStatus.COMPLETED, data, None, None).body == b"teapot"


def test_the_handlers_own_json_is_not_taken_for_a_result() -> None:
    body = json.dumps(HTTP).encode()
    result = render(RunStatus.COMPLETED, body, PLAIN, None)
    assert (result.status, result.body) == (200, body)
    assert result.headers == [("content-type", "text/plain")]
    envelope = json.dumps({"data": HTTP}).encode()
    assert render(RunStatus.COMPLETED, envelope, PLAIN, None).status == 418


def test_failed_and_cancelled_runs() -> None:
    error = {"name": "E", "message": "m"}
    result = render(RunStatus.FAILED, b"junk", None, json.dumps(error).encode())
    assert (result.status, json.loads(result.body)) == (500, {"error": error, "status": 500})
    result = render(RunStatus.CANCELLED, None, None, None)
    assert result.status == 409
    assert json.loads(result.body)["error"]["name"] == "CancelledError"


def test_a_whole_answer_in_the_body_of_a_checkpoint() -> None:
    data = {"status": 200, "headers": {}, "body": json.dumps({"data": HTTP})}
    raw = json.dumps(data).encode()
    assert json.loads(complete_result(raw, unfold=True).output) == HTTP
    assert complete_result(raw, unfold=False).output == raw


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        ("CardDeclined: no money: none", "CardDeclined", "no money: none"),
        ("panic", "Error", "panic"),
        ("dial tcp: refused", "Error", "dial tcp: refused"),
        ({"name": "TypeError", "message": "x: y"}, "TypeError", "x: y"),
    ],
)
def test_the_error_that_a_result_tells_of(error: Any, name: str, message: str) -> None:
    raw = json.dumps({"status": 500, "error": error}).encode()
    told = complete_result(raw, unfold=False).error
    assert told is not None
    assert json.loads(told) == {"name": name, "message": message}


SDK = ("x-inngest-sdk", "t:v1")
RUN_COMPLETE = b'{"op":"RunComplete","id":"c","data":{"status":500}}'


def read(status: int, body: bytes, *headers: tuple[str, str]) -> Any:
    return read_answer(HTTPResponse(status, headers, body), 0)


@pytest.mark.parametrize("status", [200, 206, 500])
def test_an_array_is_ops_whatever_the_status(status: int) -> None:
    found = read(status, b' [{"op":"StepRun","id":"a"}]', SDK, ("x-inngest-req-version", "2"))
    assert isinstance(found, OpsAnswer)
    assert [op.id for op in found.ops] == ["a"]
    assert found.hints.request_version == 2


@pytest.mark.parametrize("body", [RUN_COMPLETE, b"[" + RUN_COMPLETE + b"]"])
def test_an_answer_that_was_damaged_on_the_way_is_neither_result_nor_failure(body: bytes) -> None:
    """Wherever the damage is: also in what shows that it is an op."""
    kind = ("content-type", "application/json")
    for at in range(len(body)):
        found = read(206, body[:at] + b"\xff" + body[at + 1 :], SDK, kind)
        assert isinstance(found, CallFailure)
        assert (found.kind, found.name) == (FailureKind.BROKEN, "DamagedAnswerError")
    assert isinstance(read(206, body.replace(b"500", '"é"'.encode()), SDK, kind), OpsAnswer)


@pytest.mark.parametrize("body", [RUN_COMPLETE, b"[" + RUN_COMPLETE + b"]"])
def test_a_final_op_alone_or_in_an_array(body: bytes) -> None:
    found = read(206, body, SDK)
    assert isinstance(found, OpsAnswer)
    assert found.ops[0].op == "RunComplete"


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (200, [], FailureKind.FOREIGN),
        (302, [], FailureKind.FOREIGN),
        (500, [], FailureKind.FOREIGN),
        (429, [], FailureKind.TRANSIENT),
        (429, [SDK], FailureKind.COUNTED),
        (502, [], FailureKind.TRANSIENT),
        (503, [], FailureKind.TRANSIENT),
        (504, [], FailureKind.TRANSIENT),
        (503, [SDK], FailureKind.TRANSIENT),
        (500, [SDK], FailureKind.COUNTED),
        # A refused signature; but Go sends the handler's own answer, and others may stand between.
        (401, [SDK], FailureKind.TRANSIENT),
        (401, [SDK, ("x-inngest-no-retry", "true")], FailureKind.TRANSIENT),
        (401, [("x-inngest-sdk", "go:0.16.0")], FailureKind.COUNTED),
        (401, [], FailureKind.FOREIGN),
        (400, [SDK, ("x-inngest-no-retry", "true")], FailureKind.FINAL),
        (500, [SDK, ("x-inngest-no-retry", "false")], FailureKind.COUNTED),
    ],
)
def test_failures(status: int, headers: list[tuple[str, str]], kind: FailureKind) -> None:
    found = read(status, b"why", *headers)
    assert isinstance(found, CallFailure)
    assert found.kind is kind
    assert str(status) in found.message
    assert found.message.endswith(": why")


def test_a_handlers_failure_carries_its_result() -> None:
    for status in (500, 503):
        found = read(status, RUN_COMPLETE, SDK, ("retry-after", "7"))
        assert isinstance(found, CallFailure)
        assert (found.kind, found.output) == (FailureKind.COUNTED, b'{"status":500}')
        assert found.retry_after_ms == 7000


def test_steps_before_a_handlers_failure_are_kept_and_not_shown_as_its_reason() -> None:
    body = b'[{"op":"StepRun","id":"a","data":"secret"},' + RUN_COMPLETE + b"]"
    for status, headers, kind in (
        (500, [SDK], FailureKind.COUNTED),
        (503, [SDK], FailureKind.COUNTED),
        (401, [SDK], FailureKind.COUNTED),
        (500, [SDK, ("x-inngest-no-retry", "true")], FailureKind.FINAL),
    ):
        found = read(status, body, *headers)
        assert isinstance(found, CallFailure)
        assert (found.kind, found.output) == (kind, b'{"status":500}')
        assert [op.id for op in found.steps] == ["a"]
        assert "secret" not in found.message


def test_steps_before_the_end_are_ops_like_it() -> None:
    found = read(206, b'[{"op":"StepRun","id":"a"},' + RUN_COMPLETE + b"]", SDK)
    assert isinstance(found, OpsAnswer)
    assert [op.op for op in found.ops] == ["StepRun", "RunComplete"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"name":"N","message":"m"}', ("N", "m")),
        (b'{"error":{"name":"N","message":"m"}}', ("N", "m")),
        (b'{"error":"m"}', ("EndpointError", "m")),
        (b'{"message":5}', ("EndpointError", 'the endpoint answered 500: {"message":5}')),
        (b"\xff", ("EndpointError", "the endpoint answered 500: \ufffd")),
        (b"", ("EndpointError", "the endpoint answered 500")),
    ],
)
def test_the_error_is_taken_from_the_body(body: bytes, expected: tuple[str, str]) -> None:
    found = read(500, body, SDK)
    assert (found.name, found.message) == expected


@pytest.mark.parametrize("body", [b"", b"hello", b"{}", b'{"op":"x","id":"Complete"}', b"[1]"])
def test_any_other_good_answer_is_the_result(body: bytes) -> None:
    found = read(201, body, SDK, ("content-type", "text/plain"), ("x-run-id", "r"))
    assert found == PlainAnswer(body, b'[201,[["content-type","text/plain"]]]')


def test_ops_that_cannot_be_read_fail_the_run_if_ops_were_promised() -> None:
    found = read(206, b'[{"op":"Nope","id":"a"}]', SDK)
    assert isinstance(found, CallFailure)
    assert found.kind is FailureKind.FINAL
    assert "Nope" in found.message
