"""Classes of attrs, which pydantic does not know, for pydantic: made from what msgspec writes
for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stephttp._core.reach import arguments_of, fields_of, filled


def is_attrs(cls: Any) -> bool:
    """Whether a class is one of attrs."""
    return isinstance(cls, type) and hasattr(cls, "__attrs_attrs__")


def schema_of(cls: Any, under_way: set[str]) -> Callable[[Any, Any], Any]:
    """Return the answer of a class to pydantic's question for its schema.

    Args:
        under_way: the references of the classes whose schemas are being made, since they may be
            recursive.
    """
    from pydantic_core import core_schema

    def answer(source: Any, handler: Any) -> Any:
        reference = f"stephttp:{source}"
        if reference in under_way:
            return core_schema.definition_reference_schema(reference)
        arguments = arguments_of(source)
        under_way.add(reference)
        try:
            kinds = dict(fields_of(cls))
            fields = {
                one.name: core_schema.typed_dict_field(
                    handler.generate_schema(filled(kinds.get(one.name, Any), arguments)),
                    required=False,
                )
                for one in cls.__attrs_attrs__
            }
        finally:
            under_way.discard(reference)
        parts = core_schema.typed_dict_schema(fields, extra_behavior="forbid")
        return core_schema.no_info_after_validator_function(_maker(cls), parts, ref=reference)

    return answer


def _maker(cls: Any) -> Callable[[dict[str, Any]], Any]:
    """Return what makes an object of its fields."""

    def make(parts: dict[str, Any]) -> Any:
        given: dict[str, Any] = {}
        later: dict[str, Any] = {}
        for one in cls.__attrs_attrs__:
            if one.name in parts and one.init:
                given[getattr(one, "alias", None) or one.name] = parts[one.name]
            elif one.name in parts:
                later[one.name] = parts[one.name]
        try:
            made = cls(**given)
        except TypeError as error:  # one is missing
            raise ValueError(str(error)) from error
        for name, part in later.items():
            object.__setattr__(made, name, part)
        return made

    return make
