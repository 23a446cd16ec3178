"""The plain form of each kind of value that msgspec does not write, and of what has none."""

from __future__ import annotations

import enum
import numbers
from collections import ChainMap, deque
from collections.abc import Mapping, Sequence, Set
from fractions import Fraction
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pydantic
import pytest

from stephttp._core.plain import is_text, plain_form


class Loud(str):
    def __str__(self) -> str:
        return self.upper()


class Celsius(float):
    pass


class Bits(int):
    def __int__(self) -> int:
        raise AssertionError("its own number is not asked for")


class Letters(bytes):
    pass


class Real:
    """As numpy's floating numbers: registered, not derived."""

    def __float__(self) -> float:
        return 1.5


class Integral:
    def __int__(self) -> int:
        return 7


numbers.Real.register(Real)
numbers.Integral.register(Integral)


def of_numpy(name: str) -> Any:
    """Return a value whose class has the name of one of numpy's."""
    return type(name, (), {"__module__": "numpy", "__bool__": lambda self: True})()


class Named(pydantic.BaseModel):
    name: str


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (PurePosixPath("/a/b"), "/a/b"),
        (PureWindowsPath("c:/a"), "c:\\a"),
        (Path("x"), "x"),
        (IPv4Address("127.0.0.1"), "127.0.0.1"),
        (IPv4Interface("127.0.0.1/8"), "127.0.0.1/8"),
        (IPv4Network("10.0.0.0/8"), "10.0.0.0/8"),
        (IPv6Address("::1"), "::1"),
        (IPv6Interface("::1/64"), "::1/64"),
        (IPv6Network("fe80::/10"), "fe80::/10"),
        (Fraction(1, 3), "1/3"),
        (1 + 2j, "(1+2j)"),
        (Loud("quiet"), "quiet"),
        (Letters(b"ab"), b"ab"),
        (Bits(5), 5),
        (Celsius(20.5), 20.5),
        (Integral(), 7),
        (Real(), 1.5),
        (of_numpy("bool"), True),
        (of_numpy("bool_"), True),
        (ChainMap({"a": 1}), {"a": 1}),
        (deque([1, 2], maxlen=3), [1, 2]),
        (range(3), [0, 1, 2]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        (Named(name="x"), {"name": "x"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_has_a_plain_form(value: Any, plain: Any) -> None:
    found = plain_form(value)
    assert found == plain
    assert type(found) is type(plain)


class Color(enum.Enum):
    RED = object()


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Color.RED,
        of_numpy("float128"),
        type("bool", (), {"__module__": "other"})(),
        iter([1]),
        lambda: None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_made_again_has_none(value: Any) -> None:
    cls = type(value)
    with pytest.raises(TypeError, match=f"^{cls.__module__}.{cls.__qualname__}$"):
        plain_form(value)


@pytest.mark.parametrize("secret", [pydantic.SecretStr("x"), pydantic.SecretBytes(b"x")])
def test_a_secret_stays_one(secret: Any) -> None:
    with pytest.raises(TypeError, match=f"^{type(secret).__name__} hides its value from JSON$"):
        plain_form(secret)


class Mine(PurePosixPath):
    """Of a module of its own, but a path."""


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (Path, True),
        (Mine, True),
        (complex, True),
        (Fraction, True),
        (IPv4Address, True),
        (type("Fraction", (), {"__module__": "sympy"}), False),
        (type("Decimal", (), {"__module__": "fractions"}), False),
        (type("PurePath", (), {"__module__": "pathlib._local"}), True),
        (str, False),
        (Mapping, False),
        (Sequence, False),
        (Set, False),
    ],
)
def test_classes_are_known_as_text_by_name_and_module(cls: type, text: bool) -> None:
    assert is_text(cls) is text
