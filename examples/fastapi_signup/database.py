"""The example's SQLite file. Plain functions, which block while the disk writes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATH = os.environ.get("SIGNUP_DB", "signup.sqlite3")

TABLES = """
CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, created_by TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY, recipient TEXT NOT NULL, subject TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS calls (
    step TEXT NOT NULL, subject TEXT NOT NULL, executions INTEGER NOT NULL,
    UNIQUE (step, subject)
);
"""


@contextmanager
def _transaction() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(PATH)
    connection.row_factory = sqlite3.Row
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def create_tables() -> None:
    with _transaction() as connection:
        connection.executescript(TABLES)


def insert_user(name: str, email: str, created_by: str) -> int:
    return _returned_number(
        "INSERT INTO users (name, email, created_by) VALUES (?, ?, ?) RETURNING id",
        (name, email, created_by),
    )


def send_mail(recipient: str, subject: str) -> int:
    """Put a mail where a mail server would fetch it."""
    return _returned_number(
        "INSERT INTO outbox (recipient, subject) VALUES (?, ?) RETURNING id", (recipient, subject)
    )


def count_call(step: str, subject: str) -> int:
    """Count one execution of a step's body, and return the number so far."""
    return _returned_number(
        "INSERT INTO calls (step, subject, executions) VALUES (?, ?, 1) "
        "ON CONFLICT DO UPDATE SET executions = executions + 1 RETURNING executions",
        (step, subject),
    )


def rows(query: str) -> list[dict[str, Any]]:
    with _transaction() as connection:
        return [dict(row) for row in connection.execute(query)]


def _returned_number(statement: str, values: tuple[str, ...]) -> int:
    with _transaction() as connection:
        (number,) = connection.execute(statement, values).fetchone()
        return int(number)
