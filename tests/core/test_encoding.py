"""Values of the user's as JSON: exactly which, how large they may be, and what errors say."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from stephttp._core.conversion import CONVERSIONS, PLAIN, Conversions, Converter
from stephttp._core.encoding import (
    MAX_INPUT_BYTES,
    MAX_RESULT_BYTES,
    choose_types,
    decode_plain,
    decode_result,
    encode_argument,
    encode_finite,
    encode_input,
    encode_result,
    encode_value,
    refuse_result,
    result_conversion,
)
from stephttp.errors import StepResultError

NAN, INFINITY = float("nan"), float("inf")


@dataclass
class Measure:
    at: date
    value: float | None


PLAIN_VALUES: list[tuple[Any, bytes]] = [
    (None, b"null"),
    ([None, "null", 1.5, True], b'[null,"null",1.5,true]'),
    ({"a": None, "b": [{"c": None}]}, b'{"a":null,"b":[{"c":null}]}'),
    ((1, (None,)), b"[1,[null]]"),
    (Measure(date(2030, 5, 6), None), b'{"at":"2030-05-06","value":null}'),
    ("nan", b'"nan"'),
]
NOT_JSON: list[tuple[Any, str]] = [
    (NAN, "nan is not JSON"),
    (-INFINITY, "-inf is not JSON"),
    ([1, [None, INFINITY]], "inf is not JSON"),
    ((None, NAN), "nan is not JSON"),
    ({"a": {"b": (1, NAN)}}, "nan is not JSON"),
    (Measure(date(2030, 5, 6), NAN), "nan is not JSON"),
    ({"a": [Measure(date(2030, 5, 6), INFINITY)]}, "inf is not JSON"),
    (object(), "object"),
]


@pytest.mark.parametrize(("value", "text"), PLAIN_VALUES)
def test_a_value_is_written_as_plainly_as_can_be(value: Any, text: bytes) -> None:
    assert encode_result(value, "s") == encode_finite(value) == text
    assert encode_argument(value, "s", "data") == encode_value(value, "data", None) == text
    assert encode_input((value, 1)) == Raw(b"[" + text + b",1]")


@pytest.mark.parametrize(("value", "why"), NOT_JSON)
def test_what_has_no_json_form_is_refused_with_its_reason(value: Any, why: str) -> None:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    message = f"^step 's' returned a value of type {re.escape(kind)}, which cannot .*{why}"
    with pytest.raises(StepResultError, match=message) as result:
        encode_result(value, "s")
    assert result.value.__cause__ is not None
    with pytest.raises(ValueError, match=f"^step 's': data cannot be sent as JSON .*{why}"):
        encode_argument(value, "s", "data")
    with pytest.raises(ValueError, match=f"^what cannot be sent as JSON .*{why}"):
        encode_value(value, "what", None)
    with pytest.raises((ValueError, TypeError), match=why):
        encode_finite(value)


def of_size(size: int) -> str:
    """A text whose JSON has that many bytes."""
    return "x" * (size - 2)


def test_how_large_a_result_may_be() -> None:
    assert MAX_RESULT_BYTES == 3_968 * 1024
    assert len(encode_result(of_size(MAX_RESULT_BYTES), "s")) == MAX_RESULT_BYTES
    with pytest.raises(
        StepResultError,
        match=r"^step 's' returned a value of type builtins.str of 4063233 bytes as JSON; at most",
    ):
        encode_result(of_size(MAX_RESULT_BYTES + 1), "s")
    assert len(encode_finite(of_size(MAX_RESULT_BYTES + 1))) == MAX_RESULT_BYTES + 1


def test_how_large_what_is_sent_may_be() -> None:
    assert encode_value(of_size(9), "what", 9) == b'"xxxxxxx"'
    assert encode_argument(of_size(9), "s", "data", 9) == b'"xxxxxxx"'
    with pytest.raises(ValueError, match=r"^what has 10 bytes as JSON; at most 9 can be sent"):
        encode_value(of_size(10), "what", 9)
    with pytest.raises(ValueError, match=r"^step 's': data has 10 bytes as JSON; at most 9 can"):
        encode_argument(of_size(10), "s", "data", 9)
    assert len(encode_argument(of_size(MAX_RESULT_BYTES), "s", "data")) == MAX_RESULT_BYTES
    with pytest.raises(ValueError, match=r"^step 's': data has 4063233 bytes"):
        encode_argument(of_size(MAX_RESULT_BYTES + 1), "s", "data")
    over = MAX_RESULT_BYTES + 1
    assert len(encode_argument(of_size(over), "s", "data", None)) == over


def test_an_input_is_left_out_that_is_too_large_or_no_json() -> None:
    assert encode_input(()) == Raw(b"[]")
    largest = of_size(MAX_INPUT_BYTES - 2)
    assert encode_input((largest,)) == Raw(b'["' + largest[:].encode() + b'"]')
    assert encode_input((largest + "x",)) is None
    assert encode_input((1, object())) is None


def test_plain_values() -> None:
    assert decode_plain(b'{"a":[1,2.5,null,true,"x"]}') == {"a": [1, 2.5, None, True, "x"]}
    assert decode_plain(Raw(b"7")) == 7


def test_a_result_that_could_not_be_stored_is_refused_by_step_and_type() -> None:
    with pytest.raises(
        StepResultError,
        match=r"^the result of step 's': collections\.abc\.Callable, collections\.abc\.Iterator ",
    ):
        refuse_result(Conversions().of(dict[str, Iterator[int] | Callable[[], int]]), "s")


class Cents:
    def __init__(self, count: int) -> None:
        self.count = count

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cents) and other.count == self.count

    def __repr__(self) -> str:
        return f"Cents({self.count})"

    __hash__ = None  # type: ignore[assignment]


class Level(IntEnum):
    LOW = 1


@dataclass
class Bill:
    paid: bool
    count: int
    total: Cents


CONVERSIONS.register([Converter(Cents, lambda cents: cents.count, Cents)])


@pytest.mark.parametrize(
    ("type_", "value", "read"),
    [
        (int, True, 1),
        (list[int], [False, 2], [0, 2]),
        (dict[Level, int], {Level.LOW: True}, {Level.LOW: 1}),
        (dict[int, list[int]], {1: [True]}, {1: [1]}),
        (Bill, Bill(True, True, Cents(3)), Bill(True, 1, Cents(3))),
    ],
)
def test_a_truth_value_is_a_number_where_one_is_declared(type_: Any, value: Any, read: Any) -> None:
    found = decode_result(encode_result(value, "s"), CONVERSIONS.of(type_), "s")
    assert found == read
    assert repr(found) == repr(read), "no truth value is left in the place of a number"


@pytest.mark.parametrize(
    ("type_", "raw", "why"),
    [
        (int, b'"x"', "Expected `int`, got `str`"),
        (str, b"true", "Expected `str`, got `bool`"),
        (dict[str, int], b'{"a":true,"b":[]}', "Expected `int`, got `bool` - at `$[...]`"),
    ],
)
def test_what_does_not_fit_is_an_error_with_the_first_reason(
    type_: Any, raw: bytes, why: str
) -> None:
    shown = re.escape(f"its declared type {type_!r}: {why}")
    with pytest.raises(StepResultError, match=f"^the result of step 's' does not fit {shown}$"):
        decode_result(raw, CONVERSIONS.of(type_), "s")
    given = "^step 's' returned a value of type builtins.complex, which does not fit"
    with pytest.raises(StepResultError, match=f"{given} {shown}; return a value of that type"):
        decode_result(raw, CONVERSIONS.of(type_), "s", None, 1j)


def test_what_is_kept_beside_a_result_says_which_member_it_was() -> None:
    conversion = CONVERSIONS.of(date | str)
    raw = encode_result("2030-05-06", "s")
    decoded = decode_result(raw, conversion, "s")
    assert decoded == date(2030, 5, 6)
    assert choose_types(date(2030, 5, 6), decoded, raw, conversion, "s") == (decoded, None)
    chosen, kept = choose_types("2030-05-06", decoded, raw, conversion, "s")
    assert (chosen, kept) == ("2030-05-06", b'[[[],"builtins.str",false,[]]]')
    assert decode_result(raw, conversion, "s", kept) == "2030-05-06"
    assert decode_result(raw, conversion, "s", b'{"version":2}') == decoded


def test_a_set_is_chosen_member_by_member() -> None:
    conversion = CONVERSIONS.of(set[date | str])
    value = {"2030-05-06"}
    raw = encode_result(value, "s")
    decoded = decode_result(raw, conversion, "s")
    chosen, kept = choose_types(value, decoded, raw, conversion, "s")
    assert chosen == value
    assert decode_result(raw, conversion, "s", kept) == value
    unclear = CONVERSIONS.of(set[tuple[date | str, int]])
    one = {("2030-05-06", 1)}
    raw = encode_result(one, "s")
    with pytest.raises(StepResultError, match=r"^step 's' returned a value of type builtins.set "):
        choose_types(one, decode_result(raw, unclear, "s"), raw, unclear, "s")


def test_functions_without_an_annotation_are_plain() -> None:
    def load():  # type: ignore[no-untyped-def]
        ...

    assert result_conversion(load) is result_conversion(len) is PLAIN
    assert result_conversion(Measure) is CONVERSIONS.of(Measure)
    assert result_conversion(msgspec.json.decode) is PLAIN
