"""The values by which waits are looked up: which conditions have some; none is overlooked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp.engine.rules.conditions.equalities import Wanted, find, joined, values_at
from stephttp.engine.rules.conditions.expressions import WAIT_NAMES, check, matches
from stephttp.engine.rules.conditions.syntax import parse

ID = '[["data","id"]]'


@pytest.mark.parametrize(
    ("text", "keys", "values"),
    [
        ("async.data.id == 'o1'", ID, '["o1"]'),
        ("'o1' == async.data.id", ID, '["o1"]'),
        ('async.data["id"] == "o1"', ID, '["o1"]'),
        ("async['data'].id == 'o1'", ID, '["o1"]'),
        ("(async.data.id == 'o1')", ID, '["o1"]'),
        ("async.data.id == 'o1' && async.data.n > 3", ID, '["o1"]'),
        ("async.data.n > 3 && async.data.id == 'o1'", ID, '["o1"]'),
        ("has(async.data.id) && (async.data.id == 'o1' && async.data.n > 3)", ID, '["o1"]'),
        ("async.data.id == 'o1' && async.data.id == 'o2'", ID, '["o1"]'),
        ("async.b == 1 && async.a == true", '[["a"],["b"]]', "[true,1]"),
        ("async.name == 'x' && async.data.id == 2.0", '[["data","id"],["name"]]', '[2,"x"]'),
        ("async.data.id == null", ID, "[null]"),
        ("async.data.id == 1.5", ID, "[1.5]"),
        ("async.data.id == 3u", ID, "[3]"),
        ("async.data.id == -3", ID, "[-3]"),
        ("async.data.id == 'ä\\n'", ID, '["\\u00e4\\n"]'),
    ],
)
def test_found(text: str, keys: str, values: str) -> None:
    assert check(text, "f", WAIT_NAMES).wanted == Wanted(keys, values)


@pytest.mark.parametrize(
    "text",
    [
        "async.data.id != 'o1'",
        "async.data.id == 'o1' || async.data.n > 3",
        "!(async.data.id == 'o1')",
        "async.data.id == event.data.id",
        "event.data.id == 'o1'",
        "async.data.list[0] == 'o1'",
        "async.data.id == [1]",
        "async.data.id == b'x'",
        "has(async.data.id) == true",
        "async == null",
        "lowercase(async.data.id) == 'o1'",
        "async.data.id in ['o1']",
        "async.data.list.exists(x, x == 'o1')",
        "true",
    ],
)
def test_not_found(text: str) -> None:
    assert check(text, "f", WAIT_NAMES).wanted is None


@pytest.mark.parametrize(
    ("event", "values"),
    [
        ({"data": {"id": "o1"}}, '["o1"]'),
        ({"data": {"id": 2}}, "[2]"),
        ({"data": {"id": 2.0}}, "[2]"),
        ({"data": {"id": -0.0}}, "[0]"),
        ({"data": {"id": True}}, "[true]"),
        ({"data": {"id": None}}, "[null]"),
        ({"data": {}}, "[null]"),
        ({"data": "text"}, "[null]"),
        ({}, "[null]"),
        (None, "[null]"),
        ({"data": {"id": [1]}}, None),
        ({"data": {"id": {}}}, None),
        ({"data": {"id": "x" * 4096}}, json.dumps(["x" * 4096])),
        ({"data": {"id": "x" * 4097}}, None),
        ({"data": {"id": 2**53 + 1}}, "[9007199254740993]"),
        ({"data": {"id": 10**400}}, f"[1{'0' * 400}]"),
        ({"data": {"id": -(10**400)}}, f"[-1{'0' * 400}]"),
        ({"data": {"id": -(10**400) - 1}}, "[null]"),
        ({"data": {"id": 10**5000}}, "[null]"),
    ],
)
def test_values_of_an_event(event: Any, values: str | None) -> None:
    assert values_at(ID, event) == values


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"]), max_size=4)
    | st.sampled_from([0, 1, 0.0, 1.0, True, False, "", "0", 2**53, float(2**53), 2**53 + 1])
)


@given(SCALARS, SCALARS, SCALARS)
def test_a_wait_whose_condition_holds_is_found(wanted: Any, second: Any, there: Any) -> None:
    literals = [json.dumps(value, ensure_ascii=False) for value in (wanted, second)]
    text = f"async.a == {literals[0]} && async.b == {literals[1]}"
    for event in ({"a": there, "b": second}, {"b": second}, {"a": wanted, "b": second}):
        found = find(parse(text, WAIT_NAMES).root, "async")
        assert found is not None
        if matches(text, {"event": {}, "async": event}):
            assert values_at(found.keys, event) == found.values


@given(SCALARS, SCALARS, st.sampled_from(["known", "id"]))
def test_a_run_whose_condition_compares_two_events_is_found(
    known: Any, there: Any, key: str
) -> None:
    """What SDKs make of `match`."""
    text = "event.data.known == async.data.there && async.data.x == 1"
    trigger = {"data": {key: known}}
    condition = check(text, "f", WAIT_NAMES)
    for event in ({"there": there, "x": 1}, {"there": known, "x": 1.0}, {"x": 1}):
        wanted = joined(condition.wanted, condition.joins, trigger)
        assert wanted is not None
        if matches(text, {"event": trigger, "async": {"data": event}}):
            assert values_at(wanted.keys, {"data": event}) == wanted.values


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("event.data.id == async.data.id", ([["data", "id"]], ["o1"])),
        ("async['data'].id == event.data['id']", ([["data", "id"]], ["o1"])),
        (
            "async.data.n == event.data.n && async.data.id == 'o2'",
            ([["data", "id"], ["data", "n"]], ["o2", 3]),
        ),
        ("async.data.id == event.data.missing", ([["data", "id"]], [None])),
        ("async.data.id == event.data.list", None),
        ("async.data.id == event.data.long", None),
        ("async.data.id == event.data.id || async.data.n == 1", None),
        ("event.data.id == event.data.id", None),
    ],
)
def test_what_a_condition_wants_once_the_other_event_is_known(text: str, wanted: Any) -> None:
    trigger = {"data": {"id": "o1", "n": 3.0, "list": [1], "long": "x" * 4097}}
    condition = check(text, "f", WAIT_NAMES)
    found = joined(condition.wanted, condition.joins, trigger)
    said = None if found is None else (json.loads(found.keys), json.loads(found.values))
    assert said == wanted
