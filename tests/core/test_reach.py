"""Which types an annotation leads to, and what is known of them before anything relies on it."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict, UserDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import pytest
from pydantic import (
    BaseModel,
)
from typing_extensions import TypeAliasType
from typing_extensions import TypedDict as ExtendedTypedDict

from stephttp._core.reach import (
    arguments_of,
    fields_of,
    filled,
    is_made_of_plain,
    name_of,
    reach,
    with_parts,
)
from tests.core.classes import Model, Packed, Pair, Stop

T = TypeVar("T")
U = TypeVar("U")
OneOf = TypeVar("OneOf", UUID, Decimal)
Bound = TypeVar("Bound", bound=UUID)
OrderId = NewType("OrderId", UUID)
OLD_UNION: Any = Union[UUID, str]  # noqa: UP007
OLD_OPTION: Any = Optional[int]  # noqa: UP045
Alias = TypeAliasType("Alias", list[UUID])


@dataclass
class Leaf:
    id: UUID


@dataclass
class Node:
    leaf: Leaf
    further: list[Node]


class Keyed(TypedDict):
    id: UUID


class Extended(ExtendedTypedDict):
    id: UUID


@dataclass
class Noted:
    note: Annotated[int, "text"] = 0


class NoFields:
    id: UUID


def names(annotation: Any) -> set[str]:
    """Return the names of the classes of an annotation, without module and the usual ones."""
    found = reach(annotation).types
    assert all(name == name_of(cls if isinstance(cls, type) else cls.__origin__)
               for name, cls in found.items())  # fmt: skip
    return {name.rpartition(".")[2] for name in found}


@pytest.mark.parametrize(
    ("annotation", "classes"),
    [
        (int, {"int"}),
        (None, set()),
        (list[UUID], {"list", "UUID"}),
        (dict[str, deque[UUID]], {"dict", "str", "deque", "UUID"}),
        (Mapping[str, Sequence[UUID]], {"Mapping", "str", "Sequence", "UUID"}),
        (Annotated[UUID, "note"], {"UUID"}),
        (UUID | None, {"UUID", "NoneType"}),
        (UUID | str, {"UUID", "str"}),
        (OLD_UNION, {"UUID", "str"}),
        (Literal["a", 1], {"str", "int"}),
        (OrderId, {"UUID"}),
        (list[T], {"list"}),  # type: ignore[valid-type]
        (list[OneOf], {"list", "UUID", "Decimal"}),  # type: ignore[valid-type]
        (list[Bound], {"list", "UUID"}),  # type: ignore[valid-type]
        (Alias, {"list", "UUID"}),
        (Leaf, {"Leaf", "UUID"}),
        (Node, {"Node", "Leaf", "UUID", "list"}),
        (Keyed, {"Keyed", "UUID"}),
        (Extended, {"Extended", "UUID"}),
        (Pair, {"Pair", "UUID"}),
        (Packed, {"Packed", "UUID"}),
        (Stop, {"Stop", "UUID"}),
        (Model, {"Model", "UUID"}),
        (NoFields, {"NoFields"}),
        (tuple[Leaf, ...], {"tuple", "Leaf", "UUID"}),
    ],
)
def test_an_annotation_leads_to_all_types_in_it(annotation: Any, classes: set[str]) -> None:
    assert names(annotation) == classes


def test_of_a_generic_class_its_first_annotation_is_kept() -> None:
    found = reach(tuple[list[int], list[str]])
    assert found.types["builtins.list"] in (list[int], list[str])
    assert set(found.types) == {"builtins.tuple", "builtins.list", "builtins.int", "builtins.str"}


class Unions(BaseModel):
    either: dict[int | str, int]


@pytest.mark.parametrize(
    ("annotation", "union", "key"),
    [
        (int, False, False),
        (int | None, False, False),
        (OLD_OPTION, False, False),
        (int | str, True, False),
        (OLD_UNION, True, False),
        (int | str | None, True, False),
        (list[int | str], True, False),
        (tuple[int | str, int | None], True, False),
        (tuple[int | None, int | str], True, False),
        (dict[int | str, int], True, True),
        (dict[OLD_UNION, int], True, True),
        (dict[int | None, int], False, True),
        (Mapping[int | str, int], True, True),
        (dict[str, int | str], True, False),
        (dict[str, dict[int | str, int]], True, True),
        (dict[int | str, dict[str, int]], True, True),
        (Unions, True, True),
        (list[Unions], True, True),
        (dict, False, False),
    ],
)
def test_whether_there_is_a_union_and_whether_it_is_a_key(
    annotation: Any, union: bool, key: bool
) -> None:
    found = reach(annotation)
    assert (found.union, found.union_key) == (union, key)


@dataclass
class Hidden:
    one: Missing  # type: ignore[name-defined]  # noqa: F821


class HiddenModel(BaseModel):
    one: Missing  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("annotation", "unresolved"),
    [
        (list["Missing"], "'Missing'"),  # type: ignore[name-defined]  # noqa: F821
        (Hidden, "'Missing' in Hidden"),
        (HiddenModel, "'Missing' in HiddenModel"),
        (tuple[Hidden, Leaf], "'Missing' in Hidden"),
        (tuple[Leaf, Hidden], "'Missing' in Hidden"),
        (dict["One", "Last"], "'Last'"),  # type: ignore[name-defined]  # noqa: F821
        (Leaf, ""),
    ],
)
def test_which_name_only_type_checkers_see(annotation: Any, unresolved: str) -> None:
    assert reach(annotation).unresolved == unresolved


class Required(ExtendedTypedDict, total=False):
    id: int


class OldTuple(tuple[int, ...]):
    note: str


class OldDict(dict[str, int]):
    note: str


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (Leaf, [("id", UUID)]),
        (Keyed, [("id", UUID)]),
        (Required, [("id", int)]),
        (Pair, [("id", UUID)]),
        (Packed, [("id", UUID)]),
        (Stop, [("id", UUID)]),
        (Model, [("id", UUID)]),
        (Noted, [("note", Annotated[int, "text"])]),
        (NoFields, []),
        (OldTuple, []),
        (OldDict, []),
        (dict, []),
        (int, []),
    ],
)
def test_the_fields_of_a_class(cls: type, fields: list[tuple[str, Any]]) -> None:
    assert list(fields_of(cls)) == fields


def test_a_field_of_a_name_that_does_not_exist_is_an_error() -> None:
    for cls in (Hidden, HiddenModel):
        with pytest.raises(NameError, match="'Missing' is not defined"):
            list(fields_of(cls))


def _bytes_for_uuid(annotation: Any) -> Any:
    return bytes if annotation is UUID else annotation


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        (UUID, UUID),
        (list[UUID], list[bytes]),
        (dict[str, UUID], dict[str, bytes]),
        (tuple[UUID, ...], tuple[bytes, ...]),
        (UUID | str, bytes | str),
        (OLD_UNION, bytes | str),
        (OLD_OPTION, OLD_OPTION),
        (Annotated[UUID, "a", 1], Annotated[bytes, "a", 1]),
        (Literal["a"], Literal["a"]),
    ],
)
def test_the_parts_of_an_annotation_are_replaced(annotation: Any, wanted: Any) -> None:
    assert with_parts(annotation, _bytes_for_uuid) == wanted


def test_the_values_of_a_literal_are_no_types() -> None:
    assert with_parts(Literal["a"], lambda _: bytes) == Literal["a"]
    assert with_parts(list, lambda _: bytes) is list


def test_an_annotation_stays_itself_where_no_part_changes() -> None:
    for annotation in (int, list[int], int | str, dict[str, list[int]], Literal["a", "b"]):
        assert with_parts(annotation, _bytes_for_uuid) is annotation


class Two(Generic[T, U]):
    pass


def test_type_variables_are_filled_as_far_as_they_are_known() -> None:
    given = arguments_of(Two[int, list[str]])
    assert given == {T: int, U: list[str]}
    assert arguments_of(Two) == arguments_of(int) == {}
    assert filled(dict[str, list[T | None]], given) == dict[str, list[int | None]]  # type: ignore[valid-type]
    assert filled(tuple[T, U, Bound], given) == tuple[int, list[str], Bound]  # type: ignore[valid-type]
    assert filled(T, given) is int
    assert filled(Bound, given) is Bound


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Share(float):
    pass


class Bag(set[int]):
    pass


class Fixed(frozenset[int]):
    pass


class WithSchema(str):
    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(str)


@pytest.mark.parametrize(
    ("cls", "made"),
    [
        (Text, True),
        (Whole, True),
        (Share, True),
        (type("Rows", (list,), {}), True),
        (type("Settings", (dict,), {}), True),
        (Bag, True),
        (Fixed, True),
        (WithSchema, False),
        (str, False),
        (OrderedDict, False),
        (UserDict, False),
        (Leaf, False),
        (dt.date, False),
        (type("float32", (type("number", (), {"__module__": "numpy"}),), {}), True),
        (type("bool", (), {"__module__": "numpy"}), True),
        (type("bool_", (), {"__module__": "numpy"}), True),
        (type("ndarray", (), {"__module__": "numpy"}), False),
        (type("number", (), {"__module__": "other"}), False),
    ],
)
def test_classes_whose_values_are_made_of_what_is_written(cls: type, made: bool) -> None:
    assert is_made_of_plain(cls) is made


def test_a_class_is_named_with_its_module() -> None:
    assert name_of(Leaf) == "tests.core.test_reach.Leaf"
    assert name_of(dt.datetime) == "datetime.datetime"
