"""JSON forms of values that msgspec does not write by itself: `Path`, `Fraction`, subclasses of
`str`.

Types are recognised by name, so that their modules need not be imported.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence, Set, ValuesView
from typing import Any

from stephttp._core import pydantic_types
from stephttp._core.pydantic_classes import is_secret

_AS_TEXT = frozenset(
    {
        "PurePath", "IPv4Address", "IPv4Interface", "IPv4Network", "IPv6Address", "IPv6Interface",
        "IPv6Network", "Fraction", "complex", "ZoneInfo",
    }
)  # fmt: skip
_TEXT_MODULES = frozenset({"pathlib", "ipaddress", "fractions", "builtins", "zoneinfo"})

_FORMS: dict[type, Callable[[Any], Any]] = {
    # Subclasses of what JSON has: `SafeString`, `Markup`, `numpy.float64`.
    str: str.__str__,
    bytes: lambda value: bytes(memoryview(value)),
    int: int.__index__,
    float: float.__float__,
}


def is_text(cls: type) -> bool:
    """Whether values of a class are written as the text that makes them again."""
    return any(
        base.__name__ in _AS_TEXT and base.__module__.partition(".")[0] in _TEXT_MODULES
        for base in cls.__mro__
    )


def plain_form(value: Any) -> Any:
    """What is written for `value`, for msgspec's `enc_hook`.

    Raises:
        TypeError: it has no form from which it could be made again.
    """
    cls = type(value)
    if is_secret(cls):
        raise TypeError(f"{cls.__name__} hides its value from JSON")
    if hasattr(cls, "__get_pydantic_core_schema__"):
        return pydantic_types.dump(value)
    if is_text(cls):
        return str(value)
    for base in cls.__mro__:
        if (form := _FORMS.get(base)) is not None:
            return form(value)
    if isinstance(value, numbers.Integral):  # numpy's
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if cls.__module__ == "numpy" and cls.__name__ in ("bool", "bool_"):
        return bool(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | Set | ValuesView):  # `range`, `deque`, the keys of a dict
        return list(value)
    raise TypeError(f"{cls.__module__}.{cls.__qualname__}")
