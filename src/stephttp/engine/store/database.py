"""Opens the SQLite file: its permissions, its version, its migrations, its secret, and what
is said of a file that cannot be used.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

from stephttp.engine.store import sql
from stephttp.errors import ConfigurationError

MEMORY = ":memory:"
_IN_MEMORY = "file::memory:"
_VERSION = re.compile(rb"[1-9][0-9]{0,8}")
_WAL_LIMIT = 64 * 1024 * 1024
"""Bytes that the write-ahead log keeps after a checkpoint; a burst may make it larger."""


class StoreConnection(sqlite3.Connection):
    """A connection of the engine.

    Attributes:
        notes: what is to be counted with the next commit; see `counts`.
        counted_until_s: the latest minute for which something was counted.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.notes: list[Any] = []
        self.counted_until_s = 0


def newest_version(migrations: Sequence[str] = sql.MIGRATIONS) -> int:
    """The version of the schema that this package writes."""
    return 1 + len(migrations)


def uri(path: str) -> str:
    """The path as SQLite's `file:` URI."""
    return Path(path).absolute().as_uri()


def connect(where: str) -> sqlite3.Connection:
    """Open a connection whose transactions the engine starts and ends, and never the module."""
    connection = sqlite3.connect(
        where,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        # Every statement that the engine has, and those for several rows.
        cached_statements=512,
        factory=StoreConnection,
    )
    connection.execute("PRAGMA busy_timeout = 5000")
    return connection


def connect_read_only(path: str) -> sqlite3.Connection:
    """A connection that cannot write."""
    return connect(f"{uri(path)}?mode=ro")


def open_for_writing(path: str, migrations: Sequence[str] = sql.MIGRATIONS) -> sqlite3.Connection:
    """Open a database, make it if it is not there, and bring it to the newest version.

    The file and what SQLite keeps beside it can be read and written by their owner alone.

    Args:
        path: the SQLite file, or `:memory:`.
        migrations: as `sql.MIGRATIONS`.

    Raises:
        ConfigurationError: it cannot be opened, is not an engine's database, was written by a newer
            version, or a migration failed (then it is as it was).
    """
    if path == MEMORY:
        connection = connect(_IN_MEMORY)
        if hasattr(connection, "deserialize"):
            _copy_first(connection, newest_version(migrations))
        else:  # SQLite was built without it
            prepare(connection, path, migrations)
        return connection
    try:
        _make_private(path)
        connection = connect(uri(path))
        try:
            # Before anything changes a file that may not be an engine's.
            if version(connection, path) == 0:
                # Only possible before the first page is written, which the next line does.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            prepare(connection, path, migrations)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"cannot open the database {path!r}: {error}") from error
    return connection


def refuse_foreign(path: str) -> None:
    """Refuse a file that is there and is not an engine's, without changing anything about it.

    Raises:
        ConfigurationError: it is not a database of an engine, or its version is not known.
    """
    try:
        if os.stat(path).st_size == 0:
            return
        connection = connect_read_only(path)
        try:
            check_version(version(connection, path), path, newest_version())
        finally:
            connection.close()
    except (OSError, sqlite3.OperationalError):
        return  # it is not there, or cannot be read yet; opening it for writing says why
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"cannot open the database {path!r}: {error}") from error


def wal_size(path: str) -> int:
    """Return the bytes of the write-ahead log's file; 0 for a database in memory."""
    with suppress(OSError):
        return os.stat(f"{path}-wal").st_size
    return 0


def version(connection: sqlite3.Connection, path: str) -> int:
    """The version of a database's schema; 0 if there are no tables yet.

    Raises:
        ConfigurationError: it is a database, but not an engine's.
        sqlite3.Error: it cannot be read.
    """
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return 0
    if not {"meta", "runs"} <= tables:
        raise ConfigurationError(f"{path!r} is a database, but not one of stephttp")
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    text = row[0] if row else b""
    digits = text.encode() if isinstance(text, str) else text
    if not isinstance(digits, bytes) or not _VERSION.fullmatch(digits):
        raise ConfigurationError(f"{path!r} does not tell the version of its schema")
    return int(digits)


def check_version(found: int, path: str, newest: int) -> None:
    """Refuse what only a newer version of this package can read.

    Raises:
        ConfigurationError: `found` is newer than `newest`.
    """
    if found > newest:
        raise ConfigurationError(
            f"{path!r} was written by a newer version of stephttp (schema {found}, this "
            f"version knows {newest}); install that version, or use another file"
        )


def prepare(
    connection: sqlite3.Connection, path: str, migrations: Sequence[str] = sql.MIGRATIONS
) -> None:
    """Make the tables, or bring them to the newest version, in one transaction.

    Raises:
        ConfigurationError: see `open_for_writing`.
    """
    newest = newest_version(migrations)
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = version(connection, path)
        check_version(found, path, newest)
        if found == 0:
            _create(connection, newest)
        else:
            for number in range(found + 1, newest + 1):
                _migrate(connection, path, number, migrations[number - 2])
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def secret(connection: sqlite3.Connection) -> bytes:
    """Random bytes that belong to this database; tokens are signed with them."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
    if row is None:
        raise ConfigurationError("the database has lost its secret (meta.secret)")
    value: bytes = row[0]
    return value


def _copy_first(connection: sqlite3.Connection, newest: int) -> None:
    """Make a database in memory like the first of this process, in a tenth of the time."""
    # Not `connection.deserialize`, after which it could not grow beyond 1 GiB.
    with closing(connect(_IN_MEMORY)) as first:
        first.deserialize(_first(newest))
        first.backup(connection)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'secret'", (_new_secret(),))


@cache
def _first(newest: int) -> bytes:
    with closing(connect(_IN_MEMORY)) as connection:
        _create(connection, newest)
        return connection.serialize()


def _create(connection: sqlite3.Connection, newest: int) -> None:
    for statement in sql.statements(sql.SCHEMA):
        connection.execute(statement)
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)",
        [("schema_version", str(newest).encode()), ("secret", _new_secret())],
    )


def _new_secret() -> bytes:
    return secrets.token_bytes(32)


def _migrate(connection: sqlite3.Connection, path: str, number: int, script: str) -> None:
    try:
        for statement in sql.statements(script):
            connection.execute(statement)
        connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(number).encode(),)
        )
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"{path!r}: the migration to schema {number} failed, the file is as it was: {error}"
        ) from error


def _make_private(path: str) -> None:
    # The file is made here rather than by SQLite, so that it is never readable by others;
    # SQLite gives its -wal and -shm files the same permissions.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(handle)
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError, PermissionError):
            if stat.S_IMODE(os.stat(name).st_mode) & 0o077:
                os.chmod(name, 0o600)
