"""The work of one evaluation and its scope; compiled expressions that are kept; what is logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.conditions.equalities import Wanted
from stephttp.engine.rules.conditions.evaluation import (
    MOST_WORK,
    Scope,
    TooMuchWorkError,
    compiled,
)
from stephttp.engine.rules.conditions.expressions import (
    CANCEL_NAMES,
    MAX_LENGTH,
    WAIT_NAMES,
    Condition,
    check,
    matches,
    read_event,
)
from stephttp.engine.rules.conditions.operators import NO_VALUE
from stephttp.engine.rules.conditions.syntax import Comprehension, Name, parse

LIST, LONG = list(range(10)), "x" * 3999


def work(text: str, **event: Any) -> int:
    """Evaluate an expression; return how much work it was."""
    scope = Scope({"event": event}, 0)
    compiled(parse(text, CANCEL_NAMES).root)(scope)
    assert scope.names == {"event": event}
    return MOST_WORK - scope.left


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.a", 0),
        ("event.list.map(x, x)", 10),
        ("event.list.exists(x, x == 3)", 5),
        ("event.list.exists_one(x, x == 3)", 10),
        ("event.map.all(x, x == 'a')", 2),
        ("event.list.map(x, event.list.map(y, y))", 110),
        ("event.long == 'a'", 3),
        ("event.long == event.long", 6),
        ("'a' == event.long", 3),
        ("event.long.contains(event.long)", 6),
        ("size(event.many)", 2),
        ("size(event.big)", 1),
        ("size(event.short)", 0),
        ("event.number == 1", 0),
        ("!event.long", 0),
    ],
)
def test_the_work_of_an_evaluation(text: str, expected: int) -> None:
    event = {
        "list": LIST, "map": {"a": 1, "b": 2}, "long": LONG, "many": [0] * 2000,
        "big": {str(n): n for n in range(1000)}, "short": "x" * 999, "number": 10**6,
    }  # fmt: skip
    assert work(text, **event) == expected


def test_an_evaluation_ends_before_it_has_taken_too_long() -> None:
    scope = Scope({}, 5)
    assert (scope.names, scope.now_ms, scope.left) == ({}, 5, 10_000)
    scope.spend(10_000)
    with pytest.raises(TooMuchWorkError):
        scope.spend(1)
    assert work("event.list.all(x, true)", list=[0] * 10_000) == 10_000
    inner = compiled(parse("event.list.all(x, true)", CANCEL_NAMES).root)
    scope = Scope({"event": {"list": [0] * 10_001}}, 0)
    with pytest.raises(TooMuchWorkError):
        inner(scope)
    assert list(scope.names) == ["event"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event", {"a": 5, "t": True}),
        ("event.a", 5.0),
        ("event.b", NO_VALUE),
        ("event.a.b", NO_VALUE),
        ("has(event.a)", True),
        ("has(event.b)", False),
        ("has(event.a.b)", False),
        ("[event.a, 1]", [5.0, 1]),
        ("[event.a, event.b]", NO_VALUE),
        ("{'x': event.a}", {"x": 5.0}),
        ("{'x': event.b}", NO_VALUE),
        ("{1: 2}", NO_VALUE),
        ("event.map(x, x)", ["a", "t"]),
        ("event.a.map(x, x)", NO_VALUE),
        ("[1, 2, 3].filter(x, x > 1)", [2, 3]),
        ("[1, 2].map(x, [x, event.a])", [[1, 5.0], [2, 5.0]]),
        ("[1, 2].all(x, event.b.c)", NO_VALUE),
        ("[event.b.c, true].exists(x, x)", NO_VALUE),
        ("[1, 2].exists(x, x == 2)", True),
        ("[{'n': 1}, {'n': 'y'}].exists(x, x.n > 'x')", True),
        ("[1, 2].all(event, event > 0) && event.t", True),
        ("event.t ? 1 : 2", 1),
        ("!event.t ? 1 : 2", 2),
        ("event.a ? 1 : 2", NO_VALUE),
        ("event.b && true", NO_VALUE),
        ("event.a && event.t", True),
        ("event.b || event.a", 5.0),
        ("event.a || event.t", 5.0),
        ("-event.a", -5.0),
        ("!event.t", False),
        ("event['a']", 5.0),
        ("event.a in [5]", True),
        ("event.a - 7", -2.0),
        ("event.a % 2", 1.0),
        ("int", "int"),
        ("size('abc')", 3),
        ("'abc'.size()", 3),
        ("int(now())", 7),
    ],
)
def test_values(text: str, expected: Any) -> None:
    evaluate = compiled(parse(text, CANCEL_NAMES).root)
    found = evaluate(Scope({"event": {"a": 5, "t": True}}, 7000))
    assert (
        found is expected
        or (found == expected and type(found) is type(expected))
        or (text == "int" and str(found) == expected)
    )


def test_a_name_of_an_event_comes_before_a_type() -> None:
    assert compiled(Name("int"))(Scope({"int": 5}, 0)) == 5
    assert compiled(Name("other"))(Scope({}, 0)) is NO_VALUE
    assert compiled(Name("other"))(Scope({"other": 5}, 0)) == 5.0


def test_a_loop_ends_when_its_condition_is_false() -> None:
    loop = Comprehension("x", Name("l"), "a", Name("zero"), Name("going"), Name("x"), Name("a"))
    for going, expected in ((True, 3), (False, 0), (NO_VALUE, 3), (None, 3)):
        scope = Scope({"l": [1, 2, 3], "going": going, "zero": 0}, 0)
        assert compiled(loop)(scope) == expected


WAITING, ID = "async.data.id == 'o1'", '[["data","id"]]'


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The expressions that are parsed, in their order."""
    seen: list[str] = []

    def counted(text: str, names: frozenset[str]) -> Any:
        seen.append(text)
        return parse(text, names)

    monkeypatch.setattr(expressions, "parse", counted)
    return seen


