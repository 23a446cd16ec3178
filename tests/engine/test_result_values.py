"""Results of runs and steps as whole values: what is read of them, stored and given back."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest

from stephttp._wire.opcodes import ErrorInfo, Op, OpCode
from stephttp.engine.model.change import RunWarning
from stephttp.engine.model.run import Run, RunStatus
from stephttp.engine.rules.results import (
    Completion,
    Rendered,
    complete_result,
    error_json,
    error_memo,
    error_result,
    http_result,
    kept_opts,
    memo_of,
    op_data,
    read_warnings,
    render,
    without_cookies,
)
from stephttp.engine.rules.waiting_ops import invoked_result

JSON = [("content-type", "application/json")]
HTTP = {"status": 418, "headers": {"x-q": "1"}, "body": "teapot"}
TEAPOT = Rendered(418, [("x-q", "1")], b"teapot")
HEAD = b'[201,[["x-a","b"],["Content-Encoding","gzip"]]]'


def encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


def test_how_errors_are_written() -> None:
    assert error_json("E", "m") == b'{"name":"E","message":"m"}'
    assert error_result("E", "m") == b'{"error":{"name":"E","message":"m","data":null}}'
    assert error_result("E", "m", 1) == b'{"error":{"name":"E","message":"m","data":1}}'
    assert error_memo(ErrorInfo()) == b'{"name":"","message":""}'
    null = msgspec.Raw(b"null")
    full = ErrorInfo("E", "m", "s", null, True, msgspec.Raw(b'{"name":"C"}'))
    memo = b'{"name":"E","message":"m","stack":"s","data":null,"cause":{"name":"C"}}'
    assert error_memo(full) == memo
    assert error_memo(ErrorInfo("E", "m", "")) == b'{"name":"E","message":"m","stack":""}'


def test_what_a_step_returned() -> None:
    bare, with_data = Op(OpCode.STEP_RUN, "a"), Op(OpCode.STEP_RUN, "a", data=msgspec.Raw(b"[1]"))
    assert (op_data(bare), memo_of(bare)) == (b"null", b'{"data":null}')
    assert (op_data(with_data), memo_of(with_data)) == (b"[1]", b'{"data":[1]}')
    assert type(op_data(with_data)) is bytes


def folded(inner: Any, **outer: Any) -> dict[str, Any]:
    return {"status": 200, "headers": {}, "body": json.dumps({"data": inner}), **outer}


PLAIN_500 = b'{"name":"HTTPError","message":"the handler answered with status 500"}'


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (1, None),
        (None, None),
        ({}, None),
        ({"status": 499}, None),
        ({"status": 500}, PLAIN_500),
        ({"status": 500.0}, None),
        ({"status": "500"}, None),
        ({"status": 200, "error": "ValueError: too large: 7"},
         b'{"name":"ValueError","message":"too large: 7"}'),
        ({"status": 500, "error": ""}, PLAIN_500),
        ({"error": "value: x"}, b'{"name":"Error","message":"value: x"}'),
        ({"error": "E-1: x"}, b'{"name":"Error","message":"E-1: x"}'),
        ({"error": "Eee"}, b'{"name":"Error","message":"Eee"}'),
        ({"error": ["x"]}, b'{"name":"Error","message":"[\'x\']"}'),
        ({"error": {"stack": "s"}}, b'{"name":"Error","message":""}'),
        ({"error": {"name": 5, "message": 6}}, b'{"name":"5","message":"6"}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("unfold", [False, True])
def test_whether_a_run_failed(value: Any, error: bytes | None, unfold: bool) -> None:
    data = encoded(value)
    assert complete_result(data, unfold=unfold) == Completion(data, error)


@pytest.mark.parametrize(
    ("duration", "took"),
    [(0, 0), (7, 7), (2**63 - 1, 2**63 - 1), (2**63, None), (-1, None), (True, None), (7.5, None)],
)
def test_how_long_the_handler_took(duration: Any, took: int | None) -> None:
    data = encoded({"status": 200, "duration": duration})
    assert complete_result(data, unfold=False) == Completion(data, None, took)
    whole = encoded(folded(HTTP, duration=duration))
    assert complete_result(whole, unfold=True) == Completion(encoded(HTTP), None, took)


@pytest.mark.parametrize(
    "value",
    [
        folded(HTTP, body='{"data"'),
        folded(HTTP, body='{"data":7}'),
        folded(HTTP, body='["data"]'),
        folded(HTTP, body=json.dumps({"date": HTTP})),
        folded(HTTP, body=json.dumps({"other": 1, "data": HTTP})),
        folded(HTTP, body=5),
        folded({**HTTP, "status": "418"}),
        folded({**HTTP, "headers": None}),
        folded({**HTTP, "body": None}),
        folded({"status": 418, "headers": {}}),
    ],
)
def test_bodies_that_hide_no_answer(value: Any) -> None:
    data = encoded(value)
    assert complete_result(data, unfold=True) == Completion(data, None)


def test_a_hidden_answer_says_whether_the_run_failed() -> None:
    hidden = {**HTTP, "status": 500}
    assert complete_result(encoded(folded(hidden)), unfold=True).error == PLAIN_500


@pytest.mark.parametrize(
    ("status", "output", "head", "error", "expected"),
    [
        ("completed", encoded(HTTP), None, None, TEAPOT),
        ("failed", encoded(HTTP), None, b'{"name":"E"}', TEAPOT),
        ("completed", b"[1]", None, None, Rendered(200, JSON, b"[1]")),
        ("completed", None, None, None, Rendered(200, JSON, b"")),
        ("completed", None, HEAD, None,
         Rendered(201, [("x-a", "b"), ("Content-Encoding", "gzip")], b"")),
        ("failed", b"hi", HEAD, None,
         Rendered(201, [("x-a", "b"), ("Content-Encoding", "gzip")], b"hi")),
        ("failed", None, None, b'{"name":"E","message":"m"}',
         Rendered(500, JSON, b'{"error":{"name":"E","message":"m"},"status":500}')),
        ("failed", None, None, None, Rendered(500, JSON, b'{"error":{},"status":500}')),
        ("cancelled", encoded(HTTP), None, None,
         Rendered(409, JSON, b'{"error":{"name":"CancelledError","message":'
                  b'"the run was cancelled"},"status":409}')),
    ],
)  # fmt: skip
def test_what_readers_of_a_result_get(
    status: str,
    output: bytes | None,
    head: bytes | None,
    error: bytes | None,
    expected: Rendered,
) -> None:
    assert render(RunStatus(status), output, head, error) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"status": 200, "headers": {}}, Rendered(200, [], b"")),
        ({"status": 200, "body": "x"}, Rendered(200, [], b"x")),
        ({"status": 599, "body": "x"}, Rendered(599, [], b"x")),
        ({"status": 600, "body": "x"}, None),
        ({"status": 199, "body": "x"}, None),
        ({"status": 200.0, "body": "x"}, None),
        ({"status": 204, "headers": {"a": "b"}, "body": "x"}, Rendered(204, [("a", "b")], b"")),
        ({"status": 304, "headers": {"a": "b"}, "body": "x"}, Rendered(304, [("a", "b")], b"")),
        ({"status": 200, "headers": [], "body": "x"}, None),
        ({"status": 200, "headers": {}, "body": 5}, None),
        ({"status": 200, "headers": {"n": 5}, "body": "\xe4"},
         Rendered(200, [("n", "5")], b"\xc3\xa4")),
        ({"status": 200, "headers": {"CONTENT-encoding": "gzip", "x": " X \t", "y": "\xa0"}},
         Rendered(200, [("x", "X"), ("y", "\xa0")], b"")),
        ({"status": 200, "headers": {"Keep-Alive": "1", "TE": "x", "Content-LENGTH": "5"}},
         Rendered(200, [], b"")),
        ({"status": 200, "headers": {"a": "x\x00", "b": "x\ty", "c": "\x7f", "d e": "1"}},
         Rendered(200, [("b", "x\ty")], b"")),
        ({"data": HTTP, "status": 200, "body": "outer"}, TEAPOT),
        ({"data": [], "status": 200, "body": "outer"}, Rendered(200, [], b"outer")),
        ({"data": {"status": 200}}, None),
        (HTTP | {"raw": {"headers": [["a", "b"]], "body": b64encode(b"\xff").decode()}},
         Rendered(418, [("a", "b")], b"\xff")),
        (HTTP | {"raw": {"headers": [], "body": None}}, Rendered(418, [], b"")),
        (HTTP | {"raw": {"headers": []}}, Rendered(418, [], b"")),
        (HTTP | {"raw": {"headers": [], "body": "a*=="}}, TEAPOT),
        (HTTP | {"raw": {"headers": [], "body": "ä"}}, TEAPOT),
        (HTTP | {"raw": {"headers": [], "body": 5}}, TEAPOT),
        (HTTP | {"raw": {"headers": {"a": "b"}, "body": ""}}, TEAPOT),
        ({"status": 200, "raw": {"headers": [], "body": "eA=="}}, Rendered(200, [], b"x")),
        ({"status": 200, "raw": {}}, None),
    ],
)  # fmt: skip
def test_outputs_that_describe_an_answer(output: Any, expected: Rendered | None) -> None:
    stored = json.dumps(output).encode()
    assert http_result(stored, None) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"data": HTTP}, TEAPOT),
        ({"data": {**HTTP, "body": None}}, None),
        (HTTP, None),
        ([], None),
    ],
)
def test_of_a_plain_body_only_a_whole_envelope_describes_an_answer(
    output: Any, expected: Rendered | None
) -> None:
    stored = encoded(output)
    as_it_is = Rendered(200, [("a", "b")], stored)
    assert http_result(stored, b'[200,[["a","b"]]]') == (expected or as_it_is)


@pytest.mark.parametrize("output", [None, b"", b"\xff", b"[" * 100_000])
def test_outputs_that_cannot_be_read_describe_no_answer(output: bytes | None) -> None:
    assert http_result(output, None) is None
    assert http_result(output, b"[204,[]]") == Rendered(204, [], b"")


def test_cookies_are_for_one_caller() -> None:
    headers = [("x-a", "b"), ("Set-Cookie", "s=1"), ("set-cookie", "t=2"), ("cookie", "u")]
    kept = Rendered(201, [("x-a", "b"), ("cookie", "u")], b"x")
    assert without_cookies(Rendered(201, headers, b"x")) == kept


@pytest.mark.parametrize(
    ("warnings", "found"),
    [
        (None, []),
        ("text", []),
        ([{"kind": "k", "message": "m"}], [RunWarning("k", "", 5, "m")]),
        ([{"kind": "k"}, 7, {"kind": "k", "message": "m", "step_id": "s", "more": 1}],
         [RunWarning("k", "s", 5, "m")]),
        ([{"kind": "k" * 65, "message": "m" * 2001, "step_id": "s" * 65}],
         [RunWarning("k" * 64, "s" * 64, 5, "m" * 2000)]),
        ([{"kind": str(n), "message": ""} for n in range(101)],
         [RunWarning(str(n), "", 5, "") for n in range(100)]),
    ],
)  # fmt: skip
def test_warnings_that_come_with_an_op(warnings: Any, found: list[RunWarning]) -> None:
    op = Op(OpCode.NONE, "n", opts=None if warnings is None else {"warnings": warnings})
    assert read_warnings(op, 5) == found


@pytest.mark.parametrize(
    ("opts", "kept"),
    [
        (None, None),
        ({}, None),
        ({"auth_key": "k", "headers": {}, "a": 1}, b'{"a":1}'),
        ({"url": "https://u:p@x.test/", "method": "GET"},
         b'{"url":"https://x.test/","method":"GET"}'),
        ({"url": 5}, b'{"url":5}'),
    ],
)  # fmt: skip
def test_options_are_kept_without_secrets(opts: Any, kept: bytes | None) -> None:
    assert kept_opts(Op(OpCode.STEP_RUN, "a", opts=opts)) == kept


CANCELLED = b'{"name":"CancelledError","message":"the invoked run was cancelled","data":null}'
TOO_LARGE = b'{"error":{"name":"ResultError","message":"the result of the invoked run is larger '


@pytest.mark.parametrize(
    ("run", "memo"),
    [
        ({"status": "completed", "output": b"[1]"}, b'{"data":[1]}'),
        ({"status": "failed"}, b'{"error":{"name":"Error","message":"","data":null}}'),
        ({"status": "cancelled", "output": b"[1]"},
         b'{"error":%s}' % CANCELLED),
    ],
)  # fmt: skip
def test_the_result_of_an_invoked_run_has_a_limit(run: dict[str, Any], memo: bytes) -> None:
    ended = Run(run_id="r", **{**run, "status": RunStatus(run["status"])})
    assert invoked_result(ended, len(memo)) == memo
    limit = len(memo) - 1
    assert invoked_result(ended, limit) == TOO_LARGE + b'than %d bytes","data":null}}' % limit
