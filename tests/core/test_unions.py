"""Which types are kept beside a result, where they are found again, and what an edit leaves."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import PosixPath, PurePath
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, RootModel

from stephttp._core.unions import Choice, Key, choices, chosen

DAY, DAY_TEXT = date(2030, 5, 6), "2030-05-06"
NOON = datetime(2030, 5, 6, 12, tzinfo=UTC)
DATE, TEXT, BYTES = "datetime.date", "builtins.str", "builtins.bytes"
TYPES: dict[str, Any] = {DATE: date, TEXT: str, BYTES: bytes, "pathlib.PurePath": PurePath}


@dataclasses.dataclass
class Visit:
    at: Any
    by: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    at: Any


@attrs.frozen
class Stop:
    at: Any
    by: Any = None


class Row(NamedTuple):
    at: Any
    by: Any = None


class Camel(msgspec.Struct, rename="camel", frozen=True):
    the_day: Any
    by_whom: Any = None


class Array(msgspec.Struct, array_like=True):
    at: Any
    by: Any = None


class Model(BaseModel):
    model_config = ConfigDict(frozen=True)
    at: Any
    by: Any = None


class Root(RootModel[Any]):
    pass


MAKERS: list[tuple[Callable[[Any], Any], tuple[Key, ...]]] = [
    (lambda part: part, ()),
    (lambda part: [0, part, 1], (1,)),
    (lambda part: (0, part, 1), (1,)),
    (lambda part: deque([0, part, 1]), (1,)),
    (lambda part: {"a": 0, "k": part, "z": 1}, ("k",)),
    (lambda part: {1: part}, ("1",)),
    (lambda part: Visit(0, part), ("by",)),
    (Visit, ("at",)),
    (Frozen, ("at",)),
    (lambda part: Stop(0, part), ("by",)),
    (lambda part: Row(0, part), (1,)),
    (Row, (0,)),
    (Camel, ("theDay",)),
    (lambda part: Camel(0, part), ("byWhom",)),
    (lambda part: Array(0, part), (1,)),
    (lambda part: Model(at=0, by=part), ("by",)),
    (Root, (None,)),
    (lambda part: Root([Visit(0, {"k": part})]), (None, 0, "by", "k")),
    (lambda part: [[0], [1, {"k": part}]], (1, 1, "k")),
]
PARTS: list[tuple[Any, Any, Choice]] = [
    (DAY, DAY_TEXT, Choice((), DATE)),
    (DAY_TEXT, DAY, Choice((), TEXT)),
    (b"a", b"b", Choice((), BYTES)),
    (PosixPath("a"), "a", Choice((), "pathlib.PurePath")),
    (
        {DAY_TEXT},
        {DAY},
        Choice((), "builtins.set", members=(TEXT,)),
    ),
    (frozenset({DAY}), frozenset({DAY_TEXT}), Choice((), "builtins.frozenset", members=(DATE,))),
    ({7}, {7.0}, Choice((), "builtins.set", members=("builtins.int",))),
    ({PosixPath("a")}, {"a"}, Choice((), "builtins.set", members=("pathlib.PurePath",))),
]
SAME: list[tuple[Any, Any]] = [
    (DAY, DAY),
    (7, 7.5),
    (None, "x"),
    (NOON, DAY),
    (b"a", b"a"),
    ({DAY}, {DAY}),
    ([DAY, "x"], [DAY, "y"]),
]
"""What is of the same type, or of another one that is not among those of the annotation."""


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    DATE: date.fromisoformat, TEXT: str, BYTES: str.encode, "builtins.int": int,
}  # fmt: skip


def convert(name: str, plain: Any) -> Any:
    return CONVERTERS[name](plain)


def text(key: Any) -> str:
    """Return how a key is written that is not a text already."""
    assert type(key) is not str
    return str(key)


def differences(value: Any, decoded: Any, types: dict[str, Any] = TYPES) -> list[Choice]:
    return choices(value, decoded, types, text)


@pytest.mark.parametrize(("make", "path"), MAKERS)
@pytest.mark.parametrize(("value", "decoded", "choice"), PARTS)
def test_a_type_that_json_does_not_tell_is_kept_with_its_place(
    value: Any, decoded: Any, choice: Choice, make: Callable[[Any], Any], path: tuple[Key, ...]
) -> None:
    kept = Choice(path, choice.type, members=choice.members)
    assert differences(make(value), make(decoded)) == [kept]
    assert differences(make(value), make(value)) == []


@pytest.mark.parametrize(("make", "path"), MAKERS)
@pytest.mark.parametrize(("value", "decoded"), SAME)
def test_what_json_tells_is_not_kept(
    value: Any, decoded: Any, make: Callable[[Any], Any], path: tuple[Key, ...]
) -> None:
    assert differences(make(value), make(decoded)) == []


def test_bytes_are_kept_only_where_the_annotation_has_them() -> None:
    assert differences(b"a", b"b", {TEXT: str}) == []
    assert differences({"k": b"a"}, {"k": b"b"}, {TEXT: str}) == []


def test_all_places_are_kept_in_order_with_those_of_keys() -> None:
    value = [DAY_TEXT, {DAY: DAY, "x": [DAY_TEXT]}, (1, DAY)]
    decoded = [DAY, {DAY_TEXT: DAY_TEXT, "x": [DAY]}, (1, DAY_TEXT)]
    assert differences(value, decoded) == [
        Choice((0,), TEXT),
        Choice((1, DAY_TEXT), DATE, is_key=True),
        Choice((1, DAY_TEXT), DATE),
        Choice((1, "x", 0), TEXT),
        Choice((2, 1), DATE),
    ]


def test_keys_of_other_types_than_those_of_the_annotation_are_not_kept() -> None:
    assert differences({7: [DAY]}, {7.0: [DAY_TEXT]}) == [Choice(("7", 0), DATE)]
    assert differences({PosixPath("a"): 1}, {PosixPath("a"): 1}) == []


def test_of_keys_that_are_one_text_nothing_is_kept() -> None:
    assert differences({1: 7, "1": 7}, {"1": 7}, {DATE: date}) == []


PLAIN: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (make, plain)
    for (make, _), plain in zip(
        MAKERS,
        [
            lambda part: part,
            lambda part: [0, part, 1],
            lambda part: [0, part, 1],
            lambda part: [0, part, 1],
            lambda part: {"a": 0, "k": part, "z": 1},
            lambda part: {"1": part},
            lambda part: {"at": 0, "by": part},
            lambda part: {"at": part, "by": None},
            lambda part: {"at": part},
            lambda part: {"at": 0, "by": part},
            lambda part: [0, part],
            lambda part: [part, None],
            lambda part: {"theDay": part, "byWhom": None},
            lambda part: {"theDay": 0, "byWhom": part},
            lambda part: [0, part],
            lambda part: {"at": 0, "by": part},
            lambda part: part,
            lambda part: [{"at": 0, "by": {"k": part}}],
            lambda part: [[0], [1, {"k": part}]],
        ],
        strict=True,
    )
]


def put(decoded: Any, plain: Any, *kept: Choice) -> Any:
    return chosen(decoded, plain, kept, convert, convert, text)


@pytest.mark.parametrize(
    ("make", "plain", "path"),
    [(make, plain, path) for (make, plain), (_, path) in zip(PLAIN, MAKERS, strict=True)],
)
def test_what_was_kept_is_made_again_at_its_place(
    make: Callable[[Any], Any], plain: Callable[[Any], Any], path: tuple[Key, ...]
) -> None:
    for part, choice, json in (
        (DAY, Choice(path, DATE), DAY_TEXT),
        (DAY_TEXT, Choice(path, TEXT), DAY_TEXT),
        (b"a", Choice(path, BYTES), "a"),
        ({DAY, "x"}, Choice(path, "builtins.set", members=(DATE, TEXT)), [DAY_TEXT, "x"]),
        (frozenset({1}), Choice(path, "builtins.frozenset", members=("builtins.int",)), [1]),
    ):
        found = put(make("decoded"), plain(json), choice)
        assert found == make(part)
        assert type(found) is type(make(part))


def test_a_key_is_made_again_in_its_place() -> None:
    decoded = {"a": 1, DAY_TEXT: 2, "z": 3}
    kept = Choice((DAY_TEXT,), DATE, is_key=True)
    found = put(decoded, dict(decoded), kept)
    assert list(found.items()) == [("a", 1), (DAY, 2), ("z", 3)]
    assert found is decoded
    nested = [0, Root(Visit(0, {"k": {DAY_TEXT: DAY_TEXT}}))]
    plain = [0, {"at": 0, "by": {"k": {DAY_TEXT: DAY_TEXT}}}]
    path = (1, None, "by", "k", DAY_TEXT)
    found = put(nested, plain, Choice(path, DATE, is_key=True), Choice(path, DATE))
    assert found == [0, Root(Visit(0, {"k": {DAY: DAY}}))]


def test_keys_are_found_as_they_were_written_or_else_as_they_are_written_now() -> None:
    day, key = Choice(("k", "7"), DATE), Choice(("k", "7", DAY_TEXT), DATE, is_key=True)
    plain = {"k": {"7": DAY_TEXT}}
    assert put({"k": {7.0: DAY_TEXT}}, plain, day) == {"k": {7.0: DAY}}
    plain_keys = {"k": {"7": {DAY_TEXT: 1}}}
    assert put({"k": {7.0: {DAY_TEXT: 1}}}, plain_keys, key) == {"k": {7.0: {DAY: 1}}}
    edited: Any = {"k": {"7": DAY_TEXT, "8": DAY_TEXT}}
    assert put({"k": {7: DAY_TEXT}}, edited, day) == {"k": {7: DAY}}
    edited = {"k": {"7": {DAY_TEXT: 1}, "8": 1}}
    assert put({"k": {7: {DAY_TEXT: 1}}}, edited, key) == {"k": {7: {DAY: 1}}}


def test_a_path_of_an_earlier_version_leads_through_root_models_without_a_key() -> None:
    decoded = Root([{DAY_TEXT: DAY_TEXT}])
    path = (0, DAY_TEXT)
    kept = Choice(path, DATE, is_key=True), Choice(path, DATE)
    assert put(decoded, [{DAY_TEXT: DAY_TEXT}], *kept) == Root([{DAY: DAY}])


@pytest.mark.parametrize(
    "choice",
    [
        Choice(("gone",), DATE),
        Choice(("k", "gone"), DATE),
        Choice(("k",), DATE),
        Choice(("k",), "no.such.Type"),
        Choice(("gone",), DATE, is_key=True),
        Choice(("k",), DATE, is_key=True),
        Choice(("k", 0), DATE, is_key=True),
        Choice(("l", 0), DATE, is_key=True),
        Choice(("k",), "builtins.set", members=(DATE,)),
        Choice(("l",), "builtins.set", members=(DATE, DATE)),
        Choice((), DATE),
        Choice((), DATE, is_key=True),
    ],
)
def test_what_does_not_fit_an_edited_result_stays_as_it_was_decoded(choice: Choice) -> None:
    plain: Any = {"k": "some day", "l": [DAY_TEXT], "d": DAY_TEXT}
    decoded = {"k": "some day", "l": [DAY_TEXT], "d": DAY_TEXT}
    assert put(decoded, plain, choice, Choice(("d",), DATE)) == {
        "k": "some day", "l": [DAY_TEXT], "d": DAY
    }  # fmt: skip


def test_a_mapping_with_another_number_of_keys_is_read_by_its_own() -> None:
    # Of keys that were one text in JSON, one is left.
    decoded = {"a": DAY_TEXT, "b": DAY_TEXT}
    plain = {"b": DAY_TEXT, "a": DAY_TEXT, "c": 1}
    assert put(decoded, plain, Choice(("b",), DATE)) == {"a": DAY_TEXT, "b": DAY}
    same = {"x": DAY_TEXT, "y": "y"}
    assert put(same, {"b": DAY_TEXT, "c": "y"}, Choice(("b",), DATE)) == {"x": DAY, "y": "y"}
