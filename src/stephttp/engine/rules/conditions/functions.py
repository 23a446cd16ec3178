"""The functions that a condition may call: those that Inngest has added to CEL, and CEL's own.

The CEL library computes CEL's own, but for the simplest: it matches regular expressions in linear
time, and knows how numbers are written and which hour it is in a time zone.
"""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs]  (it has some)

from stephttp._wire.durations import parse_duration
from stephttp.engine.rules.conditions import operators
from stephttp.engine.rules.conditions.operators import NO_VALUE, TypeName

TYPES = frozenset(
    {"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"}
)
"""Names of types, which are values too. (`timestamp` and `duration` are functions only.)"""
_TYPE_NAMES: dict[type, str] = {
    bool: "bool", int: "int", float: "double", str: "string", bytes: "bytes", list: "list",
    dict: "map", type(None): "null_type", TypeName: "type",
    datetime: "google.protobuf.Timestamp", timedelta: "google.protobuf.Duration",
}  # fmt: skip
_EARLIEST_S = 946_684_800  # the year 2000; smaller numbers are not dates
_LATEST_S, _LATEST_MS = 9_999_999_999, 9_999_999_999_999


def call(name: str, args: list[Any], now_ms: int, *, method: bool) -> Any:
    """Return the value of a function.

    Args:
        name: of the function.
        args: its arguments; a method's object is the first.
        now_ms: the present time.
        method: whether it is written `a.f(b)`.

    Returns:
        `NO_VALUE` if the function cannot be computed; `False` if an argument has no value, as an
        Inngest server does.
    """
    if name == "size":
        return operators.size(*args)
    if any(arg is NO_VALUE for arg in args):
        return False
    native = _NATIVE.get((name, *map(type, args)))
    if native is not None:
        return native(*args)
    if name in _TIMED:
        return _TIMED[name](now_ms, *args)
    return _FREE[name](*args) if name in _FREE else _by_library(name, args, method=method)


def _by_library(name: str, args: list[Any], *, method: bool) -> Any:
    named = {f"a{number}": arg for number, arg in enumerate(args)}
    shown = [_as_cel(arg, variable) for variable, arg in named.items()]
    first, rest = (f"{shown[0]}.", shown[1:]) if method else ("", shown)
    try:
        program = _program(f"{first}{name}({', '.join(rest)})", len(args))
        value: Any = program.eval(data={key: _plain(arg) for key, arg in named.items()})
        if value.type() == cel.Type.ERROR:
            return NO_VALUE
        value = value.plain_value()
    except Exception:  # the library has no exception of its own
        return NO_VALUE
    return bytes(value) if isinstance(value, bytearray) else value


@lru_cache(maxsize=256)
def _program(text: str, count: int) -> cel.Expression:
    variables = {f"a{number}": cel.Type.DYN for number in range(count)}
    return cel.NewEnv(variables=variables).compile(text)


def _as_cel(value: Any, name: str) -> str:
    """Write a variable in such a way that its value, which is `_plain`, gets its type back."""
    match value:
        case datetime():
            return f"timestamp({name})"
        case timedelta():
            return f"duration({name})"
        case _:
            return name


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat()
        case timedelta():
            return f"{value.total_seconds():.6f}s"
        case _:
            return value


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _decoded(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode(errors="replace")
    except (NotBase64, ValueError):
        return ""


def _date(value: Any) -> Any:
    try:
        if isinstance(value, str):
            return _date_of_text(value)
        if type(value) in (int, float) and value >= _EARLIEST_S:
            per_second = 1 if value < _LATEST_S else 1_000 if value < _LATEST_MS else 1_000_000_000
            return datetime.fromtimestamp(value / per_second, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return NO_VALUE


def _date_of_text(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = parsedate_to_datetime(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _now(now_ms: int, text: object = "0s", sign: int = 1) -> Any:
    if not isinstance(text, str):
        return NO_VALUE
    try:
        return datetime.fromtimestamp(now_ms / 1000, UTC) + sign * parse_duration(text)
    except (ValueError, OverflowError):
        return NO_VALUE


def _same(value: Any) -> Any:
    return value


def _type_name(value: Any) -> TypeName:
    return TypeName(_TYPE_NAMES.get(type(value), "dyn"))


def _no_text(value: object) -> str:
    return ""


def _no_map(value: object) -> dict[str, Any]:
    return {}


_NATIVE: dict[tuple[object, ...], Callable[..., Any]] = {
    ("contains", str, str): str.__contains__,
    ("startsWith", str, str): str.startswith,
    ("endsWith", str, str): str.endswith,
    ("lowercase", str): str.lower,
    ("uppercase", str): str.upper,
    ("b64decode", str): _decoded,
    ("json_parse", str): _parsed,
}
"""Functions by name and types of arguments."""

_TIMED: dict[str, Callable[..., Any]] = {
    "now": _now,
    "now_plus": _now,
    "now_minus": partial(_now, sign=-1),
}
_FREE: dict[str, Callable[..., Any]] = {
    "date": _date,
    "dyn": _same,
    "type": _type_name,
    # Of what is not text, as the server has it.
    **dict.fromkeys(("lowercase", "uppercase", "b64decode"), _no_text),
    "json_parse": _no_map,
}
