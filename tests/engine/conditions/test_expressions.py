"""Conditions in CEL: what is refused at once, and what simply does not match."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.conditions.expressions import (
    CANCEL_NAMES,
    MAX_LENGTH,
    WAIT_NAMES,
    check,
    matches,
    read_event,
)

EVENT = {"data": {"id": "o1", "n": 2, "none": None, "list": [1, 2, 3], "big": 2**53 + 1}}
VALUES: dict[str, Any] = {"event": {"data": {"id": "o1"}, "name": "x"}, "async": EVENT}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("event.", "Syntax error"),
        ("", "Syntax error"),
        ("async.data.id == 'a' &&", "Syntax error"),
        ("1 + 'a' == 2", "no matching overload"),
        ("100 > 99.5 && 1 + 'a' == 2", "no matching overload for '_+_'"),
        ("100 > 99.5 && foo == 2", "undeclared reference to 'foo'"),
        ("foo.bar == 1", "undeclared reference to 'foo.bar'"),
        ("now() == 1", "no matching overload"),
        ("later() == 1", "undeclared reference to 'later'"),
        ("'text'", "must be true or false, not string"),
        ("1 + 1", "must be true or false, not int"),
        ("(" * 1000 + "true" + ")" * 1000, "recursion limit"),
        ("async" + ".a" * 2000, "recursion depth"),
        ("x" * (MAX_LENGTH + 1), "longer than 4096 characters"),
    ],
)
def test_what_could_never_hold_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=r"^f: ") as caught:
        check(text, "f", WAIT_NAMES)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_cancellation_knows_no_incoming_event() -> None:
    check("event.data.id == 'a'", "if", CANCEL_NAMES)
    with pytest.raises(Refused, match="undeclared reference to 'async"):
        check("async.data.id == 'a'", "if", CANCEL_NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("async.data.id == event.data.id", True),
        ("async.data.id != event.data.id", False),
        ("async.data.n > 1 && async.data.n < 2.5", True),
        ("async.data.n == '2'", False),
        ("async.data.none == null", True),
        ("async.data.list.exists(x, x == 3)", True),
        ("has(async.data.missing) && async.data.missing == 1", False),
        ("async.data.big == 9007199254740993", True),
        ("async.data.id.matches('^o[0-9]$')", True),
        ("event.name in ['x', 'y']", True),
        ("async.data['id'] == 'o1'", True),
    ],
)
def test_values(text: str, expected: bool) -> None:
    check(text, "f", WAIT_NAMES)
    assert matches(text, VALUES) is expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("async.data.id", "but a str"),
        ("async.data.list > 'secret'", ""),
        ("1 < async.data.id", ""),
        ("async.many.all(x, async.many.all(y, async.many.all(z, x + y + z >= 0)))", "too long"),
        ("async.many.map(x, async.long + async.long).size() > 0", "too long"),
        ("async.many.exists(x, async.long.contains('b'))", "too long"),
    ],
)
def test_no_truth_value_is_no_match_and_is_logged_without_texts(
    text: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    check(text, "f", WAIT_NAMES)
    incoming = {**EVENT, "many": list(range(3000)), "long": "a" * 100_000}
    with caplog.at_level(logging.INFO, "stephttp.engine.rules.conditions.expressions"):
        assert matches(text, {**VALUES, "async": incoming}) is False
    (record,) = caplog.records
    assert text.split("'", maxsplit=1)[0] in record.getMessage()
    assert reason in record.getMessage()
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize("huge", [10**400, -(10**400), 2**64, -(2**63) - 1])
def test_a_number_that_is_too_large_spoils_nothing_else(huge: int) -> None:
    event = read_event(json.dumps({"data": {"id": "o1", "l": [{"huge": huge}]}}).encode())
    values = {**VALUES, "async": event}
    assert matches("async.data.id == 'o1'", values)
    comparison = f"async.data.l[0].huge {'>' if huge > 0 else '<'} 1"
    assert matches(comparison, values)


def test_a_value_that_the_library_cannot_take_is_no_match() -> None:
    assert matches("async.data.id == 'o1'", {**VALUES, "async": {"data": {"id": b"o1"}}}) is False
    assert matches("async.x.matches('o1')", {**VALUES, "async": {"x": "\ud800"}}) is False
