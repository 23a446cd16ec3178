"""Models of pydantic (secrets, serializers, excluded fields), looked at without importing
pydantic.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin


def is_model(cls: type) -> bool:
    """Whether pydantic writes values of a class. It is not asked about its dataclasses."""
    return any(
        base.__name__ == "BaseModel" and base.__module__ == "pydantic.main" for base in cls.__mro__
    )


def takes_anything(cls: Any) -> bool:
    return bool(cls.model_config.get("arbitrary_types_allowed"))


def has_serializer(cls: type) -> bool:
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


def is_validated(cls: Any, name: str) -> bool:
    """Whether a model says itself how one of its fields is read."""
    decorators = cls.__pydantic_decorators__
    if decorators.model_validators:
        return True
    for one in (*decorators.field_validators.values(), *decorators.validators.values()):
        if name in one.info.fields or "*" in one.info.fields:
            return True
    kinds = {type(one).__name__ for one in cls.__pydantic_fields__[name].metadata}
    return not kinds.isdisjoint({"BeforeValidator", "PlainValidator", "WrapValidator"})


def is_excluded(cls: type, name: str, kind: Any) -> bool:
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
