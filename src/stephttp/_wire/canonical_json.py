"""JSON Canonicalization Scheme (RFC 8785): the one form of a JSON text that is signed."""

from __future__ import annotations

import math
import re
from typing import Any

_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
}  # fmt: skip
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_EXACT = 2**53 - 1
"""Integers beyond it are not exact in ECMAScript."""
_MAX_DIGITS_PLAIN = 21
"""From 1e21 on, and below 1e-6, ECMAScript writes numbers with an exponent."""
_MIN_EXPONENT_PLAIN = -6


def canonical(text: bytes) -> bytes | None:
    """Return the canonical form of a JSON text; `None` when it is not I-JSON (RFC 7493)."""
    import json  # only for signatures that were made of other bytes than arrived

    try:
        return dumps(
            json.loads(text, parse_int=float, parse_constant=_refuse, object_pairs_hook=_unique)
        )
    except (ValueError, RecursionError):  # also bytes or text that are not Unicode
        return None


def dumps(value: Any) -> bytes:
    """Write a value that was read from JSON in its canonical form.

    Raises:
        ValueError: it holds a number or a text that I-JSON cannot hold.
        RecursionError: it is nested too deeply.
    """
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has a name twice")
    return value


def _write(value: Any, parts: list[str]) -> None:
    # One frame a level, so that it copes with as many levels as the readers of JSON do.
    if value is None:
        parts.append("null")
    elif isinstance(value, bool):
        parts.append("true" if value else "false")
    elif isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, int):
        if abs(value) > _EXACT:
            raise ValueError(f"{value} is too large an integer to be exact in JSON")
        parts.append(str(value))
    elif isinstance(value, float):
        parts.append(write_number(value))
    elif isinstance(value, list):
        before = "["
        for item in value:
            parts.append(before)
            _write(item, parts)
            before = ","
        parts.append("]" if value else "[]")
    else:
        before = "{"
        for name in sorted(value, key=_utf_16):
            parts.append(f"{before}{_string(name)}:")
            _write(value[name], parts)
            before = ","
        parts.append("}" if value else "{}")


def _utf_16(name: str) -> bytes:
    return name.encode("utf-16-be")


def _string(text: str) -> str:
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[0]) or f"\\u{ord(match[0]):04x}"


def write_number(value: float) -> str:
    """Write a number as ECMAScript does (RFC 8785, 3.2.2.3).

    Raises:
        ValueError: it is infinite or not a number.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not JSON")
    if value == 0:
        return "0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    point = len(whole) + int(exponent or 0) - (len(digits) - len(digits.lstrip("0")))
    digits = digits.strip("0")
    if 0 < point <= _MAX_DIGITS_PLAIN:
        text = digits.ljust(point, "0")
        text = text[:point] + ("." + text[point:] if text[point:] else "")
    elif _MIN_EXPONENT_PLAIN < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        rest = "." + digits[1:] if digits[1:] else ""
        text = f"{digits[0]}{rest}e{point - 1:+d}"
    return "-" + text if value < 0 else text
