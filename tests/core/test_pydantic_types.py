"""What pydantic is asked: how results of its types are read and written, and what it refuses."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    SecretStr,
    ValidationError,
    computed_field,
    field_serializer,
    model_serializer,
)
from pydantic.alias_generators import to_camel

from stephttp._core.conversion import Converter
from stephttp._core.pydantic_types import (
    Unconvertible,
    decoder,
    dump,
    reader,
    refuse_arbitrary,
)
from stephttp._core.reach import reach

T = TypeVar("T")
DAY, DAY_TEXT = date(2030, 5, 6), "2030-05-06"
HOOK = "__get_pydantic_core_schema__"


class Paid(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False)
    paid_on: date


class Shape:
    """Known neither to msgspec nor to pydantic."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and other.name == self.name

    __hash__ = None  # type: ignore[assignment]


class Slug(str):
    __slots__ = ()


@dataclass
class Drawing:
    shape: Shape
    slug: Slug
    paid: Paid | None = None


def shape(name: Any) -> Shape:
    if not isinstance(name, str):
        raise RuntimeError(f"{name} names no shape")
    return Shape(name)


SHAPE = Converter(Shape, lambda one: one.name, shape)


def read(annotation: Any, json: bytes, converters: dict[Any, Any] | None = None) -> Any:
    return decoder(annotation, converters or {}, reach(annotation).types)(json)


class TestDecoder:
    def test_fields_are_read_by_their_names_and_not_by_aliases(self) -> None:
        assert read(Paid, b'{"paid_on":"2030-05-06"}') == Paid.model_construct(paid_on=DAY)
        with pytest.raises(ValidationError):
            read(Paid, b'{"paidOn":"2030-05-06"}')

    def test_a_converter_reads_a_class_wherever_it_is(self) -> None:
        converters = {Shape: SHAPE}
        assert read(Shape, b'"round"', converters) == Shape("round")
        assert read(list[Shape | int], b'["round",1]', converters) == [Shape("round"), 1]
        drawn = read(Drawing, b'{"shape":"round","slug":"a"}', converters)
        assert drawn == Drawing(Shape("round"), Slug("a"))
        assert type(drawn.slug) is Slug

    @pytest.mark.parametrize("annotation", [Shape | int, list[Shape | int], dict[str, Shape | int]])
    def test_what_a_converter_refuses_is_of_another_member(self, annotation: Any) -> None:
        json = {Shape | int: b"1", list[Shape | int]: b"[1]"}.get(annotation, b'{"a":1}')
        wanted = {Shape | int: 1, list[Shape | int]: [1]}.get(annotation, {"a": 1})
        assert read(annotation, json, {Shape: SHAPE}) == wanted

    def test_what_it_says_is_the_reason(self) -> None:
        with pytest.raises(ValidationError, match="7 names no shape"):
            read(Shape, b"7", {Shape: SHAPE})
        with pytest.raises(ValidationError, match="7 names no shape"):
            read(Drawing, b'{"shape":7,"slug":"a"}', {Shape: SHAPE})

    def test_nothing_of_that_stays_with_the_classes(self) -> None:
        read(Drawing, b'{"shape":"round","slug":"a"}', {Shape: SHAPE})
        with pytest.raises(Unconvertible):
            read(Drawing, b"{}")
        assert not any(hasattr(cls, HOOK) for cls in (Shape, Slug, Drawing))

    def test_what_is_not_known_is_named_with_the_reason(self) -> None:
        for annotation, name in ((Shape, "Shape"), (list[Shape], f"list[{__name__}.Shape]")):
            with pytest.raises(Unconvertible) as raised:
                read(annotation, b"1")
            text = str(raised.value)
            assert text.startswith(f"{name} is known neither to msgspec nor to pydantic (Unable to")
            assert text.endswith("); give stephttp.setup a Converter for it")
            assert "\n" not in text

    def test_without_pydantic_a_converter_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pydantic", None)
        with pytest.raises(Unconvertible) as raised:
            decoder(Shape, {}, {})
        assert str(raised.value) == (
            "Shape is not known to msgspec, and pydantic is not installed; give stephttp.setup a "
            "Converter for it"
        )
        with pytest.raises(TypeError, match=r"^JSON cannot be read as Shape$"):
            reader(Shape)


