"""Values of all kinds survive their JSON: equal, and of the same type."""

from __future__ import annotations

import enum
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, make_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from django.utils.safestring import SafeString
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    PlainSerializer,
    PydanticSchemaGenerationError,
    RootModel,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
    model_serializer,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypeAliasType
from typing_extensions import TypedDict as ExtendedTypedDict

from stephttp._core.conversion import CONVERSIONS, Conversions, Converter
from stephttp._core.encoding import choose_types, decode_result, encode_result, result_conversion
from stephttp.errors import ConfigurationError, StepResultError

NOON = datetime(2030, 5, 6, 12, tzinfo=UTC)
NOON_TEXT = "2030-05-06T12:00:00Z"
G = TypeVar("G")


class Paid(BaseModel):
    cents: int


class Declined(BaseModel):
    reason: str


class Twin(BaseModel):
    cents: int


class Aliased(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    payment_id: str
    other: str = Field(default="(empty)", validation_alias=AliasChoices("x", "y"))


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    room: UUID
    guests: tuple[str, ...]


class Price(BaseModel):
    model_config = ConfigDict(extra="forbid")
    net: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> int:
        return self.net * 2


class PriceOfMore(Price):
    more: int


class Coin:
    """A key that only a converter knows."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coin) and other.cents == self.cents

    def __hash__(self) -> int:
        return hash(self.cents)


def _coin(text: str) -> Coin:
    return Coin(int(text.removeprefix("EUR ")))


class Hook(BaseModel):
    payload: Json[dict[str, int]]


class Box(BaseModel, Generic[G]):
    item: G


@dataclass
class Pair(Generic[G]):
    one: G
    two: G | None


class Roots(RootModel[list[datetime | str]]):
    pass


class DayOrText(RootModel[date | str]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Owner(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    the_pet: Cat | Dog = Field(discriminator="kind")


class Binary(BaseModel):
    payload: bytes


@dataclass
class Visit:
    when: datetime | str
    paid: Paid | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    when: datetime | str


@dataclass
class Sent:
    id: str


@dataclass
class Bounced:
    why: str


class Begin(TypedDict):
    at: datetime


class End(TypedDict):
    until: NotRequired[datetime]
    id: UUID


class Colour(enum.Enum):
    RED = "red"


class Rank(enum.IntEnum):
    LOW = 1


class Level(enum.Enum):
    LOW = 1


class Size(enum.StrEnum):
    BIG = "big"


class Part(TypedDict, total=False):
    at: Required[datetime]
    day: date | str


class Camel(msgspec.Struct, rename="camel"):
    my_when: datetime | None = None


class Row(NamedTuple):
    id: int
    day: date


class Slug(str):
    __slots__ = ()


class Settings(dict[str, int]):
    pass


@dataclass
class Slugged:
    slug: Slug
    paid: Paid


class KeyModel(BaseModel):
    days: dict[date | str, int]


class Planet(enum.Enum):
    EARTH = (5.9, 6.3)
    MARS = (0.6, 3.3)


def _planet(value: Any) -> Any:
    return Planet(tuple(value)) if isinstance(value, list) else value


class Orbit(BaseModel):
    planet: Annotated[Planet, BeforeValidator(_planet)]


class Shape:
    """Known neither to msgspec nor to pydantic."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and other.name == self.name

    __hash__ = None  # type: ignore[assignment]


def _shape(value: Any) -> Any:
    return Shape(value) if isinstance(value, str) else value


class Drawn(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    shape: Annotated[Shape, PlainSerializer(lambda one: one.name), BeforeValidator(_shape)]


@attrs.define
class Stop:
    at: datetime | str
    why: int = attrs.field(alias="reason", converter=int)
    further: list[Stop] = attrs.field(factory=list)
    count: int = attrs.field(init=False, default=0)


@attrs.define
class Detour(Stop):
    until: str = ""


@attrs.frozen
class Halt(Generic[G]):
    at: G


# What `type Day = date | str` makes since Python 3.12.
Day = TypeAliasType("Day", date | str)
Answer = TypeAliasType("Answer", G | Bounced, type_params=(G,))


@dataclass
class Trip:
    day: Day
    answer: Answer[Sent]


CASES: list[tuple[Any, Any]] = [
    (list[Day], [date(2030, 5, 6), "2030-05-06"]),
    (Day | None, "2030-05-06"),
    (Answer[Day], "2030-05-06"),
    (Trip, Trip("2030-05-06", Bounced("full"))),
    (Stop, Stop(NOON_TEXT, 1, [Stop(NOON, 2)])),
    (Stop | Paid, Stop(NOON_TEXT, 1)),
    (tuple[Detour, Stop], (Detour(NOON, 1, until="May"), Stop(NOON_TEXT, 2))),
    (tuple[Stop, Detour], (Stop(NOON_TEXT, 2), Detour(NOON, 1, until="May"))),
    (Stop | Halt[date | str], Halt("2030-05-06")),
    (list[Halt[date | str] | str], [Halt(date(2030, 5, 6)), "x"]),
    (ZoneInfo, ZoneInfo("Europe/Berlin")),
    (dict[str, ZoneInfo | None], {"home": ZoneInfo("Europe/Berlin"), "away": None}),
    (dict[Level, int], {Level.LOW: 1}),
    (Aliased, Aliased.model_validate({"paymentId": "p", "x": "n"})),
    (list[Aliased], [Aliased.model_validate({"paymentId": "p", "y": "n"})]),
    (Strict, Strict(at=NOON, room=UUID(int=7), guests=("Ada", "Bob"))),
    (Price, Price(net=100)),
    (Hook, Hook.model_validate({"payload": '{"n": 1}'})),
    (Box[int], Box[int](item=1)),
    (Box[datetime | str], Box[datetime | str](item=NOON_TEXT)),
    (Roots, Roots([NOON, NOON_TEXT])),
    (DayOrText, DayOrText("2030-05-06")),
    (dict[str, DayOrText | date], {"a": DayOrText("2030-05-06"), "b": date(2030, 5, 6)}),
    (DayOrText | str, "2030-05-06"),
    (DayOrText | str, DayOrText("2030-05-06")),
    (Owner, Owner.model_validate({"thePet": Dog()})),
    (Binary, Binary(payload=b"\xff\x00")),
    (Paid | Declined, Declined(reason="no funds")),
    (Paid | Twin, Twin(cents=3)),
    (Paid | str, "declined"),
    (Paid | None, None),
    (Sent | Bounced, Bounced("full")),
    (Begin | End, {"id": UUID(int=1)}),
    (list[Begin | str], [{"at": NOON}, "x"]),
    (datetime | str, NOON),
    (datetime | str, NOON_TEXT),
    (date | datetime, date(2030, 5, 6)),
    (Visit, Visit(NOON, Paid(cents=3))),
    (Visit, Visit(NOON_TEXT)),
    (Frozen, Frozen(NOON_TEXT)),
    (Colour | str, "red"),
    (Colour | str, Colour.RED),
    (bytes | str, b"\xff\x00"),
    (bytes | str, "text"),
    (Decimal | str, "1.10"),
    (timedelta | float, timedelta(seconds=1)),
    (list[int] | set[int], {1, 2}),
    (tuple[datetime | str, ...], (NOON_TEXT, NOON)),
    (dict[UUID, datetime | str], {UUID(int=1): NOON_TEXT}),
    (Camel, Camel(NOON)),
    (Row, Row(1, date(2030, 5, 6))),
    (Path, Path("/tmp/x")),
    (IPv4Address, IPv4Address("127.0.0.1")),
    (Fraction, Fraction(1, 3)),
    (complex, 1 + 2j),
    (deque[int], deque([1, 2])),
    (frozenset[str], frozenset({"a"})),
    (Iterable[Paid], [Paid(cents=1)]),
    (dict[str, Iterable[date]], {"holidays": [date(2030, 5, 6)]}),
    (int | float, 1.0),
    (Slug, Slug("a")),
    (Slug | None, Slug("a")),
    (Slug | Paid, Slug("a")),
    (Slugged, Slugged(Slug("a"), Paid(cents=1))),
    (Markup, Markup("<b>")),
    (SafeString, SafeString("<b>")),
    (Settings, Settings(a=1)),
    (dict[bool, int], {True: 1}),
    (dict[int | str, int], {1: 1, "2": 2}),
    (dict[date | str, list[dict[UUID | str, int]]], {"2030-05-06": [{UUID(int=1): 1, "x": 2}]}),
    (KeyModel, KeyModel(days={date(2030, 5, 6): 1, "2030-05-07": 2})),
    (deque[date | str], deque(["2030-05-06", date(2030, 5, 6)])),
    (Orbit, Orbit(planet=Planet.MARS)),
    (Drawn, Drawn(shape=Shape("round"))),
    (set[date | str], {date(2030, 5, 6), "2030-05-06", "2030-05-07", "x"}),
    (dict[str, frozenset[date | str]], {"days": frozenset({"2030-05-06"})}),
    (dict[Rank | str, int], {Rank.LOW: 1, "2": 2}),
    (dict[Size, int], {Size.BIG: 1}),
    (dict[Size | str, int], {Size.BIG: 1}),
    (Part, {"at": NOON}),
    (Part, {"at": NOON, "day": "2030-05-06"}),
]


def stored(value: Any, type_: Any) -> tuple[Any, Any]:
    """What the handler gets in the call in which the step runs, and in a later one."""
    conversion = CONVERSIONS.of(type_)
    assert not conversion.refusal, conversion.refusal
    raw = encode_result(value, "s")
    now, kept = decode_result(raw, conversion, "s"), None
    if conversion.keeps_choices:
        now, kept = choose_types(value, now, raw, conversion, "s")
    return now, decode_result(raw, conversion, "s", kept)


@pytest.mark.parametrize(("type_", "value"), CASES)
def test_a_value_comes_back_as_it_was_returned(type_: Any, value: Any) -> None:
    for got in stored(value, type_):
        assert type(got) is type(value)
        assert got == value


SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**53), 2**53)),
    (str, st.text(max_size=5) | st.just(NOON_TEXT) | st.just("2030-05-06") | st.just("1.5")),
    (bool, st.booleans()),
    (
        datetime,
        st.datetimes(
            timezones=st.just(UTC),
            min_value=datetime(1971, 1, 1),  # noqa: DTZ001
        ),
    ),
    (date, st.dates(min_value=date(1971, 1, 1))),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=2, max_value=1000)),
    (bytes, st.binary(max_size=5)),
    (type(None), st.none()),
    (Colour, st.just(Colour.RED)),
    (Rank, st.just(Rank.LOW)),
    (Size, st.just(Size.BIG)),
    (Literal["big", 7], st.sampled_from(["big", 7])),
    (timedelta, st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=9))),
    (Path, st.just(Path("/tmp/x"))),
]

