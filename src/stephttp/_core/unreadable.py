"""Types whose values JSON cannot give back, and what to return instead: the error at the step."""

from __future__ import annotations

import dataclasses
import re
import types
from enum import Enum
from typing import Any, get_args, get_origin

from msgspec import Struct

from stephttp._core.pydantic_classes import is_model

_INIT_VAR = vars(dataclasses)["_FIELD_INITVAR"]


def unreadable_literal(literal: Any) -> str:
    """Say why JSON cannot give back a value of a `Literal`; empty if it can."""
    for value in get_args(literal):
        if isinstance(value, Enum) and not isinstance(value, str | int):
            return (
                f"{literal} cannot be read from JSON, since its class is neither a text nor a "
                f"number; make {type(value).__name__} a StrEnum"
            )
    return ""


def unreadable_class(cls: type) -> str:
    """Say why JSON cannot give back a value of a class itself; empty if it can."""
    if cls in (type, re.Pattern):
        return (
            f"{cls.__qualname__} is not data, so JSON cannot give it back; return its name or text"
        )
    if issubclass(cls, Enum):
        if "_missing_" not in vars(cls) and not all(
            isinstance(one.value, str | int | float | types.NoneType) for one in cls
        ):
            return (
                f"{cls.__name__} has values that JSON does not have; return its name, and make "
                f"a member of that again with {cls.__name__}[name]"
            )
    elif hasattr(cls, "__attrs_attrs__"):
        for attribute in cls.__attrs_attrs__:
            if attribute.name.startswith("_"):
                return (
                    f"{cls.__name__}.{attribute.name}: msgspec leaves out attributes of attrs "
                    "classes that begin with an underscore; rename it"
                )
    elif dataclasses.is_dataclass(cls):
        for field in vars(cls).get("__dataclass_fields__", {}).values():
            # One of these has no default factory.
            if field._field_type is _INIT_VAR and field.default is dataclasses.MISSING:
                return (
                    f"{cls.__name__}.{field.name} is an InitVar without a default: no value keeps "
                    "it, so none could be made again; give it a default"
                )
    return ""


def unreadable_key(key: Any) -> str:
    """Say why a key of this type cannot be one in JSON."""
    cls = types.NoneType if key is None else get_origin(key) or key
    if isinstance(cls, type) and (
        issubclass(cls, tuple | list | set | frozenset | dict | types.NoneType | Struct)
        or dataclasses.is_dataclass(cls)
        or is_model(cls)
    ):
        name = "None" if cls is types.NoneType else cls.__name__
        return f"a key in JSON is a text, and not a {name}; return a list of pairs"
    return ""


def unreadable_enum_key(key: Any) -> str:
    """Say why pydantic cannot read a key of this type; empty if it can."""
    for one in get_args(key) or (key,):
        if _is_enum(one) and not all(isinstance(member.value, str) for member in one):
            return (
                f"a key in JSON is a text, and {one.__name__} has other values; make it a StrEnum "
                "or an IntEnum, or return a list of pairs"
            )
    return ""


def _is_enum(one: Any) -> bool:
    """Whether a type is an `Enum`, and neither a `StrEnum` nor an `IntEnum`."""
    return isinstance(one, type) and issubclass(one, Enum) and not issubclass(one, str | int)
