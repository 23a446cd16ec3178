"""Types in descriptions: where OpenAPI wants a schema, a description holds a `SchemaOf` a type.

To make schemas takes 40 ms, which no start of an engine should; so they are made when a document
is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

Json = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True, eq=False)
class SchemaOf:
    """The schema of a type; for a struct, a reference to its component."""

    type: Any


def with_schemas(description: Json) -> tuple[Json, Json]:
    """Return a description with schemas in the place of types, and the components that they need.

    Those of a struct are itself and what it consists of.
    """
    types = list(_types(description))
    schemas, components = msgspec.json.schema_components(
        [one.type for one in types], ref_template=_REFERENCE
    )
    for component in components.values():
        if "description" in component:
            component["description"] = inspect.cleandoc(component["description"])
    made = dict(zip(map(id, types), schemas, strict=True))
    return _replaced(description, made), components


def _types(value: Any) -> Iterator[SchemaOf]:
    if isinstance(value, SchemaOf):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _types(item)


def _replaced(value: Any, made: dict[int, Any]) -> Any:
    if isinstance(value, SchemaOf):
        return made[id(value)]
    if isinstance(value, dict):
        return {name: _replaced(item, made) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, made) for item in value]
    return value
