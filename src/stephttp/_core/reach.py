"""The types that an annotation leads to, through generics, unions and the fields of classes:
secrets, unresolved names.

A result is converted by its annotation. Before that is relied on, three things have to be known:
whether it leads to a secret, to a name that only type checkers can see, or to a union, of which
JSON alone may not tell the member.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from operator import is_
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import Struct

from stephttp._core.pydantic_classes import (
    has_serializer,
    is_excluded,
    is_model,
    is_secret,
    is_validated,
    takes_anything,
)
from stephttp._core.unreadable import (
    unreadable_class,
    unreadable_enum_key,
    unreadable_key,
    unreadable_literal,
)

_UNIONS = (Union, types.UnionType)


class Reach(Struct):
    """What an annotation leads to.

    Attributes:
        types: the annotations of all classes on the way, by the name of the class.
        union: whether one of them is a union of more than one type and `None`.
        union_key: whether one of those is the type of a key.
        secret: where a type of pydantic's that hides its value was found.
        excluded: a field that pydantic leaves out where it writes a model.
        arbitrary: classes in models that take values of classes which pydantic does not know.
        unreadable: what JSON cannot give back, and what to do instead.
        enum_key: the class of a key that pydantic cannot read, and what to do instead.
        serializer: whether a model says itself how it, or a field of it, is written.
        unresolved: the name that does not exist at run time, and where it was found.
    """

    types: dict[str, Any] = {}
    union: bool = False
    union_key: bool = False
    secret: str = ""
    excluded: str = ""
    unreadable: str = ""
    enum_key: str = ""
    arbitrary: list[type] = []
    serializer: bool = False
    unresolved: str = ""


def reach(annotation: Any) -> Reach:
    """Follow `annotation` to all types that it leads to. Types may be recursive."""
    found = Reach()
    seen: set[tuple[int, bool, bool, bool]] = set()
    kept: list[Any] = []  # what `seen` has the identity of must stay alive
    todo: list[tuple[Any, _Place]] = [(annotation, _Place())]
    while todo:
        one, place = todo.pop()
        key = (id(one), place.written, place.helped, place.arbitrary)
        if key in seen:
            continue
        seen.add(key)
        kept.append(one)
        todo.extend((inner, place) for inner in _visit(one, found, place))
        cls = get_origin(one) or one
        if isinstance(cls, type) and cls is not types.UnionType:
            model = is_model(cls)
            found.serializer = found.serializer or has_serializer(cls)
            if not place.helped:
                found.unreadable = found.unreadable or unreadable_class(cls)
                if place.arbitrary:
                    found.arbitrary.append(cls)
            try:
                for name, kind in fields_of(cls):
                    field = _Place(
                        f"{cls.__name__}.{name}",
                        place.written or model,
                        model and is_validated(cls, name),
                        model and takes_anything(cls),
                    )
                    todo.append((kind, field))
                    if field.written and is_excluded(cls, name, kind):
                        found.excluded = found.excluded or field.name
            except NameError as error:
                found.unresolved = found.unresolved or f"{error.name!r} in {cls.__qualname__}"
    return found


class _Place(NamedTuple):
    """Where an annotation was found.

    Attributes:
        name: class and field.
        written: whether pydantic writes it, as a part of a model.
        helped: whether its model has a validator for it, which may read what nothing else can.
        arbitrary: whether its model takes values of classes that pydantic does not know.
    """

    name: str = ""
    written: bool = False
    helped: bool = False
    arbitrary: bool = False


def _visit(one: Any, found: Reach, place: _Place) -> Iterator[Any]:
    """Note what `one` itself is; yield the annotations that it is made of."""
    origin = get_origin(one)
    if origin is Annotated:
        yield get_args(one)[0]
    elif origin in _UNIONS:
        members = get_args(one)
        found.union = found.union or len([m for m in members if m is not types.NoneType]) > 1
        yield from members
    elif origin is Literal:
        if not place.helped:
            found.unreadable = found.unreadable or unreadable_literal(one)
        yield from {type(value) for value in get_args(one)}
    elif isinstance(one, NewType):
        yield one.__supertype__
    elif isinstance(one, TypeVar):
        yield from one.__constraints__ or (one.__bound__,)
    elif hasattr(one, "__value__"):  # `type X = ...`, and that of typing_extensions
        yield one.__value__
    elif isinstance(one, str):
        found.unresolved = found.unresolved or repr(one)
    else:
        cls, arguments = origin or one, get_args(one)
        if isinstance(cls, type):
            found.types.setdefault(name_of(cls), one)
            if is_secret(cls):
                found.secret = found.secret or (
                    f"{cls.__name__} in {place.name}" if place.name else cls.__name__
                )
            if issubclass(cls, Mapping) and len(arguments) == 2:
                found.union_key = found.union_key or get_origin(arguments[0]) in _UNIONS
                if not place.helped:
                    found.unreadable = found.unreadable or unreadable_key(arguments[0])
                    found.enum_key = found.enum_key or unreadable_enum_key(arguments[0])
        yield from arguments


def fields_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Name and annotation of each field of a class that is made of fields.

    Raises:
        NameError: an annotation has a name that does not exist at run time.
    """
    model_fields = getattr(cls, "__pydantic_fields__", None)
    if isinstance(model_fields, dict):
        if not getattr(cls, "__pydantic_complete__", True):
            get_type_hints(cls)  # raises the NameError that pydantic met
        for name, field in model_fields.items():
            yield name, field.annotation
    elif (
        dataclasses.is_dataclass(cls)
        or _is_typed_dict(cls)
        or issubclass(cls, Struct)
        or hasattr(cls, "__attrs_attrs__")
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    ):
        yield from get_type_hints(cls, include_extras=True).items()


