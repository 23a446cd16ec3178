import base64
import json
from typing import Any

from stephttp._core import replies, reports
from stephttp._wire.http import Response
from stephttp._wire.ids import COMPLETE
from stephttp._wire.opcodes import Op


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
