"""The answers of the SDK, whole: status, headers, body."""

import base64
import json
from typing import Any

import pytest
from msgspec import Raw

from stephttp._core import replies, reports
from stephttp._core.steps import EXECUTE, Step
from stephttp._wire.http import Response
from stephttp._wire.ids import COMPLETE
from stephttp._wire.opcodes import Op, OpCode

NO_RETRY = "x-inngest-no-retry"


def shown(response: Response) -> tuple[int, dict[str, str], Any]:
    """Return status, headers but for those of each JSON answer, and what the body says."""
    headers = {name.decode(): value.decode() for name, value in response.headers}
    assert len(headers) == len(response.headers)
    assert headers.pop("content-type") == "application/json"
    assert headers.pop("content-length") == str(len(response.body))
    return response.status, headers, json.loads(response.body)


def data_of(op: Op) -> dict[str, Any]:
    answer = json.loads(reports.result_answer(op).body)
    assert (answer["op"], answer["id"]) == ("RunComplete", COMPLETE)
    data: dict[str, Any] = answer["data"]
    return data


def test_a_result_is_one_object_with_status_headers_and_body() -> None:
    response = Response(201, [(b"content-type", b"text/plain")], "grüß".encode())
    assert data_of(reports.run_complete(response, duration_ns=5)) == {
        "status": 201,
        "headers": {"content-type": "text/plain"},
        "body": "grüß",
        "duration": 5,
    }


def test_binary_bodies_and_repeated_headers_go_raw_to_a_server_that_reads_it() -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    data = data_of(
        reports.run_complete(Response(200, cookies, b"\xff"), duration_ns=0, raw_allowed=True)
    )
    assert data["raw"]["headers"] == [["set-cookie", "a=1"], ["set-cookie", "b=2"]]
    assert base64.b64decode(data["raw"]["body"]) == b"\xff"


def test_plain_responses_do_not_go_raw() -> None:
    op = reports.run_complete(Response(200, [], b"ok"), duration_ns=0, raw_allowed=True)
    assert "raw" not in data_of(op)


def test_a_server_that_reads_no_raw_bodies_is_told_why_there_is_none() -> None:
    data = data_of(reports.run_complete(Response(200, [], b"\xff"), duration_ns=0))
    assert data["status"] == 500
    assert "not UTF-8" in json.loads(data["body"])["error"]


def test_repeated_headers_are_joined_where_a_map_is_all_there_is() -> None:
    headers = [(b"vary", b"a"), (b"vary", b"b")]
    assert data_of(reports.run_complete(Response(200, headers), duration_ns=0))["headers"] == {
        "vary": "a, b"
    }


def test_errors_have_the_shape_that_servers_use() -> None:
    response = replies.error_answer(404, "no", [(b"retry-after", b"5")])
    assert json.loads(response.body) == {"error": "no", "data": None, "status": 404}
    assert (b"retry-after", b"5") in response.headers


def test_a_failure_that_is_to_be_repeated_says_so() -> None:
    response = reports.result_answer(reports.run_complete(Response(503), duration_ns=0), again=True)
    assert response.status == 500
    assert (b"x-inngest-no-retry", b"false") in response.headers


def finished(key: str, **opts: str) -> Op:
    return Op(OpCode.STEP_RUN, key, key, opts=opts or None, data=Raw(b"1"))


def test_ops_are_answered_with_the_latest_time_that_one_asks_for() -> None:
    plain = finished("a"), finished("b", other="x")
    body = [
        {"op": "StepRun", "id": "a", "name": "a", "data": 1},
        {"op": "StepRun", "id": "b", "name": "b", "opts": {"other": "x"}, "data": 1},
    ]
    assert shown(reports.ops_answer(plain)) == (206, {}, body)
    soon, late = (finished(time, retry_after=time) for time in ("2026-01-01", "2026-01-02"))
    for ops in ((soon, late, plain[0]), (plain[0], late, soon)):
        assert shown(reports.ops_answer(ops))[1] == {"retry-after": "2026-01-02"}


