"""The condition that `match` makes: what it says, and that the engine understands it so."""

from __future__ import annotations

import math
from datetime import timedelta
from enum import Enum, IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._core.event_matches import condition
from stephttp._core.waits import wait_for_event
from stephttp.engine.rules.conditions import equalities, expressions

MINUTE = timedelta(minutes=1)


class Colour(str, Enum):  # noqa: UP042
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Weight(float):
    def __repr__(self) -> str:
        return f"Weight({self})"


@pytest.mark.parametrize(
    ("match", "text"),
    [
        ({"data.id": "o1"}, 'async.data.id == "o1"'),
        ({"data.id": "' || true || '"}, "async.data.id == \"' || true || '\""),
        ({"data.id": 'a" || "b'}, r'async.data.id == "a\" || \"b"'),
        ({"data.id": "a\\"}, r'async.data.id == "a\\"'),
        ({"data.id": "a\n\x00é😀"}, r'async.data.id == "a\n\u0000é😀"'),
        ({"data.a.b_2": 7, "name": "x"}, 'async.data.a.b_2 == 7 && async.name == "x"'),
        ({"data.a": True, "data.b": None}, "async.data.a == true && async.data.b == null"),
        ({"data.weight": 1.5, "data.n": -3}, "async.data.weight == 1.5 && async.data.n == -3"),
        ({"data.a-b": 1, "data.in": 2}, 'async.data["a-b"] == 1 && async.data["in"] == 2'),
        ({'data."] || true': 1}, r'async.data["\"] || true"] == 1'),
        ({"data.c": Colour.RED, "ts": Level.HIGH}, 'async.data.c == "red" && async.ts == 3'),
        ({"data.w": Weight(1.5)}, "async.data.w == 1.5"),
        ({"data.n": -(2**63)}, "async.data.n == -9223372036854775808"),
        ({"data.n": 2**63 - 1}, "async.data.n == 9223372036854775807"),
        ({"id": "i", "v": "2"}, 'async.id == "i" && async.v == "2"'),
        ({"user.id": False}, "async.user.id == false"),
        ({"data": None}, "async.data == null"),
        ({"data.1a": 1, "data._b": 2}, 'async.data["1a"] == 1 && async.data._b == 2'),
    ],
)  # fmt: skip
def test_a_match_becomes_literals(match: dict[str, Any], text: str) -> None:
    assert condition(match, "match") == text
    wait = wait_for_event("s", "e", MINUTE, None, match)
    assert (wait.opts["if"], wait.late) == (text, False)
    both = wait_for_event("s", "e", MINUTE, "async.data.n > 1 || true", match)
    assert both.opts["if"] == f"{text} && (async.data.n > 1 || true)"


def test_how_long_a_condition_may_be() -> None:
    assert len(condition({"data.a": "x" * 4078}, "match")) == 4096


@pytest.mark.parametrize(
    ("match", "error", "text"),
    [
        ([("data.id", 1)], TypeError, "match must be a mapping such as"),
        ({}, ValueError, "match must not be empty"),
        ({"id_of_order": 1}, ValueError, "'id_of_order' is not a path into an event; it begins"),
        ({"data..id": 1}, ValueError, "is not a path"),
        ({"": 1}, ValueError, "is not a path"),
        ({7: 1}, TypeError, "match: a path must be text such as 'data.id', not 7"),
        ({"data.id": math.nan}, ValueError, r"match\['data.id'\]: nan has no JSON form"),
        ({"data.id": -math.inf}, ValueError, r"match\['data.id'\]: -inf has no JSON form"),
        ({"data.id": 2**63}, ValueError, r"match\['data.id'\]: 9\d+ does not fit into 64 bits"),
        ({"data.id": -(2**63) - 1}, ValueError, "does not fit into 64 bits"),
        ({"data.": 1}, ValueError, "match: 'data.' is not a path"),
        ({"data.id": b"x"}, TypeError, r"match\['data.id'\]: an event cannot have b'x'; give str"),
        ({"data.id": ["x"]}, TypeError, "an event cannot have"),
        ({"data.id": "\ud800"}, ValueError, r"match\['data.id'\]: '.ud800' must be valid Unicode"),
        ({"data.\ud800": 1}, ValueError, r"match: 'data\..ud800': '.ud800' must be valid Unicode"),
        (
            {"data.a": "x" * 4079},
            ValueError,
            "match makes a condition of 4097 characters; 4096 are",
        ),
    ],
)
def test_what_cannot_match_is_said_at_the_step(
    match: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=f"^step 's': .*{text}"):
        wait_for_event("s", "e", MINUTE, None, match)


def test_a_lookback_is_a_duration_that_is_not_negative() -> None:
    wait = wait_for_event("s", "e", MINUTE, None, None, timedelta(hours=1))
    assert wait.opts["lookback"] == "1h"
    with pytest.raises(ValueError, match="step 's': lookback must not be negative"):
        wait_for_event("s", "e", MINUTE, None, None, -MINUTE)
    with pytest.raises(TypeError, match="step 's': lookback must be a timedelta"):
        wait_for_event("s", "e", MINUTE, None, None, 5)  # type: ignore[arg-type]


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(["' || true || '", '" || true || "', "\\", "\\u0022", "${x}", "\u2028"]),
)
_KEYS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1, max_size=8
)


@given(_KEYS, _SCALARS, _SCALARS)
def test_the_engine_finds_the_event_with_the_value_and_no_other(
    key: str, value: Any, other: Any
) -> None:
    text = condition({f"data.{key}": value}, "match")
    wanted = expressions.check(text, "if", expressions.WAIT_NAMES).wanted
    assert wanted is not None, "looked up by its value"

    def holds(event: dict[str, Any]) -> bool:
        found = expressions.matches(text, {"event": {}, "async": event}, 0)
        looked_up = equalities.values_at(wanted.keys, event) == wanted.values
        assert looked_up or not found, "what matches is found by its value"
        return found

    assert holds({"data": {key: value}})
    assert holds({"data": {}}) is (value is None)
    same = type(value) is type(other) or {type(value), type(other)} == {int, float}
    if value != other or not same:
        assert not holds({"data": {key: other}})
