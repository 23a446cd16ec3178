"""Which types an annotation leads to, through generics, unions and the fields of classes.

A result is converted by its annotation. Before that is relied on, three things have to be known:
whether it leads to a secret, to a name that only type checkers can see, or to a union, of which
JSON alone may not tell the member.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from msgspec import Struct

_UNIONS = (Union, types.UnionType)


class Reach(Struct):
    """What an annotation leads to.

    Attributes:
        types: the annotations of all classes on the way, by the name of the class.
        union: whether one of them is a union of more than one type and `None`.
        secret: where a type of pydantic's that hides its value was found.
        excluded: a field that pydantic leaves out where it writes a model.
        serializer: whether a model says itself how it, or a field of it, is written.
        unresolved: the name that does not exist at run time, and where it was found.
    """

    types: dict[str, Any] = {}
    union: bool = False
    secret: str = ""
    excluded: str = ""
    serializer: bool = False
    unresolved: str = ""


def reach(annotation: Any) -> Reach:
    """Follow `annotation` to all types that it leads to. Types may be recursive."""
    found = Reach()
    seen: set[tuple[int, bool]] = set()
    kept: list[Any] = []  # what `seen` has the identity of must stay alive
    # With each, where it was found, and whether pydantic writes it, as a part of a model.
    todo: list[tuple[Any, str, bool]] = [(annotation, "", False)]
    while todo:
        one, where, written = todo.pop()
        if (id(one), written) in seen:
            continue
        seen.add((id(one), written))
        kept.append(one)
        todo.extend((inner, where, written) for inner in _visit(one, found, where))
        cls = get_origin(one) or one
        if isinstance(cls, type):
            inside = written or _is_model(cls)
            found.serializer = found.serializer or _has_serializer(cls)
            try:
                for name, kind in fields_of(cls):
                    field = f"{cls.__name__}.{name}"
                    todo.append((kind, field, inside))
                    if inside and _is_excluded(cls, name, kind):
                        found.excluded = found.excluded or field
            except NameError as error:
                found.unresolved = found.unresolved or f"{error.name!r} in {cls.__qualname__}"
    return found


def _visit(one: Any, found: Reach, where: str) -> Iterator[Any]:
    """Note what `one` itself is; yield the annotations that it is made of."""
    origin = get_origin(one)
    if origin is Annotated:
        yield get_args(one)[0]
    elif origin in _UNIONS:
        members = get_args(one)
        found.union = found.union or len([m for m in members if m is not types.NoneType]) > 1
        yield from members
    elif origin is Literal:
        yield from {type(value) for value in get_args(one)}
    elif isinstance(one, NewType):
        yield one.__supertype__
    elif isinstance(one, TypeVar):
        yield from one.__constraints__ or ((one.__bound__,) if one.__bound__ else ())
    elif hasattr(one, "__value__"):  # `type X = ...`, and that of typing_extensions
        yield one.__value__
    elif isinstance(one, str):
        found.unresolved = found.unresolved or repr(one)
    else:
        cls = origin or one
        if isinstance(cls, type):
            found.types.setdefault(name_of(cls), one)
            if is_secret(cls):
                found.secret = found.secret or (
                    f"{cls.__name__} in {where}" if where else cls.__name__
                )
        yield from get_args(one)


def fields_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Name and annotation of each field of a class that is made of fields.

    Raises:
        NameError: an annotation has a name that does not exist at run time.
    """
    model_fields = getattr(cls, "__pydantic_fields__", None)
    if isinstance(model_fields, dict):
        if not getattr(cls, "__pydantic_complete__", True):
            get_type_hints(cls, include_extras=True)  # raises the NameError that pydantic met
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
    # That of typing_extensions is another class before Python 3.12.
    return is_typeddict(cls) or (issubclass(cls, dict) and hasattr(cls, "__required_keys__"))


def _is_model(cls: type) -> bool:
    """Whether pydantic writes values of a class. It is not asked about its dataclasses."""
    return any(
        base.__name__ == "BaseModel" and base.__module__ == "pydantic.main" for base in cls.__mro__
    )


def _has_serializer(cls: type) -> bool:
    fields = getattr(cls, "__pydantic_fields__", None)
    return isinstance(fields, dict) and any(own_serializer(cls, name) for name in fields)


def own_serializer(cls: Any, name: str) -> bool:
    """Whether a class of pydantic's says itself how one of its fields is written."""
    decorators = cls.__pydantic_decorators__
    if decorators.model_serializers:
        return True
    for one in decorators.field_serializers.values():
        if name in one.info.fields or "*" in one.info.fields:
            return True
    kinds = {type(one).__name__ for one in cls.__pydantic_fields__[name].metadata}
    return not kinds.isdisjoint({"PlainSerializer", "WrapSerializer"})


def _is_excluded(cls: type, name: str, kind: Any) -> bool:
    """Whether pydantic leaves a field out, always or for some values, where it writes a class."""
    fields = getattr(cls, "__pydantic_fields__", None)
    if isinstance(fields, dict):
        said = [fields[name]]
    else:
        extras = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
        said = [one for one in extras if type(one).__module__ == "pydantic.fields"]
    return any(
        getattr(one, "exclude", None) or getattr(one, "exclude_if", None) is not None
        for one in said
    )


def is_secret(cls: type) -> bool:
    """Whether a class is one of pydantic's that write themselves as stars."""
    return any(
        base.__module__ == "pydantic.types" and base.__name__.lstrip("_").startswith("Secret")
        for base in cls.__mro__
    )


def name_of(cls: type) -> str:
    """The name that stands for a class in what is stored."""
    return f"{cls.__module__}.{cls.__qualname__}"
