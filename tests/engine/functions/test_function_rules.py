"""The rules of functions, as tables: what can be registered, and what answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from stephttp.engine.model.call import EndpointCall, FunctionState
from stephttp.engine.model.function_ids import app_id, function_id
from stephttp.engine.model.inputs import CallFailure
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.answers import HTTPResponse, OpsAnswer
from stephttp.engine.rules.functions import registration
from stephttp.engine.rules.functions.call_request import query_of
from stephttp.engine.rules.functions.function_answers import FunctionResult, read_function_answer
from tests.engine.functions.support import URL, config
from tests.engine.support import A

_RUNTIME = {"type": "http", "url": URL}


def body(*functions: Any, **more: Any) -> bytes:
    return json.dumps({"appName": "shop", "url": URL, "functions": functions} | more).encode()


def with_step(**step: Any) -> Any:
    return config("f", "go") | {"steps": {"step": {"id": "step", **step}}}


def test_ids_are_those_of_the_real_server() -> None:
    assert app_id("jsapp") == "7c9f919f-df62-5597-bb03-1aad4e8a37c6"
    assert function_id(app_id("jsapp"), "a") != function_id(app_id("other"), "a")


def test_what_is_registered_is_read() -> None:
    said = registration.read(
        body(config("f", {"event": "go", "expression": "event.data.n == 1"}, retries=99)),
        "inngest-py:v1",
    )
    (function,) = said.functions
    endpoint = function.endpoint
    assert (said.app.name, said.app.url, said.app.sdk) == ("shop", URL, "inngest-py:v1")
    assert (endpoint.domain, endpoint.path) == ("http://app.test", "/api/inngest")
    assert (endpoint.query, endpoint.retries) == ("fnId=f&stepId=step", 20)
    assert [(one.event, one.condition) for one in function.triggers] == [
        ("go", "event.data.n == 1")
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {"APPNAME": "shop", "URL": URL, "Functions": [config("f", "go")], "sdk": "js:v1"},
        {"app_id": "shop", "url": URL, "functions": [config("f", "go")], "sdk": "js:v1"},
        {
            "app_id": "shop", "url": URL, "functions": [config("f", "go")],
            "sdk_language": "js", "sdk_version": "1", "inspection": {"a": 1},
        },
    ],
)  # fmt: skip
def test_the_ways_in_which_sdks_say_it(keys: dict[str, Any]) -> None:
    said = registration.read(json.dumps(keys).encode(), "")
    assert (said.app.name, said.app.sdk) == ("shop", "inngest-js:v1")
    assert said.functions[0].endpoint.slug == "f"


def test_what_says_the_same_has_the_same_digest() -> None:
    first = registration.read(body(config("f", "go")), "a")
    assert (
        registration.read(body(config("f", "go"), deployId="another"), "a").digest == first.digest
    )
    for other in (body(config("f", "on")), body(), body(config("f", "go"), url=URL + "2")):
        assert registration.read(other, "a").digest != first.digest
    assert registration.read(body(config("f", "go")), "b").digest != first.digest


def test_what_a_newer_engine_can_do_is_registered_anew() -> None:
    before = registration.read(body(config("f", "go", later={"limit": 1})), "a")
    (function,) = before.functions
    assert function.endpoint.refused
    newer = replace(function, endpoint=replace(function.endpoint, refused=None))
    assert registration.digest_of(before.app, [function]) == before.digest
    assert registration.digest_of(before.app, [newer]) != before.digest


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"\xff", "body: not UTF-8"),
        (b"{", "body: invalid JSON"),
        (b"[" * 10_000, "body: "),
        (b"[]", "body: "),
        (b"{}", "body: "),
        (body(appName=""), "appName: must have"),
        (body(appName="x" * 1001), "appName: must have"),
        (body(url="ftp://x/y"), "url: 'ftp://x/y' is not a URL"),
        (body(url="http://[x/y"), "url: "),
        (body(url="http://user@x/y"), "url: "),
        (body(url="http://x/y\n"), "url: "),
        (body(url="http:///y"), "url: "),
        (body(url="http://x y/z"), "url: "),
        (body(1), "functions[0]: "),
        (body(config("f", "go") | {"name": "n" * 1001}), "functions[0].name: must have at most"),
        (body(config("f", "g" * 1001)), "functions[0].triggers[0].event: must have at most"),
        (body({}), "functions[0]: "),
        (body(config("", "go")), "functions[0].id: must have"),
        (body(config("f", "go"), config("f", "go")), "functions[1].id: 'f' is the id of two"),
        (body(config("f", "go") | {"steps": {}}), "functions[0].steps: expected one, got 0"),
        (body(with_step(runtime={"type": "http", "url": "x"})), "functions[0].steps.step.runtime"),
        (body(with_step(runtime={"type": "http"})), "functions[0].steps"),
        (
            body(with_step(runtime=_RUNTIME, retries={"attempts": -1})),
            "functions[0].steps.step.retries.attempts: must not be negative",
        ),
        (body(config("f", {})), "functions[0].triggers[0].event: must name"),
        (
            body(config("f", "go", {"cron": "* * * *"})),
            "functions[0].triggers[1].cron: expected five fields (minute, hour, day of month, ",
        ),
        (
            body(config("f", {"cron": "TZ=Mars/Base 0 0 * * *"})),
            "functions[0].triggers[0].cron: 'Mars/Base' is not a time zone",
        ),
        (body(config("f", {"cron": "* " * 501})), "functions[0].triggers[0].cron: must have at"),
        (
            body(config("f", {"cron": "@daily", "jitter": "soon"})),
            "functions[0].triggers[0].jitter: 'soon' is not a duration",
        ),
        (
            body(config("f", {"cron": "@daily", "jitter": "367d"})),
            "functions[0].triggers[0].jitter: '367d' is not from 1 ms",
        ),
        (
            body(config("f", {"cron": "@daily", "event": "go"})),
            "functions[0].triggers[0]: has a time and an event",
        ),
        (body(config("f", *["go"] * 11)), "functions[0].triggers: 11, at most 10"),
        (
            body(config("f", {"event": "go", "expression": "event.data.n =="})),
            "functions[0].triggers[0].expression: not a valid CEL expression",
        ),
        (
            body(config("f", {"event": "go", "expression": "async.data.n == 1"})),
            "functions[0].triggers[0].expression: ",
        ),
        (body(*[config(str(n), "go") for n in range(1001)]), "functions: 1001, at most 1000"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_field(said: bytes, complaint: str) -> None:
    with pytest.raises(Refused) as refused:
        registration.read(said, "")
    assert str(refused.value).startswith(complaint)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (config("f", {"cron": "* * * * *"}), None),
        (config("f", "inngest/scheduled.timer"), "triggers[0].event: "),
        (config("f", "go", later=[{"limit": 1}]), "later: "),
        (with_step(runtime={"type": "ws", "url": "ws://x"}), "steps.step.runtime.type: 'ws'"),
        (config("f", "go", concurrency=[], cancel=None, priority={"run": "1"}), None),
        (config("f", "go", checkpoint={"max_runtime": "1s"}), None),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_option(function: Any, reason: str | None) -> None:
    (read,) = registration.read(body(function), "").functions
    assert (read.endpoint.refused or "").startswith(reason or "")
    assert (read.endpoint.refused is None) is (reason is None)


def call(**more: Any) -> EndpointCall:
    state = FunctionState(b"[{}]", 2)
    fields = {"run_id": "r", "job_id": "j", "attempt": 0, "request_version": 2, "event_name": "go"}
    fields |= {"sdk": "", "domain": "http://x", "method": "POST", "path": "/a", "query": "fnId=f"}
    return EndpointCall(**{**fields, "content_type": "", "function": state, **more})


@pytest.mark.parametrize(
    ("query", "step", "result"),
    [
        ("fnId=f&stepId=step", "", "fnId=f&stepId=step"),
        ("fnId=f&stepId=step", A, f"fnId=f&stepId={A}"),
        ("stepId=step&fnId=f", A, f"stepId={A}&fnId=f"),
        ("myStepId=x", A, f"myStepId=x&stepId={A}"),
        ("", "", "stepId=step"),
        ("fnId=f", "a&fnId=g#é", "fnId=f&stepId=a%26fnId%3Dg%23%C3%A9"),
    ],
)
def test_the_query_names_the_step(query: str, step: str, result: str) -> None:
    assert query_of(call(query=query, step_id=step)) == result


def read(status: int, said: str, attempt: int = 0, **headers: str) -> tuple[Any, ...]:
    """What an answer means, in short."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    made = call(attempt=attempt)
    assert made.function is not None
    outcome = read_function_answer(
        HTTPResponse(status, named, said.encode("utf-8", "surrogateescape")), made, made.function, 0
    )
    if isinstance(outcome, FunctionResult):
        return "result", outcome.output.decode(), [op.op.value for op in outcome.steps]
    if isinstance(outcome, OpsAnswer):
        hints = outcome.hints
        names = [op.op.value for op in outcome.ops]
        return "ops", names, hints.no_retry, hints.retry_after_ms, hints.request_version
    assert isinstance(outcome, CallFailure)
    return outcome.kind.value, outcome.name, outcome.retry_after_ms


