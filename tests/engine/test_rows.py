"""Many rows with few statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from stephttp.engine.store import many_rows

INSERT = """
INSERT INTO things (name, n, kind) VALUES (:name, :n, 'fixed')
ON CONFLICT (name) DO UPDATE SET n = n + excluded.n"""


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE things (name TEXT PRIMARY KEY, n INTEGER, kind TEXT)")
        yield connection


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 15, 16, 63, 64, 65, 85, 200])
def test_rows_of_any_number_are_inserted_in_their_order(
    connection: sqlite3.Connection, count: int
) -> None:
    said: list[str] = []
    connection.set_trace_callback(said.append)
    wanted = [(f"row {n}", n) for n in range(count)]
    many_rows.insert(connection, INSERT, wanted)
    connection.set_trace_callback(None)
    found = connection.execute("SELECT name, n FROM things ORDER BY rowid").fetchall()
    assert found == wanted
    assert sum("INSERT" in text for text in said) == count // 64 + (count % 64).bit_count()


def test_the_same_key_twice_in_one_statement_is_a_conflict_as_well(
    connection: sqlite3.Connection,
) -> None:
    many_rows.insert(connection, INSERT, [("a", 1), ("b", 10), ("a", 2), ("a", 3)])
    found = connection.execute("SELECT * FROM things ORDER BY name").fetchall()
    assert found == [("a", 6, "fixed"), ("b", 10, "fixed")]


def test_the_parameters_of_a_row_have_names() -> None:
    assert many_rows.parameters(INSERT) == ("name", "n")
    with pytest.raises(ValueError, match="no row"):
        many_rows.parameters("SELECT 1")
