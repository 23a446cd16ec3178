"""Which library converts which type, and what converters of the user's take part in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

import attrs
import msgspec
import pytest
from pydantic import BaseModel, Field

from stephttp._core.conversion import CONVERSIONS, PLAIN, Conversions, Converter
from stephttp._core.encoding import decode_result, encode_result
from stephttp.errors import StepResultError
from tests.core.test_conversion import stored

G = TypeVar("G")


class Coin:
    """Neither library knows it."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coin) and other.cents == self.cents

    def __hash__(self) -> int:
        return hash(self.cents)

    def __repr__(self) -> str:
        return f"Coin({self.cents})"


class Rare(Coin):
    """Is converted as its base is."""


class Slug(str):
    __slots__ = ()


class Purse(msgspec.Struct):
    """pydantic does not know a Struct, so msgspec has to convert all of it."""

    coin: Coin
    name: Slug
    inner: list[Purse] = []
    by_name: dict[str, Coin] = {}
    both: tuple[Coin, Slug] | None = None


COIN = Converter(Coin, lambda coin: coin.cents, Coin)


@pytest.fixture
def known() -> Conversions:
    """The conversions of the process, which know a coin. Other tests may have registered it."""
    CONVERSIONS.register([COIN])
    return CONVERSIONS


PURSE = Purse(Coin(1), Slug("a"), [Purse(Coin(2), Slug("b"))], {"c": Coin(3)}, (Coin(4), Slug("d")))


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Purse, PURSE),
        (list[Purse | None], [PURSE, None]),
        (dict[str, tuple[Purse, ...]], {"a": (PURSE,)}),
        (Coin, Coin(7)),
    ],
)
def test_a_converter_works_within_all_that_msgspec_knows(
    known: Conversions, type_: Any, value: Any
) -> None:
    for got in stored(value, type_):
        assert got == value
        assert repr(got) == repr(value)
    assert not known.of(type_).keeps_choices


def test_conversions_of_their_own() -> None:
    own = Conversions([COIN])
    assert own.encode({"a": [Coin(1)]}) == own.encode({"a": [1]}) == b'{"a":[1]}'
    assert own.builtins({"a": (Coin(1), Rare(2))}) == {"a": (1, 2)}
    assert own.of(list[Coin]).decode(b"[1]") == [Coin(1)]
    assert own.key_text(Coin(5)) == "5"
    assert Conversions().of(Coin).refusal
    with pytest.raises(TypeError, match="Coin"):
        Conversions().encode(Coin(1))
    late = Conversions()
    assert late.of(list[Coin]).refusal
    late.register([COIN])
    assert late.of(list[Coin]).decode(b"[1]") == [Coin(1)], "what was known before is forgotten"


@pytest.mark.parametrize(
    ("type_", "keeps"),
    [
        (int, False),
        (int | str, False),
        (date | None, False),
        (list[date] | dict[str, int], False),
        (date | str, True),
        (dict[int | str, int], True),
        (dict[str, list[date | str]], True),
        (Annotated[date | str, "a note"], True),
        # What pydantic reads as bytes may have been written as base64.
        (tuple[bytes, BaseModel], True),
        (tuple[bytes, int], False),
    ],
)
def test_where_json_may_not_tell_what_was_returned(type_: Any, keeps: bool) -> None:
    assert Conversions().of(type_).keeps_choices is keeps


def test_an_annotation_is_understood_once() -> None:
    conversions = Conversions()
    assert conversions.of(list[date]) is conversions.of(list[date])
    assert conversions.of(Any) is PLAIN
    unhashable = Annotated[list[date], {"a": "note"}]
    for _ in range(2):
        assert conversions.of(unhashable).decode(b'["2030-05-06"]') == [date(2030, 5, 6)]


def test_what_cannot_be_stored_can_still_be_read_as_plain_json() -> None:
    refused = Conversions().of(list[Coin])
    assert (refused.annotation, refused.decode(b"[1]")) == (list[Coin], [1])
    assert refused.unresolved == PLAIN.unresolved == ""
    assert not PLAIN.refusal