_STEP = json.dumps([{"op": "StepRun", "id": A, "data": 1}])
_STREAMED = json.dumps(
    {"status": 500, "headers": {"Retry-After": "7"}, "body": json.dumps({"name": "E"})}
)
_ERROR = '{"name": "E", "message": "m"}'
_THROWN = '{"type": "internal", "name": "E", "message": "m", "stack": "", "__serialized": true}'
"""What the TypeScript SDK answers for a middleware that throws."""


@pytest.mark.parametrize(
    ("status", "said", "more", "meaning"),
    [
        (200, "[1]", {}, ("result", "[1]", [])),
        (200, "{", {}, ("result", '"{"', [])),
        (200, "\udcff", {}, ("result", '"\ufffd"', [])),
        (204, "", {}, ("result", "null", [])),
        (206, _STEP, {}, ("ops", ["StepRun"], False, None, None)),
        (206, _STEP[1:-1], {}, ("ops", ["StepRun"], False, None, None)),
        (206, "[]", {}, ("ops", [], False, None, None)),
        (206, _STEP, {"x_inngest_req_version": "2"}, ("ops", ["StepRun"], False, None, 2)),
        (206, _STEP, {"x_inngest_req_version": "x"}, ("ops", ["StepRun"], False, None, None)),
        (206, _STEP, {"x_inngest_no_retry": "True"}, ("ops", ["StepRun"], True, None, None)),
        (206, _STEP, {"retry_after": "5"}, ("ops", ["StepRun"], False, 5000, None)),
        (206, _STEP, {"attempt": 2}, ("ops", ["StepRun"], True, None, None)),
        (206, '{"op": "RunComplete", "id": "c", "data": [1]}', {}, ("result", "[1]", [])),
        (206, '[{"op": "RunComplete", "id": "c"}]', {}, ("result", "null", [])),
        (206, '[{"op": "Nonsense", "id": "c"}]', {}, ("final", "AnswerError", None)),
        (206, "\udcff", {}, ("final", "AnswerError", None)),
        (201, " " + _STREAMED, {}, ("counted", "E", 7000)),
        (201, '{"status": 206, "body": 5}', {}, ("final", "AnswerError", None)),
        (201, "   ", {}, ("broken", "DamagedAnswerError", None)),
        (500, _ERROR, {}, ("counted", "E", None)),
        (500, json.dumps(_ERROR), {}, ("counted", "E", None)),
        (404, "gone", {}, ("counted", "FunctionError", None)),
        (500, '{"name": 5, "message": []}', {}, ("counted", "FunctionError", None)),
        (500, _ERROR, {"attempt": 2}, ("final", "E", None)),
        (400, _ERROR, {"x_inngest_no_retry": "true"}, ("final", "E", None)),
        (200, "hello", {"x_inngest_sdk": ""}, ("foreign", "UpstreamError", None)),
        (201, _STREAMED, {"x_inngest_sdk": ""}, ("foreign", "UpstreamError", None)),
        (500, _THROWN, {"x_inngest_sdk": ""}, ("counted", "E", None)),
        (500, _THROWN, {"x_inngest_sdk": "", "attempt": 2}, ("final", "E", None)),
        (502, _THROWN, {"x_inngest_sdk": ""}, ("transient", "UpstreamError", None)),
        (500, _ERROR, {"x_inngest_sdk": ""}, ("foreign", "UpstreamError", None)),
        (429, "", {"x_inngest_sdk": "", "retry_after": "9"}, ("transient", "UpstreamError", 9000)),
    ],
)
def test_what_answers_mean(
    status: int, said: str, more: dict[str, Any], meaning: tuple[Any, ...]
) -> None:
    assert read(status, said, **{"x_inngest_sdk": "inngest-py:v1", **more}) == meaning


def test_what_is_said_of_a_function_that_is_refused_is_short() -> None:
    large = "x" * 500_000
    step = {large: {"runtime": {"type": large, "url": URL}}}
    for function in (config("f", "go") | {"steps": step}, config("f", "go", **{large: 1})):
        (read,) = registration.read(body(function, framework=large), "").functions
        assert 200 < len(read.endpoint.refused or "") < 600