@pytest.mark.parametrize(
    ("status", "error", "asked", "answer"),
    [
        (200, None, {}, (206, {})),
        (200, None, {"plain": True}, (206, {})),
        (499, None, {"plain": True}, (206, {})),
        (500, None, {"plain": True}, (206, {NO_RETRY: "true"})),
        (200, "E: x", {"plain": True}, (206, {NO_RETRY: "true"})),
        (500, "E: x", {}, (206, {})),
        (500, None, {"again": True, "plain": True}, (500, {NO_RETRY: "false"})),
        (
            503,
            "E: x",
            {"again": True, "retry_after": "2026-01-01"},
            (500, {NO_RETRY: "false", "retry-after": "2026-01-01"}),
        ),
        (200, None, {"retry_after": "2026-01-01"}, (206, {})),
    ],
)
def test_the_head_of_an_answer_says_whether_the_run_has_failed(
    status: int, error: str | None, asked: dict[str, Any], answer: tuple[int, dict[str, str]]
) -> None:
    end = reports.run_complete(Response(status), duration_ns=0, error=error)
    assert reports.has_failed(end) is (status >= 500 or error is not None)
    data = {"status": status, "headers": {}, "body": ""} | ({"error": error} if error else {})
    body = {"op": "RunComplete", "id": COMPLETE, "data": data}
    assert shown(reports.result_answer(end, **asked)) == (*answer, body)
    step = {"op": "StepRun", "id": "a", "name": "a", "data": 1}
    with_step = reports.result_answer(end, [finished("a")], **asked)
    assert shown(with_step) == (*answer, [step, body])


def test_what_is_not_utf8_is_replaced_where_the_caller_has_the_answer_already() -> None:
    response = Response(200, [(b"vary", b"a")], b"a\xffb")
    for raw_allowed in (False, True):
        end = reports.run_complete(
            response, duration_ns=7, error="E", lossy=True, raw_allowed=raw_allowed
        )
        assert data_of(end) == {
            "status": 200, "headers": {"vary": "a"}, "body": "a\ufffdb", "duration": 7,
            "error": "E",
        }  # fmt: skip


def test_a_body_that_no_server_carries_ends_the_run_with_an_error() -> None:
    end = reports.run_complete(Response(201, [(b"a", b"b")], b"\xff"), duration_ns=7, error="E")
    data = data_of(end)
    body = json.loads(data["body"])
    assert data == {
        "status": 500,
        "headers": {"content-type": "application/json", "content-length": str(len(data["body"]))},
        "body": data["body"],
        "duration": 7,
        "error": body["error"],
    }
    assert body == {"error": data["error"], "data": None, "status": 500}


def test_what_goes_raw_has_no_text_beside_it() -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    end = reports.run_complete(
        Response(200, cookies, b"text"), duration_ns=5, error="E", raw_allowed=True
    )
    data = data_of(end)
    assert (data["body"], data["duration"], data["error"]) == ("", 5, "E")
    assert base64.b64decode(data["raw"]["body"]) == b"text"


@pytest.mark.parametrize("again", [True, False])
def test_a_step_that_the_handler_does_not_come_to(again: bool) -> None:
    passed = [Step(EXECUTE, "a", 0, "1" * 40), Step(EXECUTE, "b", 2, "2" * 40)]
    status, headers, body = shown(replies.unknown_step("3" * 40, passed, again=again))
    assert (status, headers) == (500, {NO_RETRY: "false" if again else "true"})
    assert body.pop("error").startswith(f"the step {'3' * 40} was asked for, but")
    assert body == {
        "requestedStep": "3" * 40,
        "foundSteps": [{"id": "1" * 40, "name": "a"}, {"id": "2" * 40, "name": "b"}],
        "totalFoundSteps": 2,
    }


ADDRESS = {"run_id": "R", "token": "t", "result_url": "/.stephttp/t"}


def test_answers_to_callers_and_servers() -> None:
    error = {"error": "no", "data": None, "status": 404}
    again = [("retry-after", "5")]
    for response, wanted in (
        (replies.token_answer("R", "t", "/.stephttp/t"), (200, {}, ADDRESS)),
        (
            replies.accepted("R", "t", "/.stephttp/t"),
            (202, {"location": "/.stephttp/t", "retry-after": "2"}, ADDRESS),
        ),
        (
            replies.accepted("R", "t", "/.stephttp/t", b"wait=1"),
            (
                202,
                {
                    "location": "/.stephttp/t",
                    "retry-after": "2",
                    "preference-applied": "wait=1",
                },
                ADDRESS,
            ),
        ),
        (replies.error_answer(404, "no"), (404, {}, error)),
        (replies.error_answer(404, "no", replies.RETRY_SOON), (404, dict(again), error)),
        (replies.refused(404, "no"), (404, {NO_RETRY: "true"}, error)),
        (
            replies.call_again(503, "busy", replies.RETRY_SOON, "0" * 40),
            (
                503,
                dict(again),
                [
                    {
                        "op": "DiscoveryRequest",
                        "id": "0" * 40,
                        "name": "busy",
                        "opts": {"parallelMode": "race"},
                    }
                ],
            ),
        ),
    ):
        assert shown(response) == wanted
    status, headers, body = shown(replies.misdirected(Response(404)))
    assert (status, headers, body["data"], body["status"]) == (421, {}, None, 421)
    assert body["error"].startswith("the application answered 404 and came to none of the steps")