KEYS = [
    (type_, values)
    for type_, values in SCALARS
    if type_ not in (bytes, type(None), Literal["big", 7])
]
"""What can be a key, or a member of a set."""


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 2) -> tuple[Any, Any]:
    """A type, and a value of it."""
    if not depth or draw(st.booleans()):
        type_, values = draw(st.sampled_from(SCALARS))
        return type_, draw(values)
    if draw(st.sampled_from([False, False, True])):
        return draw(keyed_values())
    inner, value = draw(typed_values(depth=depth - 1))
    other, _ = draw(typed_values(depth=0))
    wrap = draw(st.sampled_from(WRAPS))
    made: tuple[Any, Any] = wrap(inner, other, value)
    return made


@st.composite
def keyed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    """A mapping or a set whose keys or members are of one type, or of a union of two."""
    key_type, keys = draw(st.sampled_from(KEYS))
    if draw(st.booleans()):
        other, others = draw(st.sampled_from(KEYS))
        key_type, keys = key_type | other, keys | others
    members = draw(st.lists(keys, max_size=3))
    if draw(st.booleans()):
        kind = draw(st.sampled_from([set, frozenset]))
        return _of(kind, key_type), kind(members)
    texts = {str(CONVERSIONS.key_text(one)): one for one in members}  # a text is one key in JSON
    return _of(dict, key_type, int), dict.fromkeys(texts.values(), 1)


