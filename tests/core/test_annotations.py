"""Results come back in the type that their function declares."""

import enum
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, Generic, LiteralString, NoReturn, Self, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel

from stephttp._core.annotations import conversion_of, decode_arguments
from stephttp._core.conversion import CONVERSIONS, PLAIN
from stephttp._core.encoding import decode_result, encode_result, result_conversion
from stephttp.errors import (
    StepResultError,
)


@dataclass
class Point:
    x: int
    y: float


class Row(TypedDict):
    id: UUID


class Packet(msgspec.Struct):
    payload: bytes


class User(BaseModel):
    name: str
    joined: datetime


class Colour(enum.Enum):
    RED = "red"


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (None, None),
        (1, int),
        ("ä", str),
        ([1, "a", None, {"k": 2.5}], Any),
        (Point(1, 2.5), Point),
        ([Point(1, 2.5)], list[Point]),
        ({"id": UUID(int=7)}, Row),
        (Packet(b"\x00\xff"), Packet),
        (User(name="n", joined=NOON), User),
        ({"u": [User(name="n", joined=NOON)]}, dict[str, list[User]]),
        (Decimal("1.10"), Decimal),
        (NOON, datetime),
        (Colour.RED, Colour),
        (None, User | None),
    ],
)
def test_a_result_comes_back_in_the_shape_of_its_annotation(value: Any, annotation: Any) -> None:
    assert decode_result(encode_result(value, "s"), CONVERSIONS.of(annotation), "s") == value


def test_without_an_annotation_the_shape_is_that_of_json() -> None:
    assert decode_result(encode_result((1, Point(1, 2)), "s"), PLAIN, "s") == [1, {"x": 1, "y": 2}]


def test_a_result_that_has_no_json_form_names_step_and_type() -> None:
    with pytest.raises(StepResultError, match=r"'charge' returned.*builtins\.dict.*_io\.BytesIO"):
        encode_result({"file": __import__("io").BytesIO()}, "charge")


def test_a_result_that_does_not_fit_names_step_and_type() -> None:
    with pytest.raises(StepResultError, match=r"'charge'.*Point"):
        decode_result(b'{"x": "one"}', CONVERSIONS.of(Point), "charge")


def return_annotation(handler: Any) -> Any:
    return result_conversion(handler).annotation


def test_the_annotation_is_found_through_partials_methods_classes_and_strings() -> None:
    class Service:
        def load(self, n: int) -> Point:
            return Point(n, 0)

    def quoted() -> "Point":
        return Point(0, 0)

    def lost() -> "Missing":  # type: ignore[name-defined]  # noqa: F821
        return None

    assert return_annotation(Service().load) is Point
    assert return_annotation(partial(Service().load, 1)) is Point
    assert return_annotation(quoted) is Point
    assert return_annotation(quoted) is Point, "and again, from the cache"
    assert return_annotation(Point) is Point
    assert return_annotation(lost) is Any
    assert return_annotation(lambda: 1) is Any
    assert return_annotation(len) is Any


@pytest.mark.parametrize("annotation", [object(), type("Socket", (), {}), Callable[[], int]])
def test_a_type_without_a_json_form_is_refused(annotation: Any) -> None:
    assert conversion_of(annotation, "s").refusal


class Callable_:
    def __call__(self) -> UUID:
        return UUID(int=1)


def promise() -> Awaitable[list[int]]:
    raise NotImplementedError


def coroutine() -> Coroutine[Any, Any, Decimal]:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("handler", "annotation"),
    [
        (Callable_(), UUID),
        (promise, list[int]),
        (coroutine, Decimal),
        (lru_cache(promise), list[int]),
        (len, Any),
    ],
)
def test_annotations_in_unusual_places(handler: Any, annotation: Any) -> None:
    assert return_annotation(handler) == annotation


class Base:
    def itself(self) -> Self:
        return self

    @classmethod
    def made(cls) -> "Self":
        return cls()

    def both(self) -> "list[Self | None]":
        return [self, None]


@dataclass
class One(Base):
    x: int = 0


@dataclass
class Two(Base):
    y: int = 0


def fails() -> NoReturn:
    raise NotImplementedError


def words() -> LiteralString:
    return "a"


def test_annotations_for_type_checkers_alone() -> None:
    for _ in range(2):
        for cls in (One, Two):
            assert return_annotation(cls().itself) is cls
            assert return_annotation(partial(cls.made)) is cls
            assert return_annotation(cls().both) == list[cls | None]  # type: ignore[valid-type]
        assert return_annotation(fails) is Any
        assert not result_conversion(fails).refusal
        assert return_annotation(words) is str


def test_functions_made_at_one_place_may_say_different_things() -> None:
    def make(type_: Any) -> Any:
        def load() -> Any: ...

        load.__annotations__["return"] = type_
        return load

    for type_ in (None, int, Point, list[int], None, int):
        assert return_annotation(make(type_)) == type_
    assert return_annotation(lambda: 1) is Any


T = TypeVar("T")
K = TypeVar("K")


class Store(Generic[T]):
    def load(self) -> T:
        raise NotImplementedError

    async def both(self, other: T) -> "dict[str, list[T | None]]":
        raise NotImplementedError

    @classmethod
    def first(cls) -> "T":
        raise NotImplementedError


class Cached(Store[K], Generic[K]):
    pass


class Ones(Cached[One]):
    pass


class Named:
    pass


class Mixed(Named, Store[Two]):
    pass


class Other(Store[str], Generic[T]):
    """Its own variable is another than that of its base."""

    def own(self) -> T:
        raise NotImplementedError


def same(one: T) -> T:
    return one


def test_type_variables_of_methods_are_what_they_are_in_the_object() -> None:
    for _ in range(2):  # the second time it is known
        assert return_annotation(Ones().load) is One
        assert return_annotation(Store[Two]().load) is Two
        assert return_annotation(Ones().both) == dict[str, list[One | None]]
        assert return_annotation(Mixed().load) is Two
        assert return_annotation(Ones.first) is One
        assert return_annotation(Store[list[K]]().load) == list[K]  # type: ignore[valid-type]
        assert return_annotation(same) is T
        assert return_annotation(Other[int]().load) is str
        assert return_annotation(Other[int]().own) is int
    assert decode_arguments(b'[{"x": 3}]', Ones().both, "s") == (One(3),)
    assert decode_arguments(b'[{"x": 3}]', same, "s") == ({"x": 3},)
    assert decode_result(b"3", result_conversion(Store().load), "s") == 3
