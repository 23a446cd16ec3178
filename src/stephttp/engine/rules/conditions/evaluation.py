"""Turns the tree of a condition into a function, and bounds the work of evaluating it. Pure.

Every node becomes a closure, made once, since a condition is evaluated for each event of its name.
The work of one evaluation is bounded (`MOST_WORK`): the text is short, but loops go over lists that
come with events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stephttp.engine.rules.conditions import functions, operators
from stephttp.engine.rules.conditions.operators import NO_VALUE, TypeName, lifted
from stephttp.engine.rules.conditions.syntax import (
    Comprehension,
    Field,
    FunctionCall,
    ListOf,
    Literal,
    MapOf,
    Name,
    Node,
)

MOST_WORK = 10_000
"""The work of one evaluation: turns of loops, and thousands of characters or items at a time."""
_THOUSAND = 1000


class TooMuchWorkError(Exception):
    """An evaluation takes longer than any condition should."""


class Scope:
    """The variables of one evaluation.

    Attributes:
        names: their values.
        now_ms: the present time.
    """

    __slots__ = ("left", "names", "now_ms")

    def __init__(self, names: dict[str, Any], now_ms: int) -> None:
        self.names = names
        self.now_ms = now_ms
        self.left = MOST_WORK

    def spend(self, work: int) -> None:
        """Count work.

        Raises:
            TooMuchWorkError: it was the last that may be done.
        """
        self.left -= work
        if self.left < 0:
            raise TooMuchWorkError


Evaluate = Callable[[Scope], Any]


def compiled(node: Node) -> Evaluate:
    """Return the function that computes the value of a node; `NO_VALUE` if it has none."""
    return _MAKERS[type(node)](node)


def _literal(node: Literal) -> Evaluate:
    value = node.value
    return lambda scope: value


def _name(node: Name) -> Evaluate:
    name = node.name
    if name in functions.TYPES:
        type_name = TypeName(name)
        return lambda scope: scope.names.get(name, type_name)
    return lambda scope: lifted(scope.names.get(name, NO_VALUE))


def _field(node: Field) -> Evaluate:
    operand, key = compiled(node.operand), node.key
    if node.test:
        # `has` of what is missing itself is false, as is everything that has no value.
        return lambda scope: type(value := operand(scope)) is dict and key in value

    def field(scope: Scope) -> Any:
        value = operand(scope)
        return lifted(value.get(key, NO_VALUE)) if type(value) is dict else NO_VALUE

    return field


def _list(node: ListOf) -> Evaluate:
    items = [compiled(item) for item in node.items]

    def made(scope: Scope) -> Any:
        values = [item(scope) for item in items]
        return NO_VALUE if NO_VALUE in values else values

    return made


def _map(node: MapOf) -> Evaluate:
    entries = [(compiled(key), compiled(value)) for key, value in node.entries]

    def made(scope: Scope) -> Any:
        pairs = [(key(scope), value(scope)) for key, value in entries]
        if any(type(key) is not str or value is NO_VALUE for key, value in pairs):
            return NO_VALUE
        return dict(pairs)

    return made


def _fold(node: Comprehension) -> Evaluate:
    over, start, step, result = map(compiled, (node.over, node.start, node.step, node.result))
    going = _going(node.going)
    item, accumulator = node.item, node.accumulator

    def fold(scope: Scope) -> Any:
        items = over(scope)
        if type(items) not in (list, dict):
            return NO_VALUE
        outer = scope.names
        scope.names = inner = {**outer, accumulator: start(scope)}
        try:
            for value in items:
                scope.spend(1)
                inner[item] = value
                if not going(scope):
                    break
                inner[accumulator] = step(scope)
            return result(scope)
        finally:
            scope.names = outer

    return fold


def _going(node: Node) -> Callable[[Scope], bool]:
    """Return whether a loop continues: also while what it has found so far has no value."""
    wanted = True
    if isinstance(node, FunctionCall) and node.function in _NOT_STRICTLY_FALSE:
        (node,) = node.args
    if isinstance(node, FunctionCall) and node.function == "!_":
        (node,), wanted = node.args, False
    value = compiled(node)
    return lambda scope: value(scope) is not (not wanted)


def _call(node: FunctionCall) -> Evaluate:
    if node.function in _SPECIAL:
        return _SPECIAL[node.function](*map(compiled, node.args))
    if node.function in _OPERATORS:
        return _operator(_OPERATORS[node.function], *map(compiled, node.args))
    name, method = node.function, node.method
    args = [compiled(arg) for arg in node.args]

    def function(scope: Scope) -> Any:
        values = [arg(scope) for arg in args]
        for value in values:
            _charge(scope, value)
        return functions.call(name, values, scope.now_ms, method=method)

    return function


def _operator(operation: Callable[..., Any], *args: Evaluate) -> Evaluate:
    if len(args) == 1:
        (only,) = args
        return lambda scope: operation(only(scope))
    first, second = args

    def binary(scope: Scope) -> Any:
        a, b = first(scope), second(scope)
        _charge(scope, a)
        _charge(scope, b)
        return operation(a, b)

    return binary


def _charge(scope: Scope, value: Any) -> None:
    if type(value) in (str, list, dict) and len(value) >= _THOUSAND:
        scope.spend(len(value) // _THOUSAND)


def _and(first: Evaluate, second: Evaluate) -> Evaluate:
    def both(scope: Scope) -> Any:
        value = first(scope)
        return second(scope) if operators.is_true(value) else value

    return both


def _or(first: Evaluate, second: Evaluate) -> Evaluate:
    def either(scope: Scope) -> Any:
        value = first(scope)
        return value if operators.is_true(value) else second(scope)

    return either


def _choice(condition: Evaluate, yes: Evaluate, no: Evaluate) -> Evaluate:
    def chosen(scope: Scope) -> Any:
        value = condition(scope)
        return NO_VALUE if type(value) is not bool else yes(scope) if value else no(scope)

    return chosen


_NOT_STRICTLY_FALSE = ("@not_strictly_false", "__not_strictly_false__")
"""What the macros of CEL put around the conditions of their loops."""

_SPECIAL: dict[str, Callable[..., Evaluate]] = {
    "_&&_": _and,
    "_||_": _or,
    "_?_:_": _choice,
}
"""Operators that do not always need all their operands."""

_OPERATORS: dict[str, Callable[..., Any]] = {
    "_==_": operators.equal,
    "_!=_": operators.unequal,
    "_<_": operators.less,
    "_<=_": operators.less_or_equal,
    "_>_": operators.greater,
    "_>=_": operators.greater_or_equal,
    "_+_": operators.add,
    "_-_": operators.subtract,
    "_*_": operators.multiply,
    "_/_": operators.divide,
    "_%_": operators.remainder,
    "-_": operators.negate,
    "!_": operators.opposite,
    "_[_]": operators.item,
    "@in": operators.contained,
}

_MAKERS: dict[type, Callable[[Any], Evaluate]] = {
    Literal: _literal,
    Name: _name,
    Field: _field,
    FunctionCall: _call,
    ListOf: _list,
    MapOf: _map,
    Comprehension: _fold,
}