def _dataclass(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    made: Any = make_dataclass("Made", [("one", inner), ("two", other | None, None)])
    return made, made(value)


def _struct(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    made = msgspec.defstruct("Made", [("one_field", inner)], rename="camel")
    return made, made(value)


def _frozen_dataclass(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    made: Any = make_dataclass("Made", [("one", inner)], frozen=True, slots=True)
    return made, made(value)


def _array(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    made = msgspec.defstruct("Made", [("one", inner), ("two", other | None, None)], array_like=True)
    return made, made(value)


def _attrs(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    two = attrs.field(type=other | None, default=None)
    made: Any = attrs.make_class("Made", {"one": attrs.field(type=inner), "two": two})
    return made, made(value)


_make_typed_dict: Any = TypedDict
_make_named_tuple: Any = NamedTuple


def _typed_dict(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    fields = {"one": _of(Required, inner), "two": _of(NotRequired, other)}
    return _make_typed_dict("Made", fields, total=False), {"one": value}


def _named_tuple(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    made = _make_named_tuple("Made", [("one", inner), ("two", other | None)])
    return made, made(value, None)


def _box(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    try:
        made = _of(Box, inner)
    except PydanticSchemaGenerationError:  # pydantic knows no classes of attrs
        return inner, value
    return made, made.model_construct(item=value)


def _root(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    try:
        made = _of(RootModel, inner)
    except PydanticSchemaGenerationError:
        return inner, value
    return made, made.model_construct(root=value)


ALIASES: list[tuple[ConfigDict, dict[str, Any]]] = [
    (ConfigDict(alias_generator=to_camel), {}),
    (ConfigDict(populate_by_name=True, serialize_by_alias=True), {"alias": "uno"}),
    (ConfigDict(extra="forbid"), {"validation_alias": AliasChoices("uno", "un")}),
    (ConfigDict(strict=True), {"serialization_alias": "uno"}),
    (ConfigDict(frozen=True), {"alias": "uno", "serialization_alias": "un"}),
]


def _model(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    config, alias = ALIASES[len(repr(value)) % len(ALIASES)]
    fields: Any = {"one_field": (inner, Field(**alias)), "two": (other | None, None)}
    try:
        made = create_model("Made", __config__=config, **fields)
    except PydanticSchemaGenerationError:  # pydantic knows no Struct
        return inner, value
    return made, made.model_construct(one_field=value, two=None)


def _child(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    made, one = _model(inner, other, value)
    if not isinstance(one, BaseModel):
        return made, one
    fields: Any = {"more": (int, 0)}
    child = create_model("Child", __base__=made, **fields)
    return child, child.model_construct(**vars(one), more=1)


def _union(inner: Any, other: Any, value: Any) -> tuple[Any, Any]:
    return inner | other, value


def _of(generic: Any, *arguments: Any) -> Any:
    """A generic type with arguments that are only known here."""
    return generic[arguments[0] if len(arguments) == 1 else arguments]


WRAPS: list[Callable[[Any, Any, Any], tuple[Any, Any]]] = [
    lambda inner, other, value: (_of(list, inner), [value, value]),
    lambda inner, other, value: (_of(dict, str, inner), {"k": value}),
    lambda inner, other, value: (_of(tuple, inner, ...), (value,)),
    lambda inner, other, value: (inner | None, value),
    lambda inner, other, value: (_of(deque, inner), deque([value])),
    _box,
    lambda inner, other, value: (_of(Pair, inner), Pair(value, None)),
    _dataclass,
    _frozen_dataclass,
    _struct,
    _array,
    _attrs,
    _model,
    _child,
    _union,
    _typed_dict,
    _named_tuple,
    _root,
]


@given(typed_values())
def test_any_value_of_its_type_comes_back(pair: tuple[Any, Any]) -> None:
    type_, value = pair
    if Conversions().of(type_).refusal:  # a Struct beside a model: known to neither library
        return
    for got in stored(value, type_):
        assert type(got) is type(value)
        assert got == value


@pytest.mark.parametrize(
    ("type_", "value", "words"),
    [
        (Price, PriceOfMore(net=1, more=2), "PriceOfMore, which does not fit .*Price"),
        (list[Price], [PriceOfMore(net=1, more=2)], "which does not fit .*more"),
        (date, NOON, "datetime.datetime, which does not fit .*date"),
        (list[date] | Paid, [NOON], "which does not fit"),
        (int, 1.5, "builtins.float, which does not fit .*int"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_step_type_and_fix(
    type_: Any, value: Any, words: str
) -> None:
    conversion = CONVERSIONS.of(type_)
    raw = encode_result(value, "s")
    with pytest.raises(StepResultError, match=f"(?s)step 's' returned .*{words}.*annotate"):
        decode_result(raw, conversion, "s", None, value)


def test_a_set_whose_members_json_does_not_tell_apart_is_an_error() -> None:
    conversion = CONVERSIONS.of(set[tuple[date | str, int]])
    value = {("2030-05-06", 1)}
    raw = encode_result(value, "s")
    decoded = decode_result(raw, conversion, "s", None, value)
    with pytest.raises(StepResultError, match=r"step 's' returned .*set.*return a list"):
        choose_types(value, decoded, raw, conversion, "s")


def test_a_key_that_reads_like_that_of_a_converter_stays_a_text() -> None:
    CONVERSIONS.register([Converter(Coin, lambda coin: f"EUR {coin.cents}", _coin)])
    for value in ({"EUR 1": 1}, {Coin(1): 1, "EUR 2": 2}, {Coin(1): 1, "x": 2}):
        for got in stored(value, dict[Coin | str, int]):
            assert got == value
            assert list(map(type, got)) == list(map(type, value))


def test_an_edited_result_that_fits_another_member_is_taken_as_it_is() -> None:
    conversion = Conversions().of(datetime | str)
    raw = encode_result(NOON_TEXT, "s")
    _, kept = choose_types(NOON_TEXT, decode_result(raw, conversion, "s"), raw, conversion, "s")
    assert decode_result(b'"some day"', conversion, "s", kept) == "some day"
    assert decode_result(b'"2031-01-01T00:00:00Z"', conversion, "s", b'[[["gone"],"x"]]') == (
        datetime(2031, 1, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    "value",
    [
        type("SafeString", (str,), {})("x"),
        Counter("aab"),
        OrderedDict(b=1, a=2),
        defaultdict(int, a=1),
        type("Ids", (list,), {})([1, 2]),
        type("Count", (int,), {})(3),
        type("Share", (float,), {})(0.5),
        {type("Key", (str,), {})("k"): 1},
    ],
)
def test_subclasses_of_what_json_has_are_plain_without_an_annotation(value: Any) -> None:
    raw = encode_result(value, "s")
    plain = {dict: dict, list: list, str: str, int: int, float: float}
    kind = next(kind for kind in plain if isinstance(value, kind))
    decoded = msgspec.json.decode(raw)
    assert (type(decoded), decoded) == (kind, value)


@dataclass
class Mixed:
    ok: bool
    count: int
    by_id: dict[int, int]


@pytest.mark.parametrize(
    ("type_", "value", "wanted"),
    [
        (int, True, 1),
        (dict[str, list[int | None]], {"a": [True, None, 2]}, {"a": [1, None, 2]}),
        (
            Mixed,
            Mixed(ok=True, count=True, by_id={1: False}),
            Mixed(ok=True, count=1, by_id={1: 0}),
        ),
        (Iterable[int], range(3), [0, 1, 2]),
        (Sequence[str], {"a": 1}.keys(), ["a"]),
        (Mapping[str, int], MappingProxyType({"a": 1}), {"a": 1}),
    ],
)
def test_what_type_checkers_accept_comes_back_as_the_annotation_says(
    type_: Any, value: Any, wanted: Any
) -> None:
    for got in stored(value, type_):
        assert repr(got) == repr(wanted)


def test_a_truth_value_is_no_text() -> None:
    with pytest.raises(StepResultError, match="Expected `str`, got `bool`"):
        stored(True, str)


class Kind(enum.Enum):
    A = "a"


class Tagged(BaseModel):
    kind: Literal[Kind.A]


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    number: int | None
    shapes: list[Shape]


class Levels(BaseModel):
    counts: dict[Level, int]


@dataclass
class Salted:
    salt: InitVar[str]


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (Planet | None, "Planet has values that JSON does not have; return its name"),
        (make_dataclass("Holder", [("planet", Planet)]), "Planet has values"),
        (Literal[Kind.A], "make Kind a StrEnum"),
        (list[Tagged], "make Kind a StrEnum"),
        (dict[tuple[int, int], str], "a key in JSON is a text, and not a tuple"),
        (dict[str, Mapping[Row, str]], "a key in JSON is a text, and not a Row"),
        (dict[Frozen, str], "a key in JSON is a text, and not a Frozen"),
        (dict[None, str], "a key in JSON is a text, and not a None"),
        (Arbitrary, "pydantic does not know Shape"),
        (Salted, "Salted.salt is an InitVar without a default"),
        (Levels, "Level has other values; make it a StrEnum or an IntEnum"),
        (dict[Level | Size, date | str], "Level has other values"),
        (re.Pattern[str], "Pattern is not data"),
        (list[type[int]], "type is not data"),
    ],
)
def test_what_could_be_written_but_not_read_is_refused_before_its_step_runs(
    type_: Any, text: str
) -> None:
    assert text in CONVERSIONS.of(type_).refusal


class Token(BaseModel):
    key: SecretStr


def test_secrets_are_refused_by_type_and_by_value() -> None:
    assert "SecretStr in Token.key" in Conversions().of(list[Token]).refusal
    for value in (Token(key=SecretStr("k")), {"key": SecretStr("k")}, [Token(key=SecretStr("k"))]):
        with pytest.raises(StepResultError, match=r"'issue'.*Secret"):
            encode_result(value, "issue")


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]


def _money(data: Any) -> Money:
    return Money(data["cents"])


@dataclass
class Bill:
    total: Money | str
    paid: Paid


MONEY = Converter(Money, lambda money: {"cents": money.cents}, _money)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Money, Money(1)),
        (list[Money | str], [Money(1), "x"]),
        (dict[str, Money], {"a": Money(2)}),
        (Bill, Bill(Money(1), Paid(cents=1))),
        (Bill, Bill("x", Paid(cents=1))),
    ],
)
def test_a_converter_makes_a_type_of_ones_own_known(type_: Any, value: Any) -> None:
    assert Conversions().of(type_).refusal
    CONVERSIONS.register([MONEY])
    for got in stored(value, type_):
        assert got == value


def test_two_converters_for_one_type_are_refused() -> None:
    conversions = Conversions([MONEY])
    conversions.register([MONEY])
    with pytest.raises(ConfigurationError, match="Money has another converter"):
        conversions.register([Converter(Money, str, _money)])
    with pytest.raises(ConfigurationError, match="is not a Converter"):
        conversions.register([Money])  # type: ignore[list-item]


def test_a_hidden_name_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def total() -> Hidden:  # type: ignore[name-defined]  # noqa: F821
        return None

    for _ in range(3):
        assert result_conversion(total).decode(b"1") == 1
    (record,) = caplog.records
    assert "total" in record.getMessage()
    assert "Hidden" in record.getMessage()


class Excluding(BaseModel):
    id: int
    note: str = Field(default="", exclude=True)


class Sometimes(BaseModel):
    id: int
    note: Annotated[int, Field(exclude_if=lambda note: note == 0)] = 0


class ExcludingChild(Excluding):
    more: int = 0


class ExcludingGeneric(BaseModel, Generic[G]):
    note: G = Field(exclude=True)


@dataclass
class NotedDataclass:
    note: Annotated[str, Field(exclude=True)] = ""


class NotedDict(ExtendedTypedDict):
    note: Annotated[str, Field(exclude=True)]


class Noted(BaseModel):
    parts: list[NotedDataclass]


class NotedByDict(BaseModel):
    part: NotedDict


@pytest.mark.parametrize(
    ("type_", "field"),
    [
        (Excluding, "Excluding.note"),
        (list[Excluding], "Excluding.note"),
        (Excluding | None, "Excluding.note"),
        (make_dataclass("Holder", [("inner", Excluding)]), "Excluding.note"),
        (Sometimes, "Sometimes.note"),
        (ExcludingChild, "ExcludingChild.note"),
        (ExcludingGeneric[int], "ExcludingGeneric[int].note"),
        (Noted, "NotedDataclass.note"),
        (NotedByDict, "NotedDict.note"),
    ],
)
def test_a_model_with_excluded_fields_is_refused_before_its_step_runs(
    type_: Any, field: str
) -> None:
    assert CONVERSIONS.of(type_).refusal.startswith(f"{field} is excluded from what pydantic")


def test_what_is_excluded_elsewhere_or_not_written_does_not_matter() -> None:
    # msgspec writes these itself, with all their fields.
    for type_, value in ((NotedDataclass, NotedDataclass("a")), (list[NotedDict], [{"note": "a"}])):
        assert CONVERSIONS.of(type_).refusal == ""
        assert decode_result(encode_result(value, "s"), CONVERSIONS.of(type_), "s") == value
    # It can be read, from an event or another function, and left out of plain data.
    read = CONVERSIONS.of(Excluding).decode(b'{"id": 1, "note": "a"}')
    assert read == Excluding(id=1, note="a")
    assert encode_result(read, "s") == b'{"id":1}'
    known = Conversions(
        [Converter(Excluding, encode=lambda one: [one.id, one.note], decode=lambda pair: pair)]
    )
    assert known.of(list[Excluding]).refusal == ""


class Written(BaseModel):
    """Says itself how its fields are written, and cannot read that."""

    when: datetime
    raw: bytes = b"\xff"
    numbers: Json[list[int]] = []
    price: Annotated[Decimal, PlainSerializer(lambda price: f"{price} EUR")] = Decimal("1.5")

    @field_serializer("when")
    def for_people(self, when: datetime) -> str:
        return when.strftime("%d.%m.%Y")


class WrittenWhole(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int = Field(alias="ID")

    @model_serializer
    def shown(self) -> dict[str, Any]:
        return {"shown": self.id}


class WrittenRoot(RootModel[list[Written]]):
    pass


class WrittenParts(BaseModel):
    parts: dict[str, Written | None]
    whole: WrittenWhole
    link: HttpUrl


WRITTEN = Written.model_validate({"when": NOON, "numbers": "[1, 2]"})


@pytest.mark.parametrize(
    "value",
    [
        WRITTEN,
        WrittenWhole.model_validate({"ID": 3, "more": [1]}),
        WrittenRoot([WRITTEN]),
        WrittenParts(
            parts={"a": WRITTEN, "b": None},
            whole=WrittenWhole(ID=1),
            link=HttpUrl("https://a.test/"),
        ),
    ],
)
def test_a_model_that_writes_itself_for_others_comes_back_all_the_same(value: Any) -> None:
    for type_, one in ((type(value), value), (list[type(value)], [value])):  # type: ignore[misc]
        conversion = CONVERSIONS.of(type_)
        raw = encode_result(one, "s")
        decoded, kept = decode_result(raw, conversion, "s"), None
        if conversion.keeps_choices:
            decoded, kept = choose_types(one, decoded, raw, conversion, "s")
        assert decoded == one
        assert decode_result(raw, conversion, "s", kept) == one
