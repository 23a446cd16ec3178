"""What a wait says beside its opcode: whole messages, what the handler gets, where it can be."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from msgspec import Raw

import stephttp
from stephttp import Event, StepError
from stephttp._core import waits
from stephttp._core.conversion import CONVERSIONS
from stephttp._core.encoding import decode_result
from stephttp._core.tool_types import EndpointResult, FetchResponse, ReceivedEvent, Signal
from stephttp._wire.json import encode_struct
from stephttp.errors import StepResultError

HOUR = timedelta(hours=1)
LONG = timedelta(days=366)


@stephttp.setup("https://shop.example").endpoint(id="place-order")
async def endpoint(order: str) -> dict[str, date]:
    return {order: date(2030, 5, 6)}


class Foreign:
    """Shaped like `inngest.Function`."""

    id = "app-fn"


class Nameless:
    id = ""


class Numbered:
    id = 7


def event(**given: Any) -> waits.Wait:
    defaults: dict[str, Any] = {"step_id": "s", "event": "e", "timeout": HOUR}
    return waits.wait_for_event(**(defaults | given))


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda: waits.sleep("s", 5), TypeError, "duration must be a timedelta, not 5"),  # type: ignore[arg-type]
        (lambda: waits.sleep("s", 2 * LONG), ValueError, "duration may be 366 days at most"),
        (lambda: waits.sleep_until("s", 5), TypeError, "until must be a datetime, not 5"),  # type: ignore[arg-type]
        (lambda: event(if_exp=None, event=5), TypeError, "event must be text, not 5"),
        (lambda: event(if_exp=None, event=""), ValueError, "event must not be empty"),
        (lambda: event(if_exp=None, event="\ud800"), ValueError, "event must be valid Unicode"),
        (lambda: event(if_exp=None, timeout=5), TypeError, "timeout must be a timedelta, not 5"),
        (
            lambda: event(if_exp=None, timeout=2 * LONG),
            ValueError,
            "timeout may be 366 days at most",
        ),
        (lambda: event(if_exp=5), TypeError, "if_exp must be text, not 5"),
        (
            lambda: event(if_exp=None, lookback=5),
            TypeError,
            "lookback must be a timedelta, not 5",
        ),
        (
            lambda: event(if_exp=None, lookback=-HOUR),
            ValueError,
            "lookback must not be negative",
        ),
        (
            lambda: event(if_exp=None, match={}),
            ValueError,
            "match must not be empty; leave it out to accept any event of the name",
        ),
        (
            lambda: waits.wait_for_signal("s", 5, HOUR, "fail"),  # type: ignore[arg-type]
            TypeError,
            "signal must be text, not 5",
        ),
        (
            lambda: waits.wait_for_signal("s", "x", 5, "fail"),  # type: ignore[arg-type]
            TypeError,
            "timeout must be a timedelta, not 5",
        ),
        (
            lambda: waits.wait_for_signal("s", "x", HOUR, "wait"),
            ValueError,
            "on_conflict must be 'fail' or 'replace', not 'wait'",
        ),
        (
            lambda: waits.invoke("s", "f", None, 5, None),  # type: ignore[arg-type]
            TypeError,
            "timeout must be a timedelta, not 5",
        ),
        (
            lambda: waits.invoke("s", "", None, None, None),
            ValueError,
            "function_id must not be empty",
        ),
        (
            lambda: waits.invoke("s", 7, None, None, None),
            TypeError,
            "function must be a durable endpoint with an id, or an inngest.Function, not 7",
        ),
        (lambda: waits.function_slug("s", None, ""), ValueError, "function_id must not be empty"),
        (lambda: waits.function_slug("s", "a", 5), TypeError, "function_id must be text, not 5"),  # type: ignore[arg-type]
        (lambda: waits.function_slug("s", 5, "f"), TypeError, "app_id must be text, not 5"),  # type: ignore[arg-type]
    ],
)
def test_an_error_names_step_and_argument_and_says_what_is_right(
    ask: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        ask()
    assert str(raised.value) == f"step 's': {message}"


@pytest.mark.parametrize("function", [Nameless(), Numbered(), len])
def test_what_is_no_function_of_a_server(function: Any) -> None:
    with pytest.raises(TypeError, match="step 's': function must be a durable endpoint with an id"):
        waits.invoke("s", function, None, None, None)


def test_data_that_is_no_json_is_named() -> None:
    with pytest.raises(ValueError, match=r"^step 's': data cannot be sent as JSON"):
        waits.invoke("s", "f", {"x": object()}, None, None)


def test_the_longest_times_and_an_empty_text_that_is_allowed() -> None:
    assert waits.sleep("s", LONG).opts == {"duration": "52w2d"}
    assert waits.check_text("s", "body", "", empty=True) == ""
    assert event(if_exp=None, lookback=timedelta(0)).opts["lookback"] == "0s"


def test_a_time_is_sent_to_the_millisecond_in_its_zone() -> None:
    until = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=timezone(timedelta(hours=5)))
    assert waits.sleep_until("s", until).name == "2026-01-02T03:04:05.678+05:00"


@pytest.mark.parametrize(
    ("given", "opts"),
    [
        ({"if_exp": None}, {}),
        ({"if_exp": "a == b"}, {"if": "a == b"}),
        ({"if_exp": None, "match": {"data.id": 7}}, {"if": "async.data.id == 7"}),
        (
            {"if_exp": "a || b", "match": {"data.id": 7}},
            {"if": "async.data.id == 7 && (a || b)"},
        ),
        ({"if_exp": None, "lookback": HOUR}, {"lookback": "1h"}),
    ],
)
def test_what_an_event_has_to_be_like(given: dict[str, Any], opts: dict[str, str]) -> None:
    wait = event(**given)
    assert wait.opts == {"event": "e", "timeout": "1h", **opts}
    assert (wait.name, wait.late) == ("e", False)


def given_back(wait: waits.Wait, memo: bytes) -> Any:
    """Return what the handler gets."""
    decoded = decode_result(memo, CONVERSIONS.of(wait.result), "s")
    return decoded if wait.convert is None else wait.convert(decoded)


def test_what_a_wait_gives_the_handler() -> None:
    packed = b'{"name":"e","data":{"a":1},"id":"i","ts":5}'
    assert given_back(event(if_exp=None), packed) == Event(name="e", data={"a": 1}, id="i", ts=5)
    bare = given_back(event(if_exp=None), b'{"name":"e","data":null}')
    assert bare == Event(name="e", data={}, id="", ts=0)
    assert given_back(event(if_exp=None), b"null") is None
    signal = waits.wait_for_signal("s", "x", HOUR, "fail")
    assert given_back(signal, b'{"signal":"x","data":[1]}') == Signal(signal="x", data=[1])
    assert given_back(signal, b"null") is None
    assert (signal.convert, signal.late, signal.only_ours) == (None, False, None)
    assert waits.sleep("s", HOUR).result is Any


JSON_HEADERS = {"content-type": "application/json; charset=utf-8"}


@pytest.mark.parametrize(
    ("function", "output_type", "wanted"),
    [
        (endpoint, Any, {"a": date(2030, 5, 6)}),
        (endpoint, dict[str, str], {"a": "2030-05-06"}),
        ("place-order", Any, {"a": "2030-05-06"}),
        ("place-order", dict[str, date], {"a": date(2030, 5, 6)}),
    ],
)
def test_an_endpoints_answer_has_the_type_that_was_asked_for(
    function: Any, output_type: Any, wanted: Any
) -> None:
    wait = waits.invoke("s", function, None, None, None, output_type)
    memo = encode_struct(EndpointResult(200, JSON_HEADERS, '{"a":"2030-05-06"}'))
    assert given_back(wait, memo) == wanted


def test_an_answer_that_does_not_fit_names_its_step() -> None:
    memo = b'{"status":200,"headers":{"content-type":"application/json"},"body":"[]"}'
    for function in (endpoint, "place-order"):
        wait = waits.invoke("s", function, None, None, None, dict[str, int])
        with pytest.raises(StepResultError, match="the result of step 's' does not fit"):
            given_back(wait, memo)
    by_id = waits.invoke("s", "place-order", None, None, None, dict[str, int])
    with pytest.raises(StepResultError, match="the result of step 's' does not fit"):
        given_back(by_id, b'"no answer of an endpoint"')


@pytest.mark.parametrize("status", [399, 400, 500])
def test_from_400_on_an_answer_is_a_failure(status: int) -> None:
    body = "x" * 499 + "yz"
    wait = waits.invoke("s", endpoint, None, None, None)
    memo = b'{"status":%d,"headers":{"A":"b"},"body":"%s"}' % (status, body.encode())
    if status < 400:
        assert given_back(wait, memo) == body
        return
    with pytest.raises(StepError) as raised:
        given_back(wait, memo)
    error = raised.value
    assert (error.name, error.message) == (
        "EndpointError", f"the endpoint answered {status}: {body[:500]}"
    )  # fmt: skip
    assert error.data == {"status": status, "headers": {"A": "b"}, "body": body}


def test_the_answer_of_a_function_is_of_the_type_that_was_asked_for() -> None:
    wait = waits.invoke("s", Foreign(), None, None, None, date)
    assert (wait.result, wait.convert) == (date, None)
    assert given_back(wait, b'"2030-05-06"') == date(2030, 5, 6)


@pytest.mark.parametrize(
    ("memo", "is_endpoint"),
    [
        (b'{"status":200,"headers":{},"body":"[1]"}', True),
        (b'{"status":200,"headers":{},"body":"[1]","encoding":""}', True),
        (b'{"status":200,"body":"[1]"}', False),
        (b'{"status":200,"headers":{},"body":"[1]","more":1}', False),
        (b'{"status":"200","headers":{},"body":"[1]"}', False),
    ],
)
def test_only_what_has_all_parts_of_a_response_is_one(memo: bytes, is_endpoint: bool) -> None:
    wait = waits.invoke("s", "f", None, None, None)
    assert wait.result is Raw
    found = given_back(wait, memo)
    assert (found == "[1]") is is_endpoint
    assert is_endpoint or found == decode_result(memo, CONVERSIONS.of(Any), "s")


@pytest.mark.parametrize(
    ("function", "known", "refused"),
    [
        (endpoint, False, True),
        (Foreign(), False, False),
        ("app-fn", False, False),
        ("app-fn", True, True),
        ("POST /orders", False, True),
        ("POST/orders", False, False),
    ],
)
def test_where_an_endpoint_cannot_be_invoked(function: Any, known: bool, refused: bool) -> None:
    wait = waits.invoke("s", function, None, None, None)
    asked: list[str] = []

    def is_endpoint(text: str) -> bool:
        asked.append(text)
        return known

    assert wait.only_ours is not None
    why = wait.only_ours(is_endpoint)
    assert why.startswith("an Inngest server cannot invoke durable endpoints" if refused else "")
    assert bool(why) is refused
    assert asked in ([], [function])


def test_the_id_of_an_endpoint_is_a_text() -> None:
    assert waits.endpoint_id(endpoint) == "place-order"
    for value in ("", 7, None):
        assert waits.endpoint_id(type("Other", (), {waits.ENDPOINT_ID: value})) is None
    assert waits.endpoint_id(len) is None


def test_an_event_on_the_wire_may_have_no_data() -> None:
    assert ReceivedEvent("e").event() == Event(name="e")
    received = ReceivedEvent("e", {"a": 1}, "i", 5)
    assert received.event() == Event(name="e", data={"a": 1}, id="i", ts=5)


def test_a_fetched_body_is_read_as_json_of_a_type() -> None:
    response = FetchResponse(body='{"a":"2030-05-06"}')
    assert response.json() == {"a": "2030-05-06"}
    assert response.json(dict[str, date]) == {"a": date(2030, 5, 6)}
