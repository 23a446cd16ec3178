"""Annotations that are text, as all are with `from __future__ import annotations`: they mean what
they say where they are written, and names that do not exist are one warning."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, make_dataclass
from decimal import Decimal
from functools import partial, wraps
from types import ModuleType
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import attrs
import msgspec
import pytest

from stephttp._core import annotations as text_annotations
from stephttp._core.annotations import conversion_of, decode_arguments
from stephttp._core.conversion import PLAIN
from stephttp._core.encoding import result_conversion
from stephttp.errors import StepResultError

T = TypeVar("T")
HALF = Decimal("0.5")


def pay(amount: Decimal, *more: Decimal, note: str = "") -> Decimal: ...  # type: ignore[empty-body]


class Till:
    def __init__(self, amount: Decimal, *more: Decimal) -> None: ...

    def pay(self, amount: Decimal, *more: Decimal) -> Decimal: ...  # type: ignore[empty-body]

    def __call__(self, amount: Decimal, *more: Decimal) -> Decimal: ...  # type: ignore[empty-body]


class Made:
    def __new__(cls, amount: Decimal, *more: Decimal) -> Made: ...  # type: ignore[empty-body]


class Inheriting(Till):
    own: int = 0


@dataclass
class Payment:
    amount: Decimal
    more: Decimal = HALF


@dataclass
class Refund(Payment):
    why: Literal["late"] = "late"


@attrs.define
class Bill:
    amount: Decimal
    more: Decimal = HALF


class Row(NamedTuple):
    amount: Decimal
    more: Decimal = HALF


class Packet(msgspec.Struct):
    amount: Decimal
    more: Decimal = HALF


@wraps(pay)
def wrapped(*args: Any) -> Any: ...


@pytest.mark.parametrize(
    "taker",
    [
        pay, partial(partial(pay, note="a")), wrapped, Till, Till(HALF), Till(HALF).pay, Made,
        Inheriting, Payment, Refund, Bill, Row, Packet,
    ],
)  # fmt: skip
def test_edited_arguments_are_what_their_taker_declares(taker: Callable[..., Any]) -> None:
    assert decode_arguments(b'["0.5","2.50"]', taker, "s") == (HALF, Decimal("2.50"))


def test_further_arguments_have_the_type_of_all_further_ones() -> None:
    many = decode_arguments(b'["1","2","3","4"]', pay, "s")
    assert many == tuple(map(Decimal, "1234"))


def test_arguments_without_a_type_are_plain() -> None:
    def takes(one, two: T, three: T | None = None) -> Any:  # type: ignore[no-untyped-def]
        ...

    takes.__annotations__.update(two=T, three=T | None)
    assert decode_arguments(b'["1",{"a":[2]},3]', takes, "s") == ("1", {"a": [2]}, 3)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'["x"]', ""),
        (b'["1",[]]', ""),
        (b"{}", ""),
        (b'["1","2","3"]', "too many positional arguments"),
    ],
)
def test_arguments_that_do_not_fit_name_the_step(raw: bytes, why: str) -> None:
    message = f"^the edited input of step 's' does not fit its function: .*{why}"
    with pytest.raises(StepResultError, match=message):
        decode_arguments(raw, Payment, "s")


@pytest.mark.parametrize("raw", [b"[]", b'["0.5"]'])
def test_arguments_may_be_fewer_than_their_taker_declares(raw: bytes) -> None:
    assert decode_arguments(raw, Payment, "s") == (HALF,) * raw.count(b"0.5")


def test_a_field_means_what_its_name_is_in_the_module_of_its_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = ModuleType("elsewhere")
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    source = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from uuid import UUID as Decimal\n"
        "@dataclass\nclass Base:\n    key: Decimal\n"
        "class Plain:\n    def __init__(self, key: Decimal) -> None: ...\n"
    )
    exec(source, vars(elsewhere))
    made = make_dataclass("Made", [("amount", "Decimal")], bases=(elsewhere.Base,))
    made.__module__ = __name__
    text = "12345678-1234-5678-1234-567812345678"
    key, amount = decode_arguments(f'["{text}","0.5"]'.encode(), made, "s")
    assert (str(key), type(key).__name__, amount) == (text, "UUID", HALF)
    (key,) = decode_arguments(f'["{text}"]'.encode(), type("Own", (elsewhere.Plain,), {}), "s")
    assert type(key).__name__ == "UUID"


@pytest.mark.parametrize(
    ("annotation", "meaning"),
    [
        ("Decimal", Decimal),
        ("None", type(None)),
        ("dict[str, list[Decimal]]", dict[str, list[Decimal]]),
        (list["Decimal"], list[Decimal]),
        (dict[str, "list[Decimal] | None"], dict[str, list[Decimal] | None]),
        ("Annotated[int, msgspec.Meta(ge=1)]", Annotated[int, msgspec.Meta(ge=1)]),
        (Annotated["list[int]", "a note"], Annotated[list[int], "a note"]),
        (Annotated[int, "a note"], Annotated[int, "a note"]),
        (Literal["Decimal"], Literal["Decimal"]),
        ("Mapping[str, Payment]", Mapping[str, Payment]),
    ],
)
def test_text_is_what_it_says(annotation: Any, meaning: Any) -> None:
    def load() -> Any: ...

    load.__annotations__["return"] = annotation
    assert result_conversion(load).annotation == meaning


@pytest.fixture
def warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[], list[Any]]:
    """What was warned of since the last look: whose annotation, and what does not exist."""
    monkeypatch.setattr(text_annotations, "_warned", set())

    def look() -> list[Any]:
        found = [record.args for record in caplog.records if record.levelno == logging.WARNING]
        caplog.clear()
        return found

    return look


@dataclass
class Broken:
    part: Missing  # type: ignore[name-defined]  # noqa: F821


class Owner(Generic[T]):
    def lost(self) -> Missing: ...  # type: ignore[name-defined]  # noqa: F821

    def broken(self) -> Broken: ...  # type: ignore[empty-body]

    def odd(self) -> Any: ...

    def takes(self, one: Missing, two: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821


Owner.odd.__annotations__["return"] = "1 / 0"


def test_a_name_that_does_not_exist_is_one_warning_of_whose_annotation_it_is(
    warned: Callable[[], list[Any]],
) -> None:
    owner: Owner[int] = Owner()
    for handler, name in (
        (owner.lost, "'Missing'"),
        (owner.broken, "'Missing' in Broken"),
        (owner.odd, "'1 / 0'"),
    ):
        for expected in ([(handler.__qualname__, name)], []):
            conversion = result_conversion(handler)
            assert (conversion.annotation, conversion.decode(b"[1]")) == (Any, [1])
            assert not conversion.refusal
            assert warned() == expected
    for expected in ([("Owner.takes", "'Missing'")], []):
        assert decode_arguments(b'["1",2]', owner.takes, "s") == ("1", 2)
        assert warned() == expected
    assert conversion_of(list[Broken], "the output of step 's'").decode(b"[1]") == [1]
    assert warned() == [("the output of step 's'", "'Missing' in Broken")]
    assert conversion_of(list[int], "x").decode(b"[1]") == [1]
    assert result_conversion(Broken).decode(b"{}") == {}
    assert warned() == [("Broken", "'Missing' in Broken")]


def test_a_process_that_makes_functions_is_not_warned_of_each(
    warned: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_annotations, "_MOST_WARNED", 2)
    for number in range(4):
        assert conversion_of(Broken, f"s{number}").annotation is PLAIN.annotation
    assert [what for what, _ in warned()] == ["s0", "s1"]