class Excluding(BaseModel):
    shown: date
    hidden: str = Field(default="", exclude=True)


def test_a_model_that_leaves_a_field_out_can_still_be_read() -> None:
    conversion = Conversions().of(Excluding)
    assert conversion.refusal.startswith("Excluding.hidden is excluded")
    assert conversion.decode(b'{"shown":"2030-05-06"}') == Excluding(shown=date(2030, 5, 6))


@dataclass
class Keyed:
    by_truth: dict[bool | str, int]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (dict[bool | str, int], {True: 1, "x": 2}),
        (dict[bool, list[int]], {False: [1]}),
        (dict[bool | int, int], {True: 1, 2: 3}),
        (Keyed, Keyed({False: 1, "true": 2})),
    ],
)
def test_truth_values_as_keys(type_: Any, value: Any) -> None:
    for got in stored(value, type_):
        assert repr(got) == repr(value)


class Model(BaseModel):
    at: date = Field(alias="atDay")


def test_json_of_others_is_read_by_the_names_that_they_use() -> None:
    read = Conversions().reader
    assert read(Mapping[str, date])(b'{"a":"2030-05-06"}') == {"a": date(2030, 5, 6)}
    assert read(Model)(b'{"atDay":"2030-05-06"}') == Model(atDay=date(2030, 5, 6))
    assert read(list[Model])(b'[{"atDay":"2030-05-06"}]') == [Model(atDay=date(2030, 5, 6))]
    with pytest.raises(TypeError, match=r"JSON cannot be read as .*Coin"):
        read(list[Coin])


@attrs.define
class Stop:
    at: date | str
    why: int = attrs.field(alias="reason", default=1)
    further: list[Stop] = attrs.field(factory=list)
    count: int = attrs.field(init=False, default=0)


@attrs.define
class Long:
    at: date | str
    much: int | str


@attrs.frozen
class Halt(Generic[G]):
    at: G


Untyped: Any = attrs.make_class("Untyped", ["at"])


def counted(stop: Stop, count: int) -> Stop:
    stop.count = count
    return stop


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Stop, counted(Stop("2030-05-06", 3, [counted(Stop(date(2030, 5, 6)), 1)]), 2)),
        (tuple[Stop, Stop], (Stop("x"), Stop("y", 2))),
        (Stop | Long, Long("x", 1)),
        (Stop | Long, Stop("x")),
        (list[Long | Halt[Decimal]], [Long("x", "1"), Halt(Decimal("1.50"))]),
        (list[Halt[Decimal] | Halt[date]], [Halt(Decimal("1.50"))]),
        (Untyped | Long, Untyped([1, {"a": None}])),
    ],
)
def test_classes_of_attrs_in_and_around_unions(type_: Any, value: Any) -> None:
    for got in stored(value, type_):
        assert (type(got), repr(got)) == (type(value), repr(value))


@pytest.mark.parametrize(
    ("type_", "raw", "read"),
    [
        (Stop, b'{"at":"x"}', Stop("x")),
        (Stop, b'{"at":"x","count":5}', counted(Stop("x"), 5)),
        (Stop | Long, b'{"at":"x","much":1}', Long("x", 1)),
        (Long | Stop, b'{"at":"x","why":4}', Stop("x", 4)),
        (Long | Halt[Decimal], b'{"at":"1.50"}', Halt(Decimal("1.50"))),
    ],
)
def test_an_edited_object_of_attrs_may_have_defaults(type_: Any, raw: bytes, read: Any) -> None:
    assert repr(decode_result(raw, CONVERSIONS.of(type_), "s")) == repr(read)


def test_an_object_of_attrs_that_cannot_be_made_says_why() -> None:
    conversion = CONVERSIONS.of(Stop)
    with pytest.raises(StepResultError, match="missing 1 required positional argument: 'at'"):
        decode_result(b'{"why":1}', conversion, "s")
    with pytest.raises(StepResultError, match="other"):
        decode_result(b'{"at":"x","other":1}', conversion, "s")
    assert encode_result(Stop("x"), "s") == b'{"at":"x","count":0,"further":[],"why":1}'
