"""What tools ask of the server: the exact opcodes, and what they refuse to ask for."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from msgspec import Raw

import stephttp
from stephttp import ModelAdapter, StepError
from stephttp._core import waits
from stephttp._core.conversion import CONVERSIONS
from stephttp._core.encoding import decode_result
from stephttp._core.http_steps import fetch, infer
from stephttp._core.run import Run
from stephttp._core.steps import Verdict
from stephttp._core.tool_types import EndpointResult
from stephttp._wire.ids import hash_step_id
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import OpCode

HOUR = timedelta(hours=1)
ADAPTER = ModelAdapter(url="https://ai.test/v1/chat", auth_key="sk", model="m", headers={"a": "b"})


@stephttp.setup("https://shop.example").endpoint(id="place-order")
async def endpoint(order: str) -> dict[str, int]:
    return {order: 1}


class Foreign:
    """Shaped like `inngest.Function`."""

    id = "app-fn"


EXACT: list[tuple[Callable[[], waits.Wait], str, str, dict[str, Any]]] = [
    (lambda: waits.sleep("s", timedelta(minutes=90)), "Sleep", "1h30m", {"duration": "1h30m"}),
    (lambda: waits.sleep("s", timedelta(seconds=-1)), "Sleep", "0s", {"duration": "0s"}),
    (
        lambda: waits.sleep_until("s", datetime(2026, 1, 2, 3, tzinfo=UTC)),
        "Sleep",
        "2026-01-02T03:00:00.000+00:00",
        {"duration": "2026-01-02T03:00:00.000+00:00"},
    ),
    (
        lambda: waits.wait_for_event("s", "demo/go", timedelta(seconds=20), None),
        "WaitForEvent",
        "demo/go",
        {"event": "demo/go", "timeout": "20s"},
    ),
    (
        lambda: waits.wait_for_event("s", "demo/go", HOUR, "async.data.x == 1"),
        "WaitForEvent",
        "demo/go",
        {"event": "demo/go", "timeout": "1h", "if": "async.data.x == 1"},
    ),
    (
        lambda: waits.wait_for_signal("s", "sig", HOUR, "replace"),
        "WaitForSignal",
        "sig",
        {"signal": "sig", "timeout": "1h", "conflict": "replace"},
    ),
    (
        lambda: waits.invoke("s", "app-fn", None, None, None),
        "InvokeFunction",
        "s",
        {"function_id": "app-fn", "payload": {"data": {}}},
    ),
    (
        lambda: waits.invoke("s", Foreign(), {"x": datetime(2026, 1, 1, tzinfo=UTC)}, HOUR, "2"),
        "InvokeFunction",
        "s",
        {
            "function_id": "app-fn",
            "payload": {"data": {"x": "2026-01-01T00:00:00Z"}, "v": "2"},
            "timeout": "1h",
        },
    ),
    (
        lambda: waits.invoke("s", endpoint, {"x": 1}, None, None),
        "InvokeFunction",
        "s",
        {"function_id": "place-order", "payload": {"data": {"x": 1}}},
    ),
    (
        lambda: waits.invoke("s", waits.function_slug("s", "app", "fn"), None, None, None),
        "InvokeFunction",
        "s",
        {"function_id": "app-fn", "payload": {"data": {}}},
    ),
    (
        lambda: fetch("s", "https://x.test/a", "post", {"A": "b"}, ""),
        "Gateway",
        "s",
        {
            "url": "https://x.test/a",
            "method": "POST",
            "headers": {"A": "b", "Idempotency-Key": f"R-{hash_step_id('s')}"},
            "body": "",
        },
    ),
    (
        lambda: fetch("s", "https://x.test/a", "GET", None, None),
        "Gateway",
        "s",
        {"url": "https://x.test/a", "method": "GET"},
    ),
    (
        lambda: infer("s", ADAPTER, {"messages": []}),
        "AIGateway",
        "s",
        {
            "type": "step.ai.infer",
            "url": "https://ai.test/v1/chat",
            "headers": {"a": "b"},
            "auth_key": "sk",
            "format": "openai-chat",
            "body": {"messages": [], "model": "m"},
        },
    ),
]


@pytest.mark.parametrize(("make", "op", "name", "opts"), EXACT)
def test_the_opcode_is_exactly_this(
    make: Callable[[], waits.Wait], op: str, name: str, opts: dict[str, Any]
) -> None:
    run = Run("R")
    assert run.wait(make()).verdict is Verdict.SUSPEND
    assert json.loads(encode_struct(run.unreported.take_all())) == [
        {
            "op": op,
            "id": hash_step_id("s"),
            "name": name,
            "displayName": "s",
            "opts": opts,
            "userland": {"id": "s"},
        }
    ]


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: waits.sleep("s", 5), TypeError, "'s': duration must be a timedelta, not 5"),  # type: ignore[arg-type]
        (lambda: waits.sleep("s", timedelta(days=367)), ValueError, "duration .* 366 days"),
        (lambda: waits.sleep_until("s", "soon"), TypeError, "until must be a datetime"),  # type: ignore[arg-type]
        (lambda: waits.sleep_until("s", datetime(2026, 1, 1)), ValueError, "time zone"),  # noqa: DTZ001
        (lambda: waits.wait_for_event("s", "", HOUR, None), ValueError, "event must not be empty"),
        (lambda: waits.wait_for_event("s", "e", HOUR, ""), ValueError, "if_exp must not be empty"),
        (lambda: waits.wait_for_event("s", "e", 1, None), TypeError, "timeout must be a timedelta"),  # type: ignore[arg-type]
        (lambda: waits.wait_for_signal("s", "x", HOUR, "wait"), ValueError, "on_conflict"),
        (lambda: waits.invoke("s", 7, None, None, None), TypeError, "function must be a durable"),
        (lambda: waits.invoke("s", lambda: 1, None, None, None), TypeError, "function must be"),
        (lambda: waits.invoke("s", "f", {"x": object()}, None, None), ValueError, "data cannot be"),
        (lambda: waits.function_slug("s", "", "f"), ValueError, "app_id must not be empty"),
        (lambda: fetch("s", "/relative", "GET", None, None), ValueError, "url: '/relative'"),
        (lambda: fetch("s", "http://x", "GET", None, b"x"), TypeError, "body must be text"),  # type: ignore[arg-type]
        (lambda: infer("s", ADAPTER, {"x": object()}), ValueError, "body cannot be"),
    ],
)
def test_bad_arguments_name_step_and_argument(
    ask: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask()


@pytest.mark.parametrize(
    ("ahead", "allowed"),
    [
        (timedelta(days=-1), True),
        (timedelta(days=366), True),
        (timedelta(days=366, milliseconds=1), False),
        (timedelta(days=400), False),
    ],
)
def test_how_far_ahead_a_sleep_may_end(ahead: timedelta, allowed: bool) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    until = (now + ahead).astimezone(timezone(timedelta(hours=5)))
    now_ns = int(now.timestamp()) * 1_000_000_000
    if allowed:
        assert waits.sleep_until("s", until, now_ns).opts["duration"]
    else:
        with pytest.raises(ValueError, match="step 's': until may be 366 days ahead at most"):
            waits.sleep_until("s", until, now_ns)


@pytest.mark.parametrize(
    ("if_exp", "late"),
    [
        (None, False),
        ("async.data.x == 1", False),
        ("async.data.events == 1", False),
        ("event.data.x == async.data.x", True),
        ("async.data.x == event ['data'].x", True),
    ],
)
def test_a_condition_on_the_trigger_does_not_travel_in_a_first_checkpoint(
    if_exp: str | None, late: bool
) -> None:
    wait = waits.wait_for_event("s", "e", HOUR, if_exp)
    first, again = Run("R"), Run("R", {})
    assert first.wait(wait).verdict is again.wait(wait).verdict is Verdict.SUSPEND
    (sent,) = first.unreported.take_all()
    assert sent.op is (OpCode.DISCOVERY_REQUEST if late else OpCode.WAIT_FOR_EVENT)
    assert (sent.id == hash_step_id("s")) is not late
    (later,) = again.unreported.take_all()
    assert (later.op, later.id) == (OpCode.WAIT_FOR_EVENT, hash_step_id("s"))


def read(wait: waits.Wait, memo: bytes) -> Any:
    assert wait.convert is not None
    return wait.convert(decode_result(memo, CONVERSIONS.of(wait.result), "s"))


def test_an_endpoints_answer_is_what_its_handler_returned() -> None:
    wait = waits.invoke("s", endpoint, None, None, None)
    json_headers = b'"headers":{"Content-Type":"application/json"}'
    assert read(wait, b'{"status":201,' + json_headers + b',"body":"{\\"a\\":1}"}') == {"a": 1}
    assert read(wait, b'{"status":200,"body":"text"}') == "text"
    assert read(wait, b'{"status":200,"body":"/wA=","encoding":"base64"}') == b"\xff\x00"
    with pytest.raises(StepError, match="EndpointError: the endpoint answered 404: gone") as error:
        read(wait, b'{"status":404,"body":"gone"}')
    assert error.value.data == {"status": 404, "headers": {}, "body": "gone"}
    assert wait.result is EndpointResult


def test_the_result_under_an_id_is_that_of_an_endpoint_or_of_another_function() -> None:
    wait = waits.invoke("s", "place-order", None, None, None, datetime)
    response = b'{"status":%d,"headers":{"content-type":"application/json"},"body":%b}'
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    body = b'"\\"2026-01-01T12:00:00Z\\""'
    assert read(wait, response % (201, body)) == noon
    assert read(wait, b'"2026-01-01T12:00:00Z"') == noon
    with pytest.raises(StepError, match="EndpointError: the endpoint answered 404"):
        read(wait, response % (404, body))
    plain = waits.invoke("s", "fn", None, None, None)
    for other in (b'{"status":200}', b'{"status":"x","headers":{},"body":""}', b"[1]", b"null"):
        assert read(plain, other) == json.loads(other)


def test_an_adapter_shows_no_key_and_changes_no_body() -> None:
    body: dict[str, Any] = {}
    infer("s", ADAPTER, body)
    assert body == {}
    assert "sk" not in repr(ADAPTER).replace("https", "")


@pytest.mark.parametrize(
    ("method", "headers", "sent"),
    [
        ("POST", None, {"Idempotency-Key": f"R-{hash_step_id('s')}"}),
        ("DELETE", {"a": "b"}, {"a": "b", "Idempotency-Key": f"R-{hash_step_id('s')}"}),
        ("PUT", {"idempotency-KEY": "mine"}, {"idempotency-KEY": "mine"}),
        ("GET", {"a": "b"}, {"a": "b"}),
        ("HEAD", None, None),
    ],
)
def test_a_request_that_is_not_safe_carries_the_key_of_its_step(
    method: str, headers: dict[str, str] | None, sent: dict[str, str] | None
) -> None:
    run, given = Run("R"), dict(headers or {})
    run.wait(fetch("s", "https://x.test/", method, headers, None))
    (op,) = run.unreported.take_all()
    assert op.opts is not None
    assert op.opts.get("headers") == sent
    assert (headers or {}) == given


@pytest.mark.parametrize(
    ("retries", "memos", "expected"), [(2, None, 2), (0, {}, 0), (0, None, None)]
)
def test_a_request_says_how_often_it_may_be_repeated(
    retries: int, memos: dict[str, Raw] | None, expected: int | None
) -> None:
    run = Run("R", memos, retries)
    run.wait(fetch("s", "https://x.test/", "GET", None, None))
    (op,) = run.unreported.take_all()
    assert op.opts is not None
    assert op.opts.get("retries") == expected
