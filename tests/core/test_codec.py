import enum
import pickle
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel

from stephttp._core import codec
from stephttp._core.codec import (
    decode_result,
    encode_result,
    error_info,
    return_annotation,
    step_error,
)
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import (
    APIStatusError,
    NonRetriableError,
    RetryAfterError,
    StepError,
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
    assert decode_result(encode_result(value, "s"), annotation, "s") == value


def test_without_an_annotation_the_shape_is_that_of_json() -> None:
    assert decode_result(encode_result((1, Point(1, 2)), "s"), Any, "s") == [1, {"x": 1, "y": 2.0}]


def test_a_result_that_has_no_json_form_names_step_and_type() -> None:
    with pytest.raises(StepResultError, match=r"'charge' returned.*builtins\.dict.*_io\.BytesIO"):
        encode_result({"file": __import__("io").BytesIO()}, "charge")


def test_a_result_that_does_not_fit_names_step_and_type() -> None:
    with pytest.raises(StepResultError, match=r"'charge'.*Point"):
        decode_result(b'{"x": "one"}', Point, "charge")


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


def test_a_type_without_a_json_form_is_treated_as_none_given() -> None:
    def handler() -> list[int] | set[str]:
        return []

    assert return_annotation(handler) is Any


def test_an_error_keeps_name_message_and_stack() -> None:
    try:
        raise KeyError("id")
    except KeyError as error:
        info = error_info(error)
    assert (info.name, info.message) == ("KeyError", "'id'")
    assert info.stack is not None
    assert "test_codec.py" in info.stack
    assert info.no_retry is msgspec.UNSET
    assert error_info(NonRetriableError("no")).no_retry is True


def test_a_remembered_error_becomes_a_step_error() -> None:
    info = error_info(ValueError("bad"))
    info.data = msgspec.Raw(b'{"code": 7}')
    error = step_error(info)
    assert (error.name, error.message, error.data) == ("ValueError", "bad", {"code": 7})
    assert str(error) == "ValueError: bad"


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
    assert codec.return_annotation(handler) == annotation


def failure() -> Exception:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise StepError("outer", "CardError", data={"code": 7}) from inner
    except StepError as error:
        return error


def test_an_error_keeps_name_data_and_causes_and_can_be_pickled() -> None:
    error = codec.step_error(codec.error_info(failure()))
    for copy in (error, pickle.loads(pickle.dumps(error))):
        assert (copy.name, copy.message, copy.data) == ("CardError", "outer", {"code": 7})
        assert "KeyError: 'inner'" in str(copy.stack)
        assert isinstance(copy.cause, StepError)
        assert (copy.cause.name, copy.cause.message) == ("KeyError", "'inner'")
        assert copy.__cause__ is copy.cause
        assert str(copy) == "CardError: outer"


def test_causes_do_not_go_on_for_ever() -> None:
    error: Exception = ValueError("0")
    for n in range(1, 100):
        outer = ValueError(str(n))
        outer.__cause__ = error
        error = outer
    cause = codec.step_error(codec.error_info(error)).cause
    depth = 0
    while cause is not None:
        cause, depth = cause.cause, depth + 1
    assert depth == 8


@pytest.mark.parametrize(
    ("raw", "message"), [(b'"text"', "text"), (b"null", None), (b'{"message":"m"}', "m")]
)
def test_causes_of_other_sdks(raw: bytes, message: str | None) -> None:
    cause = codec.step_error(ErrorInfo("E", "m", cause=msgspec.Raw(raw))).cause
    assert (cause.message if cause else None) == message


NOW_NS = 1_767_225_600_000_000_000  # 2026-01-01


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (90, "2026-01-01T00:01:30.000Z"),
        (0.25, "2026-01-01T00:00:00.250Z"),
        (timedelta(hours=2), "2026-01-01T02:00:00.000Z"),
        (timedelta.max, "2027-01-02T00:00:00.000Z"),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))), "2026-03-01T10:00:00.000Z"),
    ],
)
def test_when_to_try_again(wish: Any, text: str) -> None:
    error = RetryAfterError("busy", wish)
    assert codec.retry_after(error, NOW_NS) == text
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), codec.retry_after(again, NOW_NS)) == ("busy", text)


def test_when_to_try_again_needs_a_time_zone() -> None:
    assert codec.retry_after(ValueError(), NOW_NS) is None
    with pytest.raises(ValueError, match="time zone"):
        RetryAfterError("busy", datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (NonRetriableError("x"), True),
        (APIStatusError("x", 400), True),
        (APIStatusError("x", 429), None),
        (APIStatusError("x", 503), None),
        (RetryAfterError("x", 1), None),
    ],
)
def test_what_is_not_to_be_tried_again(error: Exception, final: bool | None) -> None:
    info = codec.error_info(error)
    assert (None if info.no_retry is msgspec.UNSET else info.no_retry) is final


def test_functions_made_at_one_place_may_say_different_things() -> None:
    def make(type_: Any) -> Any:
        def load() -> Any: ...

        load.__annotations__["return"] = type_
        return load

    for type_ in (None, int, Point, list[int], None, int):
        assert return_annotation(make(type_)) == type_
    assert return_annotation(lambda: 1) is Any
