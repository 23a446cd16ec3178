"""When sleeps, waits and repetitions are due, and what is refused (`rules.due_times`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.due_times import (
    lookback_ms,
    pause_wishes,
    retry_after_ms,
    retry_wishes,
    sleep_until_ms,
    timeout_ms,
)

NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z
DAY = 86_400_000
MOST = 366 * DAY
NOT_TEXT = "expected text such as '1h30m', got "
NO_DURATION = "'{}' is not a duration such as '30s', '1h30m' or '2w'"
TOO_LONG = "'{}' is more than 366 days ahead"

Found = int | str
"""Milliseconds, or what is said of a text that is refused."""

TIMES: list[tuple[Any, Found]] = [
    ("5s", 5000),
    (" 5s\n", 5000),
    ("1ms", 1),
    ("999us", 0),
    ("0s", 0),
    ("-5s", 0),
    ("366d", MOST),
    ("366d1ms", TOO_LONG.format("366d1ms")),
    ("2027-01-15T08:00:07Z", 7000),
    ("2027-01-15T08:00:07", 7000),
    ("2027-01-15T08:00:07.0009", 7000),
    ("2027-01-15T10:00:07.5+02:00", 7500),
    ("2027-01-16", 16 * 3_600_000),
    ("2027-01-15", 0),
    ("2028-01-16T08:00:00Z", MOST),
    ("2028-01-16T08:00:01Z", TOO_LONG.format("2028-01-16T08:00:01Z")),
    ("0001-01-01T00:00:00+23:00", 0),
    ("20270116", NO_DURATION.format("20270116")),
    ("soon", NO_DURATION.format("soon")),
    ("-soon", NO_DURATION.format("soon")),
    ("tomorrow at noon", NO_DURATION.format("tomorrow at noon")),
    ("9" * 30 + "w", f"'{'9' * 30}w' is longer than any duration can be"),
    (5, NOT_TEXT + "int"),
    ([], NOT_TEXT + "list"),
]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize(("text", "found"), [*TIMES, ("", 0), ("  ", 0)])
def test_when_a_sleep_ends(text: Any, found: Found) -> None:
    op = Op(OpCode.SLEEP, "a", "1h", opts={"duration": text})
    if isinstance(found, int):
        assert sleep_until_ms(op, "f", NOW) == NOW + found
    else:
        assert refused(lambda: sleep_until_ms(op, "f", NOW)) == f"f.opts.duration: {found}"


@pytest.mark.parametrize(
    ("name", "opts", "found"),
    [("5s", None, 5000), ("5s", {"duration": None}, 5000), (None, {}, 0), (None, None, 0)],
)
def test_an_sdk_may_name_the_sleep_by_its_duration(name: Any, opts: Any, found: int) -> None:
    assert sleep_until_ms(Op(OpCode.SLEEP, "a", name, opts=opts), "f", NOW) == NOW + found
    bad = Op(OpCode.SLEEP, "a", "soon", opts=opts)
    assert refused(lambda: sleep_until_ms(bad, "f", NOW)) == f"f.name: {NO_DURATION.format('soon')}"


@pytest.mark.parametrize(("text", "found"), [*TIMES, ("", 77), ("  ", 77), (None, 77)])
def test_when_a_wait_is_over(text: Any, found: Found) -> None:
    op = Op(OpCode.WAIT_FOR_EVENT, "a", opts={"timeout": text})
    if isinstance(found, int):
        assert timeout_ms(op, "f", NOW, 77) == NOW + found
    else:
        assert refused(lambda: timeout_ms(op, "f", NOW, 77)) == f"f.opts.timeout: {found}"
    assert timeout_ms(Op(OpCode.WAIT_FOR_EVENT, "a"), "f", NOW, 77) == NOW + 77


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, 0),
        ("1999us", 1),
        ("5s", 5000),
        (" 5s ", 5000),
        ("0s", 0),
        ("-0s", 0),
        ("366d", MOST),
        ("366d1ms", "'366d1ms' is not from 0 to 366 days"),
        ("-1ms", "'-1ms' is not from 0 to 366 days"),
        ("", NO_DURATION.format("")),
        ("2027-01-15", NO_DURATION.format("2027-01-15")),
        ("9" * 30 + "w", f"'{'9' * 30}w' is longer than any duration can be"),
        (5, NOT_TEXT + "int"),
    ],
)
def test_how_far_a_wait_looks_back(text: Any, found: Found) -> None:
    op = Op(OpCode.WAIT_FOR_EVENT, "a", opts={"lookback": text})
    if isinstance(found, int):
        assert lookback_ms(op, "f") == found
    else:
        assert refused(lambda: lookback_ms(op, "f")) == f"f.opts.lookback: {found}"
    assert lookback_ms(Op(OpCode.WAIT_FOR_EVENT, "a"), "f") == 0


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("7", 7000),
        (" 7 ", 7000),
        ("0", 1000),
        ("1", 1000),
        ("86400", DAY),
        ("86401", DAY),
        ("9999999", DAY),
        ("10000000", None),
        ("-7", None),
        ("7.5", None),
        ("soon", None),
        ("\u0667", None),
        ("", None),
        ("whenever you like", None),
        ("Fri, 15 Jan 2027 08:00:07 GMT", 7000),
        ("Fri, 15 Jan 2027 08:00:07", 7000),
        ("Fri, 15 Jan 2027 10:00:07 +0200", 7000),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 1000),
        ("Fri, 22 Jan 2027 08:00:00 GMT", DAY),
        ("Fri, 99 Jan 2027 08:00:07 GMT", None),
        ("Fri, 15 Jan 2027 99:00:07 GMT", None),
        ("2027-01-15T08:00:07Z", 7000),
        ("2027-01-15T08:00:07.250Z", 7250),
        ("0001-01-01T00:00:00+23:00", 1000),
    ],
)
def test_retry_after(value: str, delay: int | None) -> None:
    assert retry_after_ms(value, NOW) == delay


@pytest.mark.parametrize(
    ("opts", "wishes"),
    [
        (None, (4, None)),
        ({"retries": 0}, (0, None)),
        ({"retries": 20}, (20, None)),
        ({"retries": 21}, (20, None)),
        ({"retries": 99, "retry_after": "7"}, (20, 7000)),
        ({"retry_after": "7"}, (4, 7000)),
        ({"retry_after": None}, (4, None)),
        ({"retry_after": "Fri, 15 Jan 2027 08:00:07 GMT"}, (4, 7000)),
        ({"retries": -1}, "retries: expected a number from 0, got -1"),
        ({"retries": True}, "retries: expected a number from 0, got True"),
        ({"retries": "2"}, "retries: expected a number from 0, got '2'"),
        ({"retries": None}, "retries: expected a number from 0, got None"),
        ({"retry_after": "soon"}, "retry_after: expected seconds or a date, got 'soon'"),
        ({"retry_after": 7}, "retry_after: expected seconds or a date, got 7"),
    ],
)
def test_how_a_step_wants_to_be_tried_again(opts: Any, wishes: tuple[Any, Any] | str) -> None:
    op = Op(OpCode.STEP_ERROR, "a", opts=opts)
    if isinstance(wishes, tuple):
        assert retry_wishes(op, "f", 4, NOW) == wishes
    else:
        assert refused(lambda: retry_wishes(op, "f", 4, NOW)) == f"f.opts.{wishes}"
    assert retry_wishes(Op(OpCode.STEP_ERROR, "a"), "f", 99, NOW) == (20, None)


@pytest.mark.parametrize(
    ("opts", "wishes"),
    [
        (None, (None, None)),
        ({"delay": "90s"}, (90.0, None)),
        ({"max_delay": "90s"}, (None, 90.0)),
        ({"delay": "1500ms", "max_delay": "24h"}, (1.5, 86400.0)),
        ({"delay": "0s", "max_delay": "1s"}, (1.0, 1.0)),
        ({"delay": 5}, f"delay: {NOT_TEXT}int"),
        ({"delay": "soon"}, f"delay: {NO_DURATION.format('soon')}"),
        ({"max_delay": "24h1us"}, "max_delay: '24h1us' is more than 24 hours"),
    ],
)
def test_how_long_a_request_rests(opts: Any, wishes: tuple[Any, Any] | str) -> None:
    op = Op(OpCode.GATEWAY, "a", opts=opts)
    if isinstance(wishes, tuple):
        assert pause_wishes(op, "f") == wishes
    else:
        assert refused(lambda: pause_wishes(op, "f")) == f"f.opts.{wishes}"
