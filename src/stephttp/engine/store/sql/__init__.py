"""The engine's SQL: one schema, its migrations, and queries that are looked up by name.

`queries.sql` and `checks.sql` hold blocks that start with a line `-- name: something`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from importlib.resources import files

_MARK = "-- name: "


def read(name: str) -> str:
    """The text of a file of this package."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one.

    `executescript` would commit the transaction that it is called in.
    """
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if any(line.strip() and not line.startswith("--") for line in statement.splitlines()):
        yield statement


def numbered(names: Iterable[str]) -> list[str]:
    """Names of migrations, in their order.

    Raises:
        ValueError: their numbers are not 2, 3, 4 and so on.
    """
    ordered = sorted(name for name in names if name.endswith(".sql"))
    for number, name in enumerate(ordered, 2):
        if not name.startswith(f"{number:04d}_"):
            raise ValueError(f"migration {name!r} should have the number {number:04d}")
    return ordered


def _named(file: str) -> dict[str, str]:
    queries = {}
    for block in read(file).split(_MARK)[1:]:
        name, _, text = block.partition("\n")
        queries[name.strip()] = text.strip()
    return queries


def _migrations() -> tuple[str, ...]:
    folder = files(__name__).joinpath("migrations")
    return tuple(
        read(f"migrations/{name}") for name in numbered(entry.name for entry in folder.iterdir())
    )


SCHEMA = read("schema.sql")
MIGRATIONS = _migrations()
"""Scripts that take a database from version 1 to 2, from 2 to 3, and so on."""
QUERIES = _named("queries.sql")
CHECKS = _named("checks.sql")
"""What must never be found: each query returns the rows that break one rule of the schema."""
