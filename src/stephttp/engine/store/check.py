"""`stephttp check-db`: whether a database is whole, by SQLite's own check and the rules of
the schema.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from stephttp.engine.store import database
from stephttp.engine.store.sql import CHECKS
from stephttp.errors import ConfigurationError

_MOST = 20
"""How many findings of one kind are shown."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The findings of a check.

    Attributes:
        version: of the schema.
        runs: how many there are, by status.
        problems: one line each; empty if the database is whole.
    """

    version: int
    runs: dict[str, int]
    problems: tuple[str, ...]


def check_file(
    path: str, progress: Callable[[int, int], None] = lambda done, all_: None
) -> CheckReport:
    """Check a database file, which an engine may be using. Nothing in it is changed.

    Args:
        path: the file.
        progress: called with how many checks are done, and all of them. The first is SQLite's own,
            and takes longest.

    Raises:
        ConfigurationError: it cannot be opened, is not an engine's, or has another version.
    """
    try:
        with closing(database.connect_read_only(path)) as connection:
            found = database.version(connection, path)
            newest = database.newest_version()
            if found == 0:
                raise ConfigurationError(f"{path!r} is an empty database")
            database.check_version(found, path, newest)
            if found < newest:
                raise ConfigurationError(
                    f"{path!r} has schema {found}, this version checks schema {newest}; start an "
                    "engine with it, which migrates it, or check it with the version that wrote it"
                )
            # One snapshot, however long it takes.
            connection.execute("BEGIN")
            progress(0, len(CHECKS) + 1)
            problems = [*integrity(connection)]
            progress(1, len(CHECKS) + 1)
            if not problems:
                problems = invariants(connection, progress)
            counts = connection.execute("SELECT status, count(*) FROM runs GROUP BY status")
            return CheckReport(found, dict(counts.fetchall()), tuple(problems))
    except sqlite3.OperationalError as error:
        raise ConfigurationError(f"cannot read the database {path!r}: {error}") from error
    except sqlite3.DatabaseError as error:
        return CheckReport(0, {}, (f"integrity: {error}",))


def integrity(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with its pages, indexes, types and constraints."""
    rows = connection.execute(f"PRAGMA integrity_check({_MOST})").fetchall()
    return [f"integrity: {text}" for (text,) in rows if text != "ok"]


def invariants(
    connection: sqlite3.Connection, progress: Callable[[int, int], None] = lambda done, all_: None
) -> list[str]:
    """Return what breaks the rules of the schema; see `sql/checks.sql`."""
    problems = []
    for number, (rule, query) in enumerate(CHECKS.items(), 2):
        rows = connection.execute(query).fetchmany(_MOST + 1)
        problems += [f"{rule}: {where} ({what})" for where, what in rows[:_MOST]]
        if len(rows) > _MOST:
            problems.append(f"{rule}: and more")
        progress(number, len(CHECKS) + 1)
    return problems