def test_json_of_others_is_read_by_aliases() -> None:
    assert reader(list[Paid])(b'[{"paidOn":"2030-05-06"}]') == [
        Paid.model_validate({"paidOn": DAY})
    ]
    with pytest.raises(TypeError, match=r"^JSON cannot be read as Shape$"):
        reader(Shape)


def test_classes_that_pydantic_cannot_make_are_refused() -> None:
    refuse_arbitrary([date, Paid, dict[str, int]])
    for classes in ([Shape], [date, Shape], [Shape, date]):
        with pytest.raises(Unconvertible) as raised:
            refuse_arbitrary(classes)
        assert str(raised.value) == (
            "pydantic does not know Shape, and cannot make one of JSON; give the field a "
            "PlainSerializer and a BeforeValidator, or use another type"
        )


class Secretive(BaseModel):
    key: SecretStr


class Price(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="allow")
    net_sum: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> int:
        return self.net_sum * 2


class Blob(BaseModel):
    raw: bytes
    at: date


class ForPeople(BaseModel):
    """Says itself how one field is written, and cannot read that."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel)
    paid_on: date
    limit: Annotated[Decimal, Field(gt=0), PlainSerializer(lambda one: f"{one} EUR")] = Decimal(1)
    inner: Blob | None = None
    hidden: int = Field(default=7, exclude=True)

    @field_serializer("paid_on")
    def _shown(self, value: date) -> str:
        return value.strftime("%d.%m.")


class Whole(BaseModel):
    paid_on: Annotated[date, AfterValidator(lambda day: day)]

    @model_serializer
    def _shown(self) -> str:
        return "whole"


class OfWhole(BaseModel):
    whole: Whole
    many: dict[str, Whole]
    at: date


class Roots(RootModel[list[Whole]]):
    pass


class Drawn(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    shape: Annotated[Shape, PlainSerializer(lambda one: one.name), BeforeValidator(lambda one: one)]
    other: int = Field(alias="another", default=1)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Paid.model_validate({"paidOn": DAY}), {"paid_on": DAY_TEXT}),
        (Price(netSum=1, more=2), {"net_sum": 1, "more": 2}),  # type: ignore[call-arg]
        (Blob(raw=b"ab", at=DAY), {"raw": "ab", "at": DAY_TEXT}),
        (Blob(raw=b"\xff", at=DAY), {"raw": b"\xff", "at": DAY}),
        (
            ForPeople(paidOn=DAY, inner=Blob(raw=b"a", at=DAY), more=[1]),  # type: ignore[call-arg]
            {
                "paid_on": DAY,
                "limit": Decimal(1),
                "inner": {"raw": "a", "at": DAY_TEXT},
                "more": [1],
            },
        ),
        (Whole(paid_on=DAY), {"paid_on": DAY}),
        (
            OfWhole(whole=Whole(paid_on=DAY), many={"a": Whole(paid_on=DAY)}, at=DAY),
            {"whole": Whole(paid_on=DAY), "many": {"a": Whole(paid_on=DAY)}, "at": DAY_TEXT},
        ),
        (Roots([Whole(paid_on=DAY)]), [Whole(paid_on=DAY)]),
        (Drawn(shape=Shape("round")), {"shape": "round", "other": 1}),
    ],
)
def test_a_value_is_written_by_names_as_it_can_be_read(value: Any, plain: Any) -> None:
    found = dump(value)
    assert found == plain
    assert repr(found) == repr(plain)


def test_a_secret_is_not_written() -> None:
    with pytest.raises(TypeError, match=r"^SecretStr in Secretive\.key hides its value from JSON$"):
        dump(Secretive(key=SecretStr("k")))


class Boxed(BaseModel, Generic[T]):
    item: T


def test_generic_models_are_written_by_what_they_hold() -> None:
    assert dump(Boxed[date](item=DAY)) == {"item": DAY_TEXT}
    assert read(Boxed[date], b'{"item":"2030-05-06"}') == Boxed[date](item=DAY)
