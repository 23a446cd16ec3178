"""The functions of conditions, at their edges: value and type of what comes out, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stephttp.engine.rules.conditions.functions import TYPES, call
from stephttp.engine.rules.conditions.operators import NO_VALUE, TypeName

NO = NO_VALUE
NOW_MS = 1_800_000_000_500
NOW = datetime(2027, 1, 15, 8, 0, 0, 500_000, tzinfo=UTC)
HOUR = timedelta(hours=1)
IN_KYIV = datetime.fromisoformat("2026-11-28T12:00:00.000250+02:00")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


ROWS: list[tuple[str, tuple[Any, ...], Any]] = [
    ("size", (NO,), 0),
    ("size", ("ab",), 2),
    ("contains", (NO, "a"), False),
    ("contains", ("a", NO), False),
    ("contains", ("ab", "b"), True),
    ("contains", ("ab", "c"), False),
    ("contains", (["a"], "a"), NO),
    ("startsWith", ("ab", "a"), True),
    ("startsWith", ("ab", "b"), False),
    ("endsWith", ("ab", "b"), True),
    ("endsWith", ("ab", "a"), False),
    ("lowercase", ("ÄB",), "äb"),
    ("lowercase", (5.0,), ""),
    ("lowercase", (NO,), False),
    ("uppercase", ("äb",), "ÄB"),
    ("uppercase", (None,), ""),
    ("b64decode", ("aGk=",), "hi"),
    ("b64decode", ("aGk",), ""),
    ("b64decode", ("a-k=",), ""),
    ("b64decode", ("ä",), ""),
    ("b64decode", ("/w==",), "\ufffd"),
    ("b64decode", (True,), ""),
    ("json_parse", ('{"a": 1}',), {"a": 1}),
    ("json_parse", ("[1]",), {}),
    ("json_parse", ("{",), {}),
    ("json_parse", ("[" * 200_000,), {}),
    ("json_parse", (1.0,), {}),
    ("now", (), NOW),
    ("now_plus", ("1h",), NOW + HOUR),
    ("now_minus", ("1h",), NOW - HOUR),
    ("now_plus", ("soon",), NO),
    ("now_plus", ("",), NO),
    ("now_plus", (5.0,), NO),
    ("now_plus", ("3000000d",), NO),
    ("now_minus", ("3000000d",), NO),
    ("now_plus", (NO,), False),
    ("date", (946_684_799,), NO),
    ("date", (946_684_800,), utc("2000-01-01")),
    ("date", (9_999_999_998.5,), utc("2286-11-20T17:46:38.500")),
    ("date", (9_999_999_999,), utc("1970-04-26T17:46:39.999")),
    ("date", (9_999_999_999_000,), utc("2286-11-20T17:46:39")),
    ("date", (9_999_999_999_999,), utc("1970-01-01T02:46:40")),
    ("date", (1_800_000_000_500_000_000.0,), NOW),
    ("date", (1e300,), NO),
    ("date", (float("inf"),), NO),
    ("date", (True,), NO),
    ("date", (None,), NO),
    ("date", (NO,), False),
    ("date", ("2026-11-28",), utc("2026-11-28")),
    ("date", ("2026-11-28T12:00:00+02:00",), utc("2026-11-28T10:00:00")),
    ("date", ("Sat, 28 Nov 2026 10:00:00 GMT",), utc("2026-11-28T10:00:00")),
    ("date", ("Sat, 28 Nov 2026 10:00:00",), utc("2026-11-28T10:00:00")),
    ("date", ("Sat, 28 Nov 2026 12:00:00 +0200",), utc("2026-11-28T10:00:00")),
    ("date", ("soon",), NO),
    ("date", ("",), NO),
    ("dyn", (5.0,), 5.0),
    ("type", (True,), TypeName("bool")),
    ("type", (1,), TypeName("int")),
    ("type", (1.0,), TypeName("double")),
    ("type", ("a",), TypeName("string")),
    ("type", (b"a",), TypeName("bytes")),
    ("type", ([],), TypeName("list")),
    ("type", ({},), TypeName("map")),
    ("type", (None,), TypeName("null_type")),
    ("type", (TypeName("int"),), TypeName("type")),
    ("type", (NOW,), TypeName("google.protobuf.Timestamp")),
    ("type", (HOUR,), TypeName("google.protobuf.Duration")),
    ("type", (object(),), TypeName("dyn")),
    ("matches", ("abc", "^a.c$"), True),
    ("matches", ("abc", "("), NO),
    ("string", (datetime.fromisoformat("2026-11-28T12:00:30+02:00:30"),), "2026-11-28T10:00:00Z"),
    ("int", ("5",), 5),
    ("int", ("x",), NO),
    ("int", (NOW,), 1_800_000_000),
    ("string", (IN_KYIV,), "2026-11-28T10:00:00.000250Z"),
    ("string", (timedelta(microseconds=1_500_250),), "1.500250s"),
    ("string", (5.5,), "5.5"),
    ("bytes", ("ä",), b"\xc3\xa4"),
    ("bytes", (b"a",), b"a"),
    ("double", ("1.5",), 1.5),
    ("bool", ("true",), True),
    ("getHours", (IN_KYIV,), 10),
    ("getHours", (IN_KYIV, "Europe/Kyiv"), 12),
    ("getHours", (IN_KYIV, "Nowhere"), NO),
    ("getHours", (timedelta(minutes=90),), 1),
    ("getMilliseconds", (timedelta(milliseconds=1500),), 500),
    ("nothing", ("a",), NO),
    ("nothing", (NO,), False),
    ("contains", ("\ud800", 5.0), NO),
]
METHODS = {"contains", "startsWith", "endsWith", "matches", "getHours", "getMilliseconds"}


@pytest.mark.parametrize(("name", "args", "expected"), ROWS)
def test_rows(name: str, args: tuple[Any, ...], expected: Any) -> None:
    found = call(name, list(args), NOW_MS, method=name in METHODS)
    assert type(found) is type(expected)
    assert found is expected or found == expected


def test_a_function_is_no_method_and_a_method_no_function() -> None:
    assert call("getHours", [IN_KYIV], 0, method=False) is NO
    assert call("int", ["5"], 0, method=True) is NO
    # The simplest are computed here, whichever way they are written.
    assert call("contains", ["ab", "b"], 0, method=False) is True
    assert call("matches", ["ab", "b"], 0, method=False) is True


def test_a_date_keeps_its_time_zone() -> None:
    found = call("date", ["2026-11-28T12:00:00+02:00"], 0, method=False)
    assert found.utcoffset() == 2 * HOUR
    assert call("date", ["2026-11-28"], 0, method=False).utcoffset() == timedelta(0)
    assert call("now", [], 0, method=False).utcoffset() == timedelta(0)
    assert call("date", [946_684_800], 0, method=False).utcoffset() == timedelta(0)


def test_which_names_are_types() -> None:
    assert {"int", "double", "string", "list", "map", "null_type", "type"} < TYPES
    assert not {"timestamp", "duration"} & TYPES
