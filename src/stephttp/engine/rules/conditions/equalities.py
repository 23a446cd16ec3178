"""The values that a condition requires (`async.data.id == 'o1'`), by which an event finds the waits
that it may end. Pure.

Most waits are for one event of many: `async.data.id == 'o1'`. The engine stores beside the wait
which values such a condition wants at which keys, so that an event asks only the waits that its own
values may fulfil, and not all of its name. The values are necessary, not sufficient: the whole
condition is evaluated afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from stephttp.engine.model.values import Value
from stephttp.engine.rules.conditions.operators import NO_VALUE, item
from stephttp.engine.rules.conditions.syntax import Field, FunctionCall, Literal, Name, Node

_SCALARS = (bool, int, float, str, type(None))
_LONGEST = 4096
"""Characters of a text that can be looked up; a condition has no longer ones."""
_LARGEST = 10**400


Join = tuple[tuple[str, ...], tuple[str, ...]]
"""A path into the event that comes, and one into another event: their values must be equal."""


class Wanted(Value, frozen=True):
    """The values that an event must have, both as JSON.

    Attributes:
        keys: the paths into the event, as `[["data","id"]]`.
        values: the values there, in the same order.
    """

    keys: str
    values: str


def find(root: Node, variable: str) -> Wanted | None:
    """Return the values that a condition wants of `variable`; `None` if it names no constant."""
    found: dict[tuple[str, ...], Any] = {}
    for left, right in _equated(root):
        for path, value in ((left, right), (right, left)):
            keys = _path(path, variable)
            if keys and isinstance(value, Literal) and isinstance(value.value, _SCALARS):
                found.setdefault(keys, value.value)
    return _wanted(found)


def find_joins(root: Node, variable: str, other: str) -> tuple[Join, ...]:
    """Return the paths into `variable` and into `other` whose values a condition wants equal."""
    joins: list[Join] = []
    for left, right in _equated(root):
        for one, another in ((left, right), (right, left)):
            path, value = _path(one, variable), _path(another, other)
            if path and value:
                joins.append((path, value))
    return tuple(joins)


def joined(wanted: Wanted | None, joins: Sequence[Join], known: Any) -> Wanted | None:
    """Return what a condition wants of an event, now that the other one that it names is known.

    Args:
        wanted: what it wants in any case.
        joins: see `find_joins`.
        known: the other event, decoded.
    """
    found: dict[tuple[str, ...], Any] = {}
    for path, source in joins:
        value = _value_at(source, known)
        if _can_be_looked_up(value):
            found.setdefault(path, value)
    if wanted is not None:
        keys, values = msgspec.json.decode(wanted.keys), msgspec.json.decode(wanted.values)
        found |= {tuple(path): value for path, value in zip(keys, values, strict=True)}
    return _wanted(found)


def values_at(keys: str, event: Any) -> str | None:
    """Return the values that an event has for `Wanted.keys`, to be compared with `Wanted.values`.

    Returns:
        `None` if no condition can want them.
    """
    values = [_value_at(path, event) for path in msgspec.json.decode(keys)]
    return _written(values) if all(map(_can_be_looked_up, values)) else None


def _equated(root: Node) -> Iterator[tuple[Node, Node]]:
    """Return what must be equal for a condition to hold, in pairs."""
    parts = [root]
    while parts:
        node = parts.pop()
        if isinstance(node, FunctionCall) and node.function == "_&&_":
            parts += reversed(node.args)
        elif isinstance(node, FunctionCall) and node.function == "_==_":
            left, right = node.args
            yield left, right


def _wanted(found: dict[tuple[str, ...], Any]) -> Wanted | None:
    paths = sorted(found)
    if not paths:
        return None
    return Wanted(msgspec.json.encode(paths).decode(), _written([found[path] for path in paths]))


def _value_at(path: Sequence[str], event: Any) -> Any:
    value = event
    for key in path:
        value = item(value, key)
    return None if value is NO_VALUE else value  # a key that is missing equals null


def _can_be_looked_up(value: Any) -> bool:
    return isinstance(value, _SCALARS) and not (isinstance(value, str) and len(value) > _LONGEST)


def _path(node: Node, variable: str) -> tuple[str, ...]:
    """Return the keys that lead from a variable to a node; empty if it is anything else."""
    keys: list[str] = []
    while True:
        match node:
            case Field(operand, key, False):
                node = operand
            case FunctionCall("_[_]", (operand, Literal(str() as key))):
                node = operand
            case Name(name) if name == variable:
                return tuple(reversed(keys))
            case _:
                return ()
        keys.append(key)


def _written(values: list[Any]) -> str:
    """Write values so that those which are equal for a condition are written alike."""
    return json.dumps([_plain(value) for value in values], separators=(",", ":"))


def _plain(value: Any) -> Any:
    if type(value) is float and value == value // 1:
        return int(value)
    if type(value) is int and abs(value) > _LARGEST:
        return None  # no number of a condition is that large
    return value
