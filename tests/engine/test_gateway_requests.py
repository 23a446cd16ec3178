"""The HTTP requests of steps as whole values: what is made of an op, and what follows an answer."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine import Backoff, Settings
from stephttp.engine.model.change import Change, Entry, Past
from stephttp.engine.model.inputs import Moment, Origin
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import Known, Run, RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id
from stephttp.engine.rules.gateway_answer import GatewayOutcome, is_temporary, request_made
from stephttp.engine.rules.gateway_request import RequestSpec, read_gateway
from stephttp.engine.rules.transitions import apply_ops

NOW = 1_800_000_000_000
URL = "https://api.test/x?y=1"
KEY = {"idempotency-key": "r-a"}
AI = {"url": URL, "format": "openai-chat", "auth_key": "sk", "body": {"b": 1, "a": [1.0]}}
AI_HEADERS = {**KEY, "content-type": "application/json", "authorization": "Bearer sk"}
BASIC = {"authorization": "Basic dTpww6Q="}  # u:pä
LONG = "x" * 100


def spec(code: OpCode, opts: dict[str, Any] | None) -> RequestSpec:
    made = read_gateway(Op(code, "a", opts=opts), "s", "r", 4, NOW)
    return msgspec.json.decode(made, type=RequestSpec)


def plain(method: str = "POST", body: str = "", **headers: str) -> RequestSpec:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    key = {} if method.upper() in ("GET", "HEAD", "OPTIONS", "TRACE") else KEY
    return RequestSpec(False, URL, method, {**key, **named}, body, 4)


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        ({}, plain()),
        ({"method": ""}, plain()),
        ({"retry_after": "Fri, 15 Jan 2027 08:00:07 GMT"}, plain()),
        ({"method": None, "headers": None, "body": None}, plain()),
        ({"method": "get"}, plain("get")),
        ({"method": "OPTIONS"}, plain("OPTIONS")),
        ({"method": "PATCH", "body": "text"}, plain("PATCH", "text")),
        ({"headers": {"X-A": "b", "X-L": "\xe4\t", "HOST": "h", "Content-Length": "1",
                      "connection": "c", "Transfer-Encoding": "t"}}, plain(x_a="b", x_l="\xe4\t")),
        ({"headers": {"Idempotency-Key": "mine"}}, plain(idempotency_key="mine")),
        ({"url": "https://u:p%C3%A4@api.test/x?y=1"}, plain(**BASIC)),
        ({"url": "https://u:p%C3%A4@api.test/x?y=1", "headers": {"Authorization": "mine"}},
         plain(**BASIC)),
        ({"retries": 2, "delay": "5s", "max_delay": "9s"},
         RequestSpec(False, URL, "POST", KEY, "", 2, 5.0, 9.0)),
    ],
)  # fmt: skip
def test_requests(opts: dict[str, Any], expected: RequestSpec) -> None:
    assert spec(OpCode.GATEWAY, {"url": URL, **opts}) == expected


def inferred(**headers: str | None) -> RequestSpec:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    merged = {name: text for name, text in {**AI_HEADERS, **named}.items() if text is not None}
    return RequestSpec(True, URL, "POST", merged, '{"a":[1],"b":1}', 4)


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        ({}, inferred()),
        ({"auth_key": None}, inferred(authorization=None)),
        ({"auth_key": ""}, inferred(authorization=None)),
        ({"headers": {"Content-Type": "x/y", "Authorization": "mine"}},
         inferred(content_type="x/y", authorization="mine")),
        ({"format": "anthropic", "headers": {"x-api-key": "mine"}},
         inferred(x_api_key="mine", authorization=None)),
        ({"format": "gemini"}, inferred(x_goog_api_key="sk", authorization=None)),
    ],
)  # fmt: skip
def test_inferences(opts: dict[str, Any], expected: RequestSpec) -> None:
    assert spec(OpCode.AI_GATEWAY, {**AI, **opts}) == expected


KNOWN = "openai-chat, openai-responses, grok, azure-openai, anthropic, gemini"
NO_LARGE = "1152921504606846976"


@pytest.mark.parametrize(
    ("code", "opts", "message"),
    [
        (OpCode.GATEWAY, None, "url: not a URL: "),
        (OpCode.GATEWAY, {"url": "http://x:port"}, "url: not a URL: "),
        (OpCode.GATEWAY, {"url": "//u:p@h/"}, "url: '//h/' is not an http or https URL"),
        (OpCode.GATEWAY, {"url": "ftp://h/" + "x" * 300},
         f"url: 'ftp://h/{'x' * 192}' is not an http or https URL"),
        (OpCode.GATEWAY, {"url": "https:///x"}, "url: 'https:///x' is not an http or https URL"),
        (OpCode.GATEWAY, {"method": "A B"}, "method: 'A B' is not an HTTP method"),
        (OpCode.GATEWAY, {"method": LONG + "\n"}, f"method: {'x' * 64!r} is not an HTTP method"),
        (OpCode.GATEWAY, {"method": 5}, "method: '5' is not an HTTP method"),
        (OpCode.GATEWAY, {"headers": []}, "headers: expected an object of texts, got list"),
        (OpCode.GATEWAY, {"headers": {"a": 5}}, "headers.a: not a header that can be sent"),
        (OpCode.GATEWAY, {"headers": {"a": "\x7f"}}, "headers.a: not a header that can be sent"),
        (OpCode.GATEWAY, {"headers": {" " + LONG: ""}},
         f"headers. {'x' * 63}: not a header that can be sent"),
        (OpCode.GATEWAY, {"headers": {"a": "\u0142"}},
         "headers.a: holds characters that headers cannot"),
        (OpCode.GATEWAY, {"body": 5}, "body: expected text, got int"),
        (OpCode.GATEWAY, {"retries": -1}, "retries: expected a number from 0, got -1"),
        (OpCode.GATEWAY, {"delay": 5}, "delay: expected text such as '1h30m', got int"),
        (OpCode.AI_GATEWAY, {"body": None}, "body: expected an object, got NoneType"),
        (OpCode.AI_GATEWAY, {"body": {"a": 2**60}}, f"body: {NO_LARGE}"),
        (OpCode.AI_GATEWAY, {"format": None}, f"format: 'None' is not known; known are {KNOWN}"),
        (OpCode.AI_GATEWAY, {"format": LONG},
         f"format: {'x' * 64!r} is not known; known are {KNOWN}"),
        (OpCode.AI_GATEWAY, {"auth_key": 0}, "auth_key: not a text that can be sent in a header"),
        (OpCode.AI_GATEWAY, {"auth_key": "\xe4"},
         "auth_key: not a text that can be sent in a header"),
        (OpCode.AI_GATEWAY, {"auth_key": "a\n"},
         "auth_key: not a text that can be sent in a header"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent(code: OpCode, opts: dict[str, Any] | None, message: str) -> None:
    given = AI if code is OpCode.AI_GATEWAY else {"url": URL}
    with pytest.raises(Refused) as refused:
        spec(code, None if opts is None else {**given, **opts})
    if message.endswith((": ", NO_LARGE)):
        assert str(refused.value).startswith(f"s.opts.{message}")
    else:
        assert str(refused.value) == f"s.opts.{message}"


@pytest.mark.parametrize(
    ("status", "temporary"),
    [
        (200, False), (407, False), (408, True), (409, False), (425, True), (429, True),
        (499, False), (500, True), (599, True), (600, False),
    ],
)  # fmt: skip
def test_which_answers_may_be_others_later(status: int, temporary: bool) -> None:
    assert is_temporary(status) is temporary


RUN = Run("r", RunStatus.ASYNC, retries=4, job_id="j")
FAILED = GatewayOutcome(b'{"data":1}', b'{"name":"E"}')
PATIENT = Settings(retry=Backoff(2, 3, 100, 0))


def waiting(attempt: int = 0, **wishes: Any) -> Timer:
    made = RequestSpec(False, URL, "POST", {}, "", **{"retries": 2, **wishes})
    payload = msgspec.json.encode(made)
    return Timer("a", TimerKind.GATEWAY, NOW - 5, attempt=attempt, payload=payload)


def made(timer: Timer, outcome: GatewayOutcome = FAILED, run: Run = RUN) -> Change:
    return request_made(
        Snapshot(run, timers={"a": timer}), "a", outcome, NOW - 3, Moment(NOW, Random(1), PATIENT)
    )


@pytest.mark.parametrize(
    ("timer", "outcome", "delay"),
    [
        (waiting(), FAILED, 2000),
        (waiting(1), FAILED, 6000),
        (waiting(1, first=5.0), FAILED, 15_000),
        (waiting(1, longest=3.0), FAILED, 3000),
        (waiting(1, first=5.0, longest=7.0), FAILED, 7000),
        (waiting(1, first=500.0), FAILED, 500_000),
        (waiting(1), replace(FAILED, retry_after="7"), 7000),
        (waiting(1), replace(FAILED, retry_after="soon"), 6000),
        (waiting(), replace(FAILED, retry_after="Fri, 15 Jan 2027 08:00:07 GMT"), 7000),
    ],
)
def test_a_failed_request_is_made_again_later(
    timer: Timer, outcome: GatewayOutcome, delay: int
) -> None:
    assert made(timer, outcome) == Change(
        RUN,
        timers=(replace(timer, due_ms=NOW + delay, attempt=timer.attempt + 1),),
        history=(Entry(Past.ATTEMPT, "a", "", timer.attempt, NOW - 3, NOW, b'{"name":"E"}'),),
    )


@pytest.mark.parametrize(
    ("timer", "outcome"),
    [
        (waiting(), GatewayOutcome(b'{"data":1}')),
        (waiting(2), FAILED),
        (waiting(0, retries=0), FAILED),
        (Timer("a", TimerKind.EVENT, NOW, payload=waiting().payload), FAILED),
        (replace(waiting(), payload=None), FAILED),
    ],
)
def test_the_last_answer_ends_the_step(timer: Timer, outcome: GatewayOutcome) -> None:
    assert made(timer, outcome) == Change(
        replace(RUN, job_id=new_job_id(Random(1)), state_size=10),
        resolved=(("a", b'{"data":1}'),),
        timers=(Timer(RESUME, TimerKind.RESUME, NOW),),
        dropped=("a",),
    )


def test_a_run_that_has_ended_makes_no_request_again() -> None:
    over = replace(RUN, status=RunStatus.CANCELLED)
    assert made(waiting(), run=over) == Change(over)
    elsewhere = Snapshot(RUN, timers={"b": waiting()})
    moment = Moment(NOW, Random(1), PATIENT)
    assert request_made(elsewhere, "a", FAILED, NOW, moment) == Change(RUN)


def test_an_op_that_asks_for_a_request() -> None:
    op = Op(OpCode.GATEWAY, "a", opts={"url": URL})
    moment = Moment(NOW, Random(1), Settings())
    change = apply_ops(Snapshot(RUN), [op], Origin.CHECKPOINT, moment)
    payload = read_gateway(op, "f", "r", 4, NOW)
    assert change.timers == (Timer("a", TimerKind.GATEWAY, NOW, payload=payload),)
    later = replace(op, opts={"url": URL, "retry_after": "Fri, 15 Jan 2027 08:00:07 GMT"})
    assert apply_ops(Snapshot(RUN), [later], Origin.CHECKPOINT, moment).timers == change.timers
    bad = apply_ops(Snapshot(RUN), [replace(op, opts={"url": "x"})], Origin.CHECKPOINT, moment)
    error = msgspec.json.decode(bad.steps[0].memo or b"")["error"]
    assert error["message"] == "step 'a': opts.url: 'x' is not an http or https URL"
    known = Snapshot(RUN, {"a": Known(1, resolved=True)}, {"b": waiting()})
    assert apply_ops(known, [op], Origin.CHECKPOINT, moment) == Change(RUN)
