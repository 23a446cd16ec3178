"""The operators of conditions: comparisons, missing keys, null, numbers, as an Inngest server
treats them. Pure.

CEL ends with an error where a key is missing, and where numbers of two kinds meet. The Inngest
server departs from that (its `pkg/expressions`), and so do these functions:

- A key that is missing, and whatever has no value for another reason, is `NO_VALUE`. It equals null
  and nothing else, is less than everything, is left out of sums, has the size 0, and makes every
  other function false.
- Null equals null only; in other comparisons it is the other side's zero, or empty text.
- Numbers are compared by value, whole or not; JSON knows one kind only.
- `&&` and `||` take a value that is not a truth value for true if it is not zero, empty or missing.

Values are JSON's, and in addition `bytes`, `datetime`, `timedelta` and `TypeName`. The server lets
arithmetic of a whole and another number fail; here it works (docs/differences.md).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

_EXACT = 2**53
_EXPONENT = 1e21
"""From this number on Go writes an exponent."""
_INT64 = range(-(2**63), 2**63)


class NoValue:
    """The absence of a value: something is missing, or cannot be computed."""

    def __bool__(self) -> bool:
        return False


NO_VALUE = NoValue()


class TypeName(str):
    """A type of CEL, as a value."""

    __slots__ = ()


_ZEROS: dict[type, Any] = {int: 0, float: 0.0, str: ""}
_SIZED = (str, bytes, list, dict)
_ORDERED = (bool, str, bytes, datetime, timedelta)


def lifted(value: Any) -> Any:
    """Return a value of an event as CEL sees it: all its numbers are of one kind.

    Numbers beyond 2**53 stay whole: as a `float`, they would equal their neighbours.
    """
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return float(value)
    return value


def is_true(value: Any) -> bool:
    """Say whether `&&` and `||` take a value for true."""
    return not (value is NO_VALUE or value is None or (isinstance(value, _SCALARS) and not value))


_SCALARS = (bool, int, float, str)


def same(a: Any, b: Any) -> bool:
    """Say whether two values are equal; those of different types never are, but numbers."""
    kind = type(a)
    if kind is int or kind is float:
        return type(b) in (int, float) and bool(a == b)
    if kind is not type(b):
        return False
    if kind is list:
        return len(a) == len(b) and all(map(same, a, b))
    if kind is dict:
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def equal(a: Any, b: Any) -> bool:
    """`a == b`"""
    if a is NO_VALUE or b is NO_VALUE:
        return a is None or b is None
    return same(a, b)


def unequal(a: Any, b: Any) -> bool:
    """`a != b`"""
    return not equal(a, b)


def less(a: Any, b: Any) -> Any:
    """`a < b`"""
    return _compared(operator.lt, a, b, missing_first=True)


def less_or_equal(a: Any, b: Any) -> Any:
    """`a <= b`"""
    return _compared(operator.le, a, b, missing_first=True)


def greater(a: Any, b: Any) -> Any:
    """`a > b`"""
    return _compared(operator.gt, a, b, missing_first=False)


def greater_or_equal(a: Any, b: Any) -> Any:
    """`a >= b`"""
    return _compared(operator.ge, a, b, missing_first=False)


def add(a: Any, b: Any) -> Any:
    """`a + b`; values of different types are joined as text."""
    if a is NO_VALUE or b is NO_VALUE:
        rest = b if a is NO_VALUE else a
        return False if rest is NO_VALUE else rest
    if type(a) is type(b) and isinstance(a, (str, bytes, list)):
        return a + b
    if isinstance(a, (datetime, timedelta)):
        return _timed(operator.add, a, b)
    if type(a) in (int, float) and type(b) in (int, float):
        return _number(a + b)
    texts = as_text(a), as_text(b)
    return NO_VALUE if None in texts or type(a) is type(b) else "".join(map(str, texts))


def subtract(a: Any, b: Any) -> Any:
    """`a - b`"""
    if isinstance(a, (datetime, timedelta)):
        return _timed(operator.sub, a, b)
    return _arithmetic(operator.sub, a, b)


def multiply(a: Any, b: Any) -> Any:
    """`a * b`"""
    return _arithmetic(operator.mul, a, b)


def divide(a: Any, b: Any) -> Any:
    """`a / b`; without a remainder if both are whole numbers of the expression."""
    return _arithmetic(_quotient, a, b)


def remainder(a: Any, b: Any) -> Any:
    """`a % b`, of whole numbers."""
    return _arithmetic(_rest, a, b)


def negate(a: Any) -> Any:
    """`-a`"""
    return -a if type(a) is timedelta else _arithmetic(operator.sub, 0, a)


def opposite(a: Any) -> Any:
    """`!a`"""
    if a is NO_VALUE:
        return False
    return not a if type(a) is bool else NO_VALUE


def contained(a: Any, b: Any) -> Any:
    """`a in b`"""
    if a is NO_VALUE or b is NO_VALUE:
        return False
    if type(b) is list:
        return any(same(a, item) for item in b)
    if type(b) is dict:
        return type(a) is str and a in b
    return NO_VALUE


def item(a: Any, key: Any) -> Any:
    """`a[key]`"""
    if type(a) is dict and type(key) is str:
        return lifted(a.get(key, NO_VALUE))
    if type(a) is list and type(key) in (int, float) and key == key // 1 and 0 <= key < len(a):
        return lifted(a[int(key)])
    return NO_VALUE


def size(a: Any) -> Any:
    """`size(a)`"""
    if a is NO_VALUE:
        return 0
    return len(a) if type(a) in _SIZED else NO_VALUE


def as_text(value: Any) -> str | None:
    """Return a value as it appears in joined text; `None` if it does not."""
    match value:
        case bool():
            return "true" if value else "false"
        case float() if value == value // 1 and abs(value) < _EXPONENT:
            return str(int(value))
        case int() | float() | str():
            return str(value)
        case _:
            return "" if value is None else None


def _compared(compare: Callable[[Any, Any], bool], a: Any, b: Any, *, missing_first: bool) -> Any:
    """Compare two values.

    Args:
        missing_first: the answer if the first has no value; the opposite if the second has none.
    """
    if a is NO_VALUE:
        return missing_first
    if b is NO_VALUE:
        return not missing_first
    if a is None:
        a = _ZEROS.get(type(b))
    elif b is None:
        b = _ZEROS.get(type(a))
    numbers = type(a) in (int, float) and type(b) in (int, float)
    if numbers or (type(a) is type(b) and isinstance(a, _ORDERED)):
        return compare(a, b)
    return NO_VALUE


def _arithmetic(operation: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    if a is NO_VALUE or b is NO_VALUE:
        return False
    if type(a) not in (int, float) or type(b) not in (int, float):
        return NO_VALUE
    try:
        return _number(operation(a, b))
    except (ArithmeticError, ValueError):
        return NO_VALUE


def _number(value: Any) -> Any:
    return value if type(value) is not int or value in _INT64 else NO_VALUE


def _quotient(a: Any, b: Any) -> Any:
    if type(a) is int and type(b) is int:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    if b == 0:
        return math.nan if a == 0 else math.copysign(math.inf, a)
    return a / b


def _rest(a: Any, b: Any) -> Any:
    if a != a // 1 or b != b // 1:
        raise ValueError("not whole")
    return abs(a) % abs(b) * (-1 if a < 0 else 1)


def _timed(operation: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    if b is NO_VALUE:
        return False
    try:
        return operation(a, b)
    except (TypeError, OverflowError):
        return NO_VALUE
