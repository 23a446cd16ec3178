"""What JSON cannot give back, as an annotation shows it, and the advice that is given."""

from __future__ import annotations

import enum
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

import attrs
import pytest
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    WrapValidator,
    field_validator,
    model_validator,
)

from stephttp._core.reach import reach
from tests.core.classes import Model, Packed, Pair, Stop


@dataclass
class Leaf:
    id: UUID


class Planet(enum.Enum):
    EARTH = (1, 2)


class Level(enum.Enum):
    LOW = 1


class Rank(enum.IntEnum):
    LOW = 1


class Size(enum.StrEnum):
    BIG = "big"


class Colour(enum.Enum):
    RED = "red"


class Mixed(enum.Enum):
    TEXT = "text"
    NUMBER = 1
    SHARE = 1.5
    NOTHING = None


class Found(enum.Enum):
    EARTH = (1, 2)

    @classmethod
    def _missing_(cls, value: object) -> Found:
        return cls.EARTH


@attrs.define
class Private:
    name: str
    _secret: str


@dataclass
class Salted:
    name: str
    salt: InitVar[str]


class OfLeaf(Leaf):
    """No dataclass itself."""


@dataclass
class Peppered:
    salt: InitVar[str] = ""


PLANET = (
    "Planet has values that JSON does not have; return its name, and make a member of that again "
    "with Planet[name]"
)
NO_DATA = "is not data, so JSON cannot give it back; return its name or text"
PRIVATE = (
    "Private._secret: msgspec leaves out attributes of attrs classes that begin with an "
    "underscore; rename it"
)
SALTED = (
    "Salted.salt is an InitVar without a default: no value keeps it, so none could be made again; "
    "give it a default"
)
LITERAL = (
    f"{Literal['a', Level.LOW]} cannot be read from JSON, since its class is neither a text nor a "
    "number; make Level a StrEnum"
)
LEVEL = (
    "a key in JSON is a text, and Level has other values; make it a StrEnum or an IntEnum, or "
    "return a list of pairs"
)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Planet, PLANET),
        (list[Planet], PLANET),
        (tuple[Planet, int], PLANET),
        (tuple[int, Planet], PLANET),
        (Level, ""),
        (Rank, ""),
        (Size, ""),
        (Mixed, ""),
        (Found, ""),
        (re.Pattern[str], f"Pattern {NO_DATA}"),
        (type[int], f"type {NO_DATA}"),
        (Private, PRIVATE),
        (Stop, ""),
        (Salted, SALTED),
        (Peppered, ""),
        (Leaf, ""),
        (OfLeaf, ""),
        (Literal["a", Level.LOW], LITERAL),
        (Literal[Rank.LOW, Size.BIG], ""),
    ],
)
def test_what_json_cannot_give_back(annotation: Any, reason: str) -> None:
    assert reach(annotation).unreadable == reason


def key_of(name: str) -> str:
    return f"a key in JSON is a text, and not a {name}; return a list of pairs"


@pytest.mark.parametrize(
    ("key", "reason", "enum_reason"),
    [
        (str, "", ""),
        (UUID, "", ""),
        (bytes, "", ""),
        (Any, "", ""),
        (None, key_of("None"), ""),
        (type(None), key_of("None"), ""),
        (tuple[int, int], key_of("tuple"), ""),
        (tuple, key_of("tuple"), ""),
        (list[int], key_of("list"), ""),
        (set[int], key_of("set"), ""),
        (frozenset[int], key_of("frozenset"), ""),
        (dict[str, int], key_of("dict"), ""),
        (Packed, key_of("Packed"), ""),
        (Pair, key_of("Pair"), ""),
        (Leaf, key_of("Leaf"), ""),
        (Model, key_of("Model"), ""),
        (Level, "", LEVEL),
        (Level | str, "", LEVEL),
        (str | Level, "", LEVEL),
        (Colour, "", ""),
        (Rank, "", ""),
        (Size, "", ""),
        (Rank | Size, "", ""),
    ],
)
def test_what_is_no_key_in_json(key: Any, reason: str, enum_reason: str) -> None:
    for mapping in (dict, Mapping, OrderedDict):
        found = reach(mapping[key, int])
        assert (found.unreadable, found.enum_key) == (reason, enum_reason)
    assert reach(tuple[key, int]).unreadable == ""
    assert reach(dict[str, dict[key, int]]).enum_key == enum_reason
    assert reach(tuple[dict[key, int], dict[str, int]]).enum_key == enum_reason
    assert reach(tuple[dict[str, int], dict[key, int]]).enum_key == enum_reason


class ReadsPlanet(BaseModel):
    one: Annotated[Planet, BeforeValidator(lambda value: value)]
    two: Annotated[Planet, PlainValidator(lambda value: value)]
    three: Annotated[Planet, WrapValidator(lambda value, read: read(value))]
    keys: Annotated[dict[tuple[int, int], int], BeforeValidator(lambda value: value)]
    levels: Annotated[dict[Level, int], BeforeValidator(lambda value: value)]
    literal: Annotated[Literal[Planet.EARTH], BeforeValidator(lambda value: value)]


class ReadsNoPlanet(BaseModel):
    one: Annotated[Planet, Field(description="far")]


class ReadsOther(BaseModel):
    name: str
    one: Planet

    @field_validator("name", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return value


class ReadsAll(BaseModel):
    one: Planet

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return value


class ReadsWhole(BaseModel):
    one: Planet

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return value


@dataclass
class OfPlanet:
    one: Annotated[Planet, BeforeValidator(lambda value: value)]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (ReadsPlanet, ""),
        (ReadsNoPlanet, PLANET),
        (ReadsOther, PLANET),
        (ReadsAll, ""),
        (ReadsWhole, ""),
        (OfPlanet, PLANET),
        (tuple[ReadsAll, Planet], PLANET),
        (tuple[Planet, ReadsAll], PLANET),
    ],
)
def test_a_validator_of_a_model_may_read_what_nothing_else_can(model: Any, reason: str) -> None:
    found = reach(model)
    assert (found.unreadable, found.enum_key) == (reason, "")