def keeping(monkeypatch: pytest.MonkeyPatch, characters: int) -> Callable[[str], Condition]:
    monkeypatch.setattr(expressions, "_KEPT", expressions._Kept(characters))
    return lambda text: check(text, "f", WAIT_NAMES)


def test_what_is_used_is_kept_and_what_is_not_goes_first(
    parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = keeping(monkeypatch, 16)
    texts = [f"event.{letter} == 1" for letter in "abcd"]  # of twelve characters each
    first = look("true")
    assert look("true") is first
    look(texts[0])
    assert parsed == ["true", texts[0]]
    look("true")
    look("1 == 2")  # too much: the other one goes
    look("false")
    assert look("true") is first
    parsed.clear()
    look(texts[0])
    assert parsed == [texts[0]]
    parsed.clear()
    for _ in range(2):
        look(texts[1])
    assert parsed == [texts[1]]


def test_one_text_with_other_names_is_another_expression(parsed: list[str]) -> None:
    with_async, without = (check("true", "f", names) for names in (WAIT_NAMES, CANCEL_NAMES))
    assert with_async is not without
    assert matches("true", {"event": {}})
    assert matches("true", {"event": {}, "async": {}})
    assert parsed == ["true", "true"]


def test_what_a_check_returns() -> None:
    found = check(WAITING, "f", WAIT_NAMES)
    assert (found.kind, found.is_condition) == ("bool", True)
    assert found.wanted == Wanted(ID, '["o1"]')
    assert found.evaluate(Scope({"async": {"data": {"id": "o1"}}, "event": {}}, 0)) is True
    assert check("event.id == 'o1'", "f", CANCEL_NAMES).wanted is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x" * (MAX_LENGTH + 1), "f: the expression is longer than 4096 characters"),
        ("1", "f: the expression must be true or false, not int"),
        ("foo", ("f: not a valid CEL expression: ERROR: <input>:1:1: undeclared reference to "
                 "'foo' (in container '')")),
    ],
)  # fmt: skip
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        check(text, "f", WAIT_NAMES)
    assert str(refused.value) == message
    longest = "true" + " " * (MAX_LENGTH - 4)
    assert check(longest, "f", WAIT_NAMES).is_condition


LOGGED = "no match: the expression {!r} has no truth value {}"


@pytest.mark.parametrize(
    ("text", "shown", "reason"),
    [
        ("event.a + ''", "event.a + '…'", "but a str"),
        ("event.b.c ? true : true", "event.b.c ? true : true", ""),
        ("event.l.all(x, event.l.all(y, true)) && 'a\\'b' == \"c\"",
         "event.l.all(x, event.l.all(y, true)) && '…' == '…'", "it takes too long"),
        ("event.", "event.", "ValueError"),
    ],
)  # fmt: skip
def test_what_is_logged(
    text: str, shown: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, expressions.__name__):
        assert matches(text, {"event": {"a": 1, "l": [0] * 200}}) is False
    (record,) = caplog.records
    assert record.getMessage() == LOGGED.format(shown, reason)


def test_the_present_time_is_the_beginning_unless_said() -> None:
    assert matches("now() == timestamp('1970-01-01T00:00:00Z')", {"event": {}})
    assert matches("now() == timestamp('1970-01-01T00:00:01Z')", {"event": {}}, 1000)


def test_values_that_nest_too_deeply_are_no_match() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    event = {"a": deep, "b": [deep]}
    assert matches("event.a == event.b", {"event": event}) is False


def test_an_event_is_read_as_json() -> None:
    assert read_event(b'{"a":[1]}') == {"a": [1]}