def _is_typed_dict(cls: type) -> bool:
    # `is_typeddict` does not know that of typing_extensions before Python 3.12.
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def with_parts(annotation: Any, convert: Callable[[Any], Any]) -> Any:
    """Return an annotation with its parts converted: arguments of generics, members of unions."""
    origin: Any = get_origin(annotation)
    args: tuple[Any, ...] = get_args(annotation)
    if not args or origin is Literal:
        return annotation
    if origin is Annotated:
        inner, *metadata = args
        return Annotated[(convert(inner), *metadata)]
    parts = tuple(convert(one) for one in args)
    if all(map(is_, parts, args)):
        return annotation
    if origin in _UNIONS:
        return Union[parts]  # noqa: UP007 - of a tuple
    only, *more = parts
    return origin[parts if more else only]


def filled(annotation: Any, given: Mapping[Any, Any]) -> Any:
    """Return an annotation with what its type variables stand for, as far as that is given."""
    if isinstance(annotation, TypeVar):
        return given.get(annotation, annotation)
    return with_parts(annotation, lambda one: filled(one, given))


def arguments_of(annotation: Any) -> dict[Any, Any]:
    """Return what the type variables of a class stand for, where it is used with arguments."""
    parameters = getattr(get_origin(annotation) or annotation, "__parameters__", ())
    return dict(zip(parameters, get_args(annotation), strict=False))


def is_made_of_plain(cls: type) -> bool:
    """Whether values of a class are made again of the plain value that is written for them:
    `SafeString`, `Markup`, classes of one's own that are a `dict`, NumPy's numbers."""
    if cls.__module__ in ("builtins", "collections") or hasattr(
        cls, "__get_pydantic_core_schema__"
    ):
        return False
    if issubclass(cls, str | int | float | list | dict | set | frozenset):
        return True
    numpy = {base.__name__ for base in cls.__mro__ if base.__module__ == "numpy"}
    return not numpy.isdisjoint({"number", "bool", "bool_"})


def name_of(cls: type) -> str:
    """The name that stands for a class in what is stored."""
    return f"{cls.__module__}.{cls.__qualname__}"
