"""The engine's SQL: one schema, and queries that are looked up by name.

`queries.sql` holds blocks that start with a line `-- name: something`.
"""

from __future__ import annotations

from importlib.resources import files

_MARK = "-- name: "


def read(name: str) -> str:
    """The text of a file of this package."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _load() -> dict[str, str]:
    queries = {}
    for block in read("queries.sql").split(_MARK)[1:]:
        name, _, text = block.partition("\n")
        queries[name.strip()] = text.strip()
    return queries


SCHEMA = read("schema.sql")
QUERIES = _load()
