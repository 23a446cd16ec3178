"""`wait_for_event(match=...)`: the condition of a wait, made of the values that an event must have
(docs/protocol.md 5.4). Pure.

    {"data.id": "o'1"}                      async.data.id == "o'1"
    {"data.order-id": 7, "data.paid": True} async.data["order-id"] == 7 && async.data.paid == true

Values and keys are written as literals, so nothing in them can be a part of the expression. The
stephttp engine looks such waits up by their values.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from stephttp._core.tool_types import MatchValue

LONGEST = 4096
"""Characters of a condition that the stephttp engine accepts."""
_ROOTS = frozenset({"data", "name", "id", "ts", "v", "user"})
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset({
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in",
    "let", "loop", "namespace", "null", "package", "return", "true", "var", "void", "while",
})  # fmt: skip
_LARGEST = 2**63


def condition(match: Mapping[str, MatchValue], what: str) -> str:
    """Return the CEL expression that holds for an event with these values.

    Args:
        match: the value for each path of keys, joined by dots, such as `data.order.id`.
        what: begins the message of an error.

    Raises:
        TypeError: it is not a mapping, a path is not text, or a value cannot be in an event.
        ValueError: it is empty, a path leads nowhere, a value has no literal, or all of it is too
            long.
    """
    if not isinstance(match, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{what} must be a mapping such as {{'data.id': 7}}, not {match!r}")
    if not match:
        raise ValueError(f"{what} must not be empty; leave it out to accept any event of the name")
    parts = [
        f"async{_path(path, what)} == {_literal(value, f'{what}[{path!r}]')}"
        for path, value in match.items()
    ]
    text = " && ".join(parts)
    if len(text) > LONGEST:
        raise ValueError(f"{what} makes a condition of {len(text)} characters; {LONGEST} are most")
    return text


def _path(path: object, what: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"{what}: a path must be text such as 'data.id', not {path!r}")
    keys = path.split(".")
    if keys[0] not in _ROOTS or not all(keys):
        raise ValueError(
            f"{what}: {path!r} is not a path into an event; it begins with data, as in 'data.id'"
        )
    return "".join(map(_key, keys, [f"{what}: {path!r}"] * len(keys)))


def _key(key: str, what: str) -> str:
    if _IDENTIFIER.fullmatch(key) and key not in _RESERVED:
        return f".{key}"
    return f"[{_text(key, what)}]"


def _literal(value: object, what: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value, what)
    if isinstance(value, int):
        if not -_LARGEST <= value < _LARGEST:
            raise ValueError(f"{what}: {value} does not fit into 64 bits")
        return int.__repr__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{what}: {value!r} has no JSON form")
        return float.__repr__(value)
    raise TypeError(
        f"{what}: an event cannot have {value!r}; give str, int, float, bool or None, such as "
        "str(value)"
    )


def _text(value: str, what: str) -> str:
    # The escapes of JSON are among those of CEL, which has none for the halves of a character.
    text = json.dumps(str.__str__(value), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what}: {value!r} must be valid Unicode") from None
    return text
