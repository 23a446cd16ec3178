"""Finds code of a handler whose steps depend on the order of a set.

That order is the same in each call of one process, and differs between processes (PYTHONHASHSEED),
so it cannot be found by comparing calls in a test. It is found in the source of the functions that
come to steps: what takes the elements of a set one after the other, where the values at work say
that it is a set.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import ChainMap
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

from stephttp.testing.findings import Finding, Place

_ORDERED = frozenset({"list", "tuple", "enumerate", "iter", "zip", "map", "filter", "chain"})
"""Functions whose result has the order of what they are given."""
_METHODS = frozenset({"join", "fromkeys", "extend", "extendleft"})
"""Likewise methods."""
_ORDERLESS = frozenset({"sorted", "len", "sum", "min", "max", "any", "all", "set", "frozenset"})
"""Functions for which the order does not matter."""


class _Use(NamedTuple):
    """Something that takes elements one after the other.

    Attributes:
        source: what it takes them from.
        body: the lines in which the order matters, if it is a loop.
    """

    source: ast.expr
    line: int
    body: range | None


def set_orders(frame: FrameType) -> Iterator[Finding]:
    """Return what depends on the order of a set in a function that has come to a step.

    Args:
        frame: of the function.
    """
    for use in _uses(frame.f_code):
        if use.body is not None and frame.f_lineno not in use.body:
            continue
        if not _is_set(use.source, frame):
            continue
        text = ast.unparse(use.source)
        message = (
            f"the order of the set {text} decides what the steps get, and it differs between "
            f"processes; use sorted({text})"
        )
        place = Place(frame.f_code.co_filename, use.line)
        yield Finding("set_order", message, place=place, now=text)


@lru_cache(maxsize=512)
def _uses(code: CodeType) -> tuple[_Use, ...]:
    try:
        lines, first = inspect.getsourcelines(code)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError, TypeError):  # there is no source
        return ()
    ast.increment_lineno(tree, max(first, 1) - 1)
    return tuple(_found(tree))


def _found(tree: ast.AST) -> Iterator[_Use]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and _called(node) in _ORDERLESS:
            # What is right in it may come in any order; what is deeper is looked at.
            for argument in node.args:
                inner = argument.elt if isinstance(argument, _LISTS) else argument
                yield from _found(inner)
            continue
        yield from _of(node)
        yield from _found(node)


_LISTS = (ast.ListComp, ast.GeneratorExp)


def _of(node: ast.AST) -> Iterator[_Use]:
    if isinstance(node, ast.For | ast.AsyncFor):
        body = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        yield _Use(node.iter, node.lineno, body)
    elif isinstance(node, (*_LISTS, ast.DictComp)):
        for loop in node.generators:
            yield _Use(loop.iter, node.lineno, None)
    elif isinstance(node, ast.Starred) or (
        isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple | ast.List)
    ):
        yield _Use(node.value, node.lineno, None)
    elif isinstance(node, ast.Call):
        name = _called(node)
        if name in _ORDERED or (name in _METHODS and isinstance(node.func, ast.Attribute)):
            for argument in node.args:
                yield _Use(argument, node.lineno, None)
        elif name == "pop" and isinstance(node.func, ast.Attribute) and not node.args:
            yield _Use(node.func.value, node.lineno, None)


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_set(source: ast.expr, frame: FrameType) -> bool:
    """Return whether an expression is a set of which the order is not always the same."""
    if isinstance(source, ast.Set | ast.SetComp):
        return not all(isinstance(one, ast.Constant) and type(one.value) is int
                       for one in getattr(source, "elts", (None,)))  # fmt: skip
    if isinstance(source, ast.Call):
        return isinstance(source.func, ast.Name) and source.func.id in ("set", "frozenset")
    if isinstance(source, ast.BinOp):
        sides = (source.left, source.right)
        operators = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
        return isinstance(source.op, operators) and any(_is_set(one, frame) for one in sides)
    value = _value(source, frame)
    return isinstance(value, set | frozenset) and not all(type(one) is int for one in value)


def _value(source: ast.expr, frame: FrameType) -> Any:
    """Return the value of a name, or of an attribute of one, without calling anything."""
    if isinstance(source, ast.Name):
        return ChainMap(frame.f_locals, frame.f_globals).get(source.id)
    if isinstance(source, ast.Attribute):
        value = _value(source.value, frame)
        return getattr(value, "__dict__", {}).get(source.attr)
    return None
