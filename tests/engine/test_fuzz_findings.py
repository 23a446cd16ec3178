"""What the fuzzer found, each with the value that showed it."""

from __future__ import annotations

import pytest

from stephttp._wire import cut_entries, stored_state
from stephttp.engine.model import tokens
from stephttp.engine.model.inputs import CallFailure
from stephttp.engine.outbound.egress import parse_rule
from stephttp.engine.rules.answers import HTTPResponse, read_answer
from stephttp.engine.rules.due_times import retry_after_ms
from stephttp.errors import ConfigurationError


@pytest.mark.parametrize(
    "body", [b'{"message":"\xff"}', b'{"error":"\xff"}', b'{"error":{"a":"\xed\xa0\x80"}}']
)
def test_an_error_that_is_not_utf_8_is_a_failed_call(body: bytes) -> None:
    """It ended the task that drives runs."""
    failure = read_answer(HTTPResponse(500, [("x-inngest-sdk", "a")], body), 0)
    assert isinstance(failure, CallFailure)
    assert failure.message.startswith("the endpoint answered 500")


@pytest.mark.parametrize("year", ["99999999999999999999", "-1"])
def test_a_date_that_no_calendar_has_is_no_delay(year: str) -> None:
    """An application could end the same task by its `Retry-After`."""
    assert retry_after_ms(f"Wed, 21 Oct {year} 07:28:00 GMT", 0) is None


def test_a_remembered_error_that_is_not_utf_8_is_an_error() -> None:
    memos = stored_state.decode_memos(b'{"a":{"error":"\xff"},"b":{"error":{"name":"\xed"}}}')
    for entry in memos.values():
        assert stored_state.read_memo(entry).kind is stored_state.MemoKind.ERROR
    assert cut_entries.read_entry(b'{"step":"\xff"}') is None


def test_half_of_a_surrogate_pair_is_not_a_token() -> None:
    assert tokens.read_run_token("\ud800", b"s" * 32, 0, None) is None
    assert tokens.read_realtime_token("a.\udfff.c", b"s" * 32, 0) is None


@pytest.mark.parametrize("text", ["a" * 60 + "!", "a." * 2000, ":" * 5000, "*." + "a" * 300])
def test_a_rule_that_is_none_is_refused_at_once(text: str) -> None:
    """The first one took years."""
    with pytest.raises(ConfigurationError, match="allow-host"):
        parse_rule(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a_b.example.com.", "a_b.example.com"),
        ("*.a-1.test", "*.a-1.test"),
        ("localhost", "localhost"),
    ],
)
def test_names_are_rules_as_before(text: str, name: str) -> None:
    assert parse_rule(text).name == name
