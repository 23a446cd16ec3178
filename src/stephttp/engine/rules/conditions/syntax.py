"""Parses and type-checks CEL, and returns the condition as a tree.

Parser and type checker are the CEL project's own (https://cel.dev). It hands out its tree as a
protobuf message, `cel.expr.CheckedExpr`; the table below is the part of it that is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs]  (it has some)

from stephttp.engine.model.values import Value


class Literal(Value, frozen=True):
    """A value that stands in the text."""

    value: Any


class Name(Value, frozen=True):
    """A variable, or the name of a type."""

    name: str


class Field(Value, frozen=True):
    """A key of a map; with `test`, the question whether it is there (`has`)."""

    operand: Node
    key: str
    test: bool = False


class FunctionCall(Value, frozen=True):
    """A function or an operator; a method has its object as first argument."""

    function: str
    args: tuple[Node, ...]
    method: bool = False


class ListOf(Value, frozen=True):
    """A list that stands in the text."""

    items: tuple[Node, ...]


class MapOf(Value, frozen=True):
    """A map that stands in the text."""

    entries: tuple[tuple[Node, Node], ...]


class Comprehension(Value, frozen=True):
    """A loop over a list or the keys of a map: `all`, `exists`, `exists_one`, `filter`, `map`."""

    item: str
    over: Node
    accumulator: str
    start: Node
    going: Node
    step: Node
    result: Node


Node = Literal | Name | Field | FunctionCall | ListOf | MapOf | Comprehension


@dataclass(frozen=True, slots=True)
class Tree:
    """A checked expression.

    Attributes:
        is_condition: whether its value may be true or false, as far as its type tells.
        kind: the name of its type.
    """

    root: Node
    is_condition: bool
    kind: str


TEXT_TO_TEXT = ("lowercase", "uppercase", "b64decode")
"""Functions that Inngest has added to CEL, by their types; see `functions` for what they do."""
TEXT_TO_TIME = ("now_plus", "now_minus")


def parse(text: str, names: frozenset[str]) -> Tree:
    """Parse and type-check an expression.

    Args:
        text: the expression.
        names: the variables that it may use; their contents have no type.

    Raises:
        ValueError: it is not valid; the message is the reason.
    """
    environment = _environment(names)
    try:
        program = environment.compile(text)
    except Exception as error:  # the library has no exception of its own
        reasons = str(error).removeprefix("INVALID_ARGUMENT: ").split("ERROR: ")
        strict = [reason for reason in reasons if reason and not _TWO_NUMBERS.search(reason)]
        if strict or len(reasons) == 1:
            found = "ERROR: " * (len(reasons) > 1) + (strict or reasons)[0]
            raise ValueError(found.partition("\n")[0].strip()[:500]) from None
        return Tree(_root(environment.compile(text, disable_check=True)), True, "dyn")
    kind = program.return_type()
    return Tree(_root(program), kind in (cel.Type.BOOL, cel.Type.DYN), kind.name().lower())


_NUMBER = "(?:int|uint|double)"
_TWO_NUMBERS = re.compile(
    rf"^\S+ found no matching overload for '\S+' applied to '\({_NUMBER}, {_NUMBER}\)'"
)
"""The complaint about numbers of two kinds, which this engine takes as an Inngest server does."""


def _root(program: cel.Expression) -> Node:
    wrapped = _message("google.protobuf.Any")()
    wrapped.ParseFromString(program.serialize())
    message = _message(wrapped.type_url.rpartition("/")[2])()
    message.ParseFromString(wrapped.value)
    return _node(message.expr)


def _node(expr: Any) -> Node:
    return _NODES[expr.WhichOneof("kind")](expr)


def _constant(expr: Any) -> Node:
    kind = expr.const_expr.WhichOneof("kind")
    return Literal(None if kind == "null_value" else getattr(expr.const_expr, kind))


def _name(expr: Any) -> Node:
    return Name(expr.ident_expr.name)


def _list(expr: Any) -> Node:
    return ListOf(tuple(map(_node, expr.list_expr.elements)))


def _field(expr: Any) -> Node:
    part = expr.select_expr
    return Field(_node(part.operand), part.field, part.test_only)


def _call(expr: Any) -> Node:
    part = expr.call_expr
    method = part.HasField("target")
    args = [_node(part.target)] if method else []
    return FunctionCall(part.function, (*args, *map(_node, part.args)), method)


def _map(expr: Any) -> Node:
    entries = expr.struct_expr.entries
    return MapOf(tuple((_node(entry.map_key), _node(entry.value)) for entry in entries))


def _fold(expr: Any) -> Node:
    part = expr.comprehension_expr
    parts = (part.accu_init, part.loop_condition, part.loop_step, part.result)
    return Comprehension(part.iter_var, _node(part.iter_range), part.accu_var, *map(_node, parts))


_NODES: dict[str, Callable[[Any], Node]] = {
    "const_expr": _constant,
    "ident_expr": _name,
    "select_expr": _field,
    "call_expr": _call,
    "list_expr": _list,
    "struct_expr": _map,
    "comprehension_expr": _fold,
}


@lru_cache(maxsize=8)
def _environment(names: frozenset[str]) -> cel.Env:
    text, time, anything = cel.Type.STRING, cel.Type.TIMESTAMP, cel.Type.DYN
    kinds = {
        **dict.fromkeys(TEXT_TO_TEXT, (text, [text])),
        **dict.fromkeys(TEXT_TO_TIME, (time, [text])),
        "json_parse": (anything, [text]),
        "date": (time, [anything]),
        "now": (time, []),
    }
    functions = [
        cel.FunctionDecl(name, [cel.Overload(name, result, list(args), False)])
        for name, (result, args) in kinds.items()
    ]
    variables = dict.fromkeys(sorted(names), anything)
    return cel.NewEnv(variables=variables, functions=functions)


_ONE, _MANY, _CHOICE = "one", "many", "choice"
_MESSAGES: dict[str, list[tuple[str, int, str, str]]] = {
    "CheckedExpr": [("expr", 4, "Expr", _ONE)],
    "ParsedExpr": [("expr", 2, "Expr", _ONE)],
    "Constant": [
        ("null_value", 1, "int64", _CHOICE),
        ("bool_value", 2, "bool", _CHOICE),
        ("int64_value", 3, "int64", _CHOICE),
        ("uint64_value", 4, "uint64", _CHOICE),
        ("double_value", 5, "double", _CHOICE),
        ("string_value", 6, "string", _CHOICE),
        ("bytes_value", 7, "bytes", _CHOICE),
    ],
    "Ident": [("name", 1, "string", _ONE)],
    "Select": [
        ("operand", 1, "Expr", _ONE),
        ("field", 2, "string", _ONE),
        ("test_only", 3, "bool", _ONE),
    ],
    "Call": [
        ("target", 1, "Expr", _ONE),
        ("function", 2, "string", _ONE),
        ("args", 3, "Expr", _MANY),
    ],
    "CreateList": [("elements", 1, "Expr", _MANY)],
    "Entry": [("map_key", 3, "Expr", _ONE), ("value", 4, "Expr", _ONE)],
    "CreateStruct": [("entries", 2, "Entry", _MANY)],
    "Comprehension": [
        ("iter_var", 1, "string", _ONE),
        ("iter_range", 2, "Expr", _ONE),
        ("accu_var", 3, "string", _ONE),
        ("accu_init", 4, "Expr", _ONE),
        ("loop_condition", 5, "Expr", _ONE),
        ("loop_step", 6, "Expr", _ONE),
        ("result", 7, "Expr", _ONE),
    ],
    "Expr": [
        ("const_expr", 3, "Constant", _CHOICE),
        ("ident_expr", 4, "Ident", _CHOICE),
        ("select_expr", 5, "Select", _CHOICE),
        ("call_expr", 6, "Call", _CHOICE),
        ("list_expr", 7, "CreateList", _CHOICE),
        ("struct_expr", 8, "CreateStruct", _CHOICE),
        ("comprehension_expr", 9, "Comprehension", _CHOICE),
    ],
}
"""The messages of `cel/expr/syntax.proto` and `checked.proto`: fields by name, number and type."""


@cache
def _message(name: str) -> Any:
    return _messages()[name]


@cache
def _messages() -> dict[str, Any]:
    from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="stephttp/cel.proto", package="cel.expr", syntax="proto3"
    )
    types = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if any(how == _CHOICE for *_, how in fields):
            message.oneof_decl.add(name="kind")
        for field, number, kind, how in fields:
            label = types.LABEL_REPEATED if how == _MANY else types.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=label)
            if kind in _MESSAGES:
                made.type, made.type_name = types.TYPE_MESSAGE, f".cel.expr.{kind}"
            else:
                made.type = types.Type.Value(f"TYPE_{kind.upper()}")
            if how == _CHOICE:
                made.oneof_index = 0
    # A pool of its own: another library of the process may have the real messages.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = message_factory.GetMessageClassesForFiles([file.name], pool)
    return {**classes, "google.protobuf.Any": any_pb2.Any}
