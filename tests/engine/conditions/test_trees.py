"""What is read of an expression: every kind of node and of literal, and the type of the whole."""

from __future__ import annotations

import pytest

from stephttp.engine.rules.conditions.expressions import WAIT_NAMES
from stephttp.engine.rules.conditions.syntax import (
    Comprehension,
    Field,
    FunctionCall,
    ListOf,
    Literal,
    MapOf,
    Name,
    Node,
    Tree,
    parse,
)

X, EVENT, TRUE = Name("x"), Name("event"), Literal(True)
RESULT = Name("@result")


def call(function: str, *args: Node, method: bool = False) -> FunctionCall:
    return FunctionCall(function, args, method)


TREES: list[tuple[str, Node, bool, str]] = [
    ("null", Literal(None), False, "null"),
    ("true", TRUE, True, "bool"),
    ("-5", Literal(-5), False, "int"),
    ("5u", Literal(5), False, "uint"),
    ("1.5", Literal(1.5), False, "double"),
    ("'ä'", Literal("ä"), False, "string"),
    ("b'a'", Literal(b"a"), False, "bytes"),
    ("event", EVENT, True, "dyn"),
    ("event.a", Field(EVENT, "a"), True, "dyn"),
    ("has(event.a)", Field(EVENT, "a", True), True, "bool"),
    ("[1, event]", ListOf((Literal(1), EVENT)), False, "list<dyn>"),
    ("{'a': 1, 'b': 2}", MapOf(((Literal("a"), Literal(1)), (Literal("b"), Literal(2)))), False,
     "map<string, int>"),
    ("event == 1", call("_==_", EVENT, Literal(1)), True, "bool"),
    ("100 > 99.5", call("_>_", Literal(100), Literal(99.5)), True, "dyn"),
    ("size(event)", call("size", EVENT), False, "int"),
    ("event.size()", call("size", EVENT, method=True), False, "int"),
    ("event.contains('a')", call("contains", EVENT, Literal("a"), method=True), True, "bool"),
    ("now()", call("now"), False, "timestamp"),
    ("now_plus('1h')", call("now_plus", Literal("1h")), False, "timestamp"),
    ("now_minus('1h')", call("now_minus", Literal("1h")), False, "timestamp"),
    ("date(1)", call("date", Literal(1)), False, "timestamp"),
    ("lowercase('A')", call("lowercase", Literal("A")), False, "string"),
    ("uppercase('A')", call("uppercase", Literal("A")), False, "string"),
    ("b64decode('A')", call("b64decode", Literal("A")), False, "string"),
    ("json_parse('1')", call("json_parse", Literal("1")), True, "dyn"),
    (
        "event.exists(x, x == 1)",
        Comprehension(
            "x", EVENT, "@result", Literal(False),
            call("@not_strictly_false", call("!_", RESULT)),
            call("_||_", RESULT, call("_==_", X, Literal(1))),
            RESULT,
        ),
        True, "bool",
    ),
    (
        "event.map(x, x)",
        Comprehension(
            "x", EVENT, "@result", ListOf(()), TRUE, call("_+_", RESULT, ListOf((X,))), RESULT
        ),
        False, "list<dyn>",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "root", "is_condition", "kind"), TREES)
def test_trees(text: str, root: Node, is_condition: bool, kind: str) -> None:
    found = parse(text, WAIT_NAMES)
    assert found == Tree(root, is_condition, kind)
    assert repr(found.root) == repr(root)  # of literals, 1 and 1.0 are equal
    # An environment is made once for these names.
    assert parse(text, frozenset(WAIT_NAMES)) == found


PLUS = "found no matching overload for '_+_' applied to '(int, string)'"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("foo", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')"),
        ("foo == bar", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')"),
        ("1 > 1.5 && foo", "ERROR: <input>:1:12: undeclared reference to 'foo' (in container '')"),
    ],
)
def test_reasons(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="undeclared") as error:
        parse(text, WAIT_NAMES)
    assert str(error.value) == reason


def test_a_reason_is_one_line_of_500_characters() -> None:
    name = "x" * 600
    with pytest.raises(ValueError, match="undeclared") as error:
        parse(name, WAIT_NAMES)
    reason = f"ERROR: <input>:1:1: undeclared reference to '{name}"
    assert str(error.value) == reason[:500]
    with pytest.raises(ValueError, match="no matching overload") as error:
        parse("1 + 'a'", WAIT_NAMES)
    assert str(error.value) == f"ERROR: <input>:1:3: {PLUS}"
    with pytest.raises(ValueError, match="recursion") as error:
        parse("(" * 1000 + "1" + ")" * 1000, WAIT_NAMES)
    assert str(error.value).startswith("CANCELLED: ")


def test_names_are_those_that_are_given() -> None:
    assert parse("a.b", frozenset({"a"})).root == Field(Name("a"), "b")
    with pytest.raises(ValueError, match="undeclared reference to 'event'"):
        parse("event", frozenset({"a"}))
