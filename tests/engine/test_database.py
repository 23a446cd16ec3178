"""The database file: made, locked, private, migrated, refused."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stephttp.engine.store import database, sql
from stephttp.engine.store.check import check_file
from stephttp.engine.store.lock import FileLock
from stephttp.engine.store.store import Store
from stephttp.errors import ConfigurationError

ADD_COLUMN = """
-- A comment; with a semicolon.
ALTER TABLE runs ADD COLUMN note TEXT NOT NULL DEFAULT 'a;b';
CREATE TABLE notes (run_id TEXT PRIMARY KEY, text TEXT) STRICT;
"""
ADD_TRIGGER = """
CREATE TRIGGER noted AFTER UPDATE ON runs BEGIN
    INSERT OR REPLACE INTO notes VALUES (new.run_id, new.note);
    DELETE FROM notes WHERE text = '';
END;
INSERT INTO notes VALUES ('r', 'from the migration')
"""
BROKEN = """
CREATE TABLE half (x INTEGER) STRICT;
DELETE FROM meta WHERE key = 'secret';
INSERT INTO no_such_table VALUES (1);
"""


NOW = database.newest_version()


def make(path: Path, *further: str) -> None:
    """Open a database as this version does, or as one that has further migrations."""
    database.open_for_writing(str(path), (*sql.MIGRATIONS, *further)).close()


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def found_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return database.version(connection, str(path))


def test_a_new_database_has_the_newest_version(tmp_path: Path) -> None:
    make(tmp_path / "db")
    assert found_version(tmp_path / "db") == database.newest_version() == 1 + len(sql.MIGRATIONS)


def everything(connection: sqlite3.Connection) -> list[list[Any]]:
    """All that SQLite says of a database, but for its secret and how often its tables changed."""
    counts = {"schema_version", "wal_checkpoint", "incremental_vacuum", "optimize", "shrink_memory"}
    names = {name for (name,) in connection.execute("PRAGMA pragma_list")} - counts
    rows = [connection.execute(f"PRAGMA {name}").fetchall() for name in sorted(names)]
    rows.append(connection.execute("SELECT * FROM sqlite_master").fetchall())
    return [*rows, [line for line in connection.iterdump() if "'secret'" not in line]]


def test_databases_in_memory_are_alike_but_for_their_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        closing(database.open_for_writing(database.MEMORY)) as one,
        closing(database.open_for_writing(database.MEMORY)) as other,
        closing(database.open_for_writing(database.MEMORY, [ADD_COLUMN])) as later,
        monkeypatch.context() as patched,
    ):
        # As in a build of SQLite that cannot do it.
        patched.setattr(database.StoreConnection, "deserialize", property(), raising=False)
        with closing(database.open_for_writing(database.MEMORY)) as made:
            assert everything(one) == everything(other) == everything(made)
            assert len(everything(one)[-1]) > 30
            secrets = {database.secret(each) for each in (one, other, made, later)}
            assert [len(secret) for secret in secrets] == [32] * 4
            one.execute("DELETE FROM meta")
            assert database.version(later, "later") == database.newest_version([ADD_COLUMN])
            assert database.version(made, "made") == database.newest_version()
            assert everything(other) == everything(made)


def test_migrations_run_in_order_and_once(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make(path)
    make(path, ADD_COLUMN, ADD_TRIGGER)
    assert found_version(path) == NOW + 2
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM notes").fetchall() == [("r", "from the migration")]
        (trigger,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchone()
        assert trigger.endswith("END")
    before = dump(path)
    make(path, ADD_COLUMN, ADD_TRIGGER)
    assert dump(path) == before


def test_a_migration_starts_where_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make(path)
    make(path, ADD_COLUMN)
    # The first one would fail if it ran again.
    make(path, ADD_COLUMN, ADD_TRIGGER)
    assert found_version(path) == NOW + 2


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make(path)
    before = dump(path)
    with pytest.raises(
        ConfigurationError, match=rf"schema {NOW + 2} failed, .*no_such_table"
    ) as raised:
        make(path, ADD_COLUMN, BROKEN)
    assert repr(str(path)) in str(raised.value)
    assert dump(path) == before
    assert found_version(path) == NOW
    make(path, ADD_COLUMN, ADD_TRIGGER)
    assert found_version(path) == NOW + 2


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make(path, ADD_COLUMN)
    before = path.read_bytes()
    with pytest.raises(
        ConfigurationError, match=rf"newer version of stephttp \(schema {NOW + 1}, this"
    ):
        make(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("statements", "complaint"),
    [
        (["CREATE TABLE t (x)"], "not one of stephttp"),
        (["CREATE TABLE meta (key, value)"], "not one of stephttp"),
        (["CREATE TABLE meta (key, value)", "CREATE TABLE runs (x)"], "does not tell the version"),
    ],
)
def test_a_database_of_others_is_not_changed(
    tmp_path: Path, statements: list[str], complaint: str
) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=complaint):
        make(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["db"]


@pytest.mark.parametrize("content", [b"root:x:0:0\n" * 100, b"SQLite format 3\0" + b"x" * 500])
async def test_a_file_that_is_no_database_is_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "passwd"
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="cannot open the database"):
        await Store(str(path)).open()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (content, 0o644)
    assert os.listdir(tmp_path) == ["passwd"]


@pytest.mark.parametrize("newer", [False, True])
async def test_the_mode_of_a_database_of_others_is_not_touched(tmp_path: Path, newer: bool) -> None:
    path = tmp_path / "db"
    if newer:
        make(path, ADD_COLUMN)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE contacts (name)")
    path.chmod(0o664)
    with pytest.raises(ConfigurationError, match="newer version" if newer else "not one of"):
        await Store(str(path)).open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    assert "db-lock" not in os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"0", "does not tell"),
        (b"-1", "does not tell"),
        (b"", "does not tell"),
        (None, "does not tell"),
        (2.5, "does not tell"),
        (b"1_0", "does not tell"),
        (b"9" * 5000, "does not tell"),
        (b"999999999", "newer version"),
        ("999", "newer version"),
    ],
)
def test_a_version_out_of_range_is_a_sentence(tmp_path: Path, value: Any, complaint: str) -> None:
    path = tmp_path / "db"
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("DROP TABLE meta")
        connection.execute("CREATE TABLE meta (key, value)")
        connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", (value,))
        connection.commit()
    before = path.read_bytes()
    for check in (lambda: make(path), lambda: check_file(str(path))):
        with pytest.raises(ConfigurationError, match=complaint):
            check()
    assert path.read_bytes() == before


async def test_a_lost_secret_is_told(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'secret'")
        connection.commit()
    with pytest.raises(ConfigurationError, match="lost its secret"):
        await Store(str(path)).open()


def test_numbers_of_migrations_have_no_gaps() -> None:
    assert sql.numbered(["README.md", "0003_b.sql", "0002_a.sql"]) == ["0002_a.sql", "0003_b.sql"]
    for names in (["0001_a.sql"], ["0002_a.sql", "0002_b.sql"], ["0002_a.sql", "0004_b.sql"]):
        with pytest.raises(ValueError, match="should have the number"):
            sql.numbered(names)


def test_migrated_files_are_like_new_ones(tmp_path: Path) -> None:
    """Every earlier schema is kept in `data`, and becomes the present one."""
    for version in range(1, database.newest_version()):
        (tmp_path / str(version)).mkdir()
        check_migration(tmp_path / str(version), version)


def check_migration(tmp_path: Path, version: int) -> None:
    released = Path(__file__).parent / "data" / f"schema-{version}.sql"
    path = tmp_path / "old"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(released.read_text())
        connection.execute(
            "INSERT INTO meta VALUES ('schema_version', ?)", (str(version).encode(),)
        )
        connection.commit()
    make(path)
    make(tmp_path / "new")

    def schema(file: Path) -> set[tuple[str, str, str]]:
        with closing(sqlite3.connect(file)) as connection:
            return set(
                connection.execute(
                    "SELECT master.name, columns.name, columns.type || columns.pk FROM "
                    "sqlite_master AS master, pragma_table_info(master.name) AS columns "
                    "UNION SELECT name, tbl_name, type FROM sqlite_master"
                )
            )

    assert schema(path) == schema(tmp_path / "new")


def test_a_process_that_is_killed_as_it_migrates_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The next start of either version works, and the migration is done once, as a whole."""
    path = tmp_path / "db"
    make(path)
    before = dump(path)
    # It has changed so much that a part of that is in the log, and never ends.
    endless = (
        "PRAGMA cache_size = 10;\nCREATE TABLE half (n INTEGER);\n"
        "INSERT INTO half WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)"
        " SELECT n FROM c;\n"
    )
    source = (
        "import sys\n"
        "from stephttp.engine.store import database\n"
        "database.open_for_writing(*sys.argv[1:2], sys.argv[2:])\n"
    )
    log = path.with_name("db-wal")
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", source, str(path), *sql.MIGRATIONS, endless]
        ) as child:
            deadline = time.monotonic() + 60
            while not log.exists() or not log.stat().st_size:
                assert child.poll() is None, "it has ended"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            child.kill()
        make(path)
        assert (dump(path), found_version(path)) == (before, NOW)
    make(path, ADD_COLUMN)
    assert found_version(path) == NOW + 1


def test_statements_are_told_apart() -> None:
    script = "-- one; two\nSELECT ';';\nSELECT 2;\n\n-- the end\n"
    assert [text.strip() for text in sql.statements(script)] == [
        "-- one; two\nSELECT ';';",
        "SELECT 2;",
    ]


def test_what_others_could_read_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make(path)
    os.chmod(path, 0o644)
    make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_one_engine_for_each_file(tmp_path: Path) -> None:
    path = tmp_path / "db"
    first = Store(str(path))
    await first.open()
    link = tmp_path / "link"
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(
            ConfigurationError, match=rf"another engine \(process {os.getpid()}\) works with"
        ):
            await Store(str(name)).open()
    # The refused ones have not disturbed it.
    await first.write(lambda connection: connection.execute("DELETE FROM timers").rowcount)
    await first.close()
    again = Store(str(path))
    await again.open()
    await again.close()


async def test_a_database_with_two_names_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "db", tmp_path / "other"
    make(path)
    other.hardlink_to(path)
    for name in (path, other):
        with pytest.raises(ConfigurationError, match=r"has 2 names \(hard links\)"):
            await Store(str(name)).open()
    other.unlink()
    store = Store(str(path))
    await store.open()
    await store.close()


@pytest.mark.skipif(sys.platform != "linux", reason="locks of files are apart from SQLite's there")
def test_a_lock_file_that_was_removed_opens_the_database_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "db"
    make(path)
    first = FileLock(str(path))
    first.acquire()
    (tmp_path / "db-lock").unlink()
    with pytest.raises(ConfigurationError, match="another engine"):
        FileLock(str(path)).acquire()
    with closing(sqlite3.connect(path)) as connection:  # SQLite's own locks are others
        connection.execute("DELETE FROM timers")
        connection.commit()
    first.release()
    second = FileLock(str(path))
    second.acquire()
    second.release()


async def test_a_store_that_cannot_open_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"no database" * 100)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="cannot open the database"):
            await Store(str(path)).open()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    code = (
        "import sys, signal\nfrom stephttp.engine.store.lock import FileLock\n"
        "FileLock(sys.argv[1]).acquire()\nprint('held', flush=True)\nsignal.pause()"
    )
    # `FileLock` keeps a descriptor, not an object that closes it: it lives as long as the process.
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigurationError, match=f"process {holder.pid}"):
            FileLock(path).acquire()
        holder.kill()
        holder.wait()
    lock = FileLock(path)
    lock.acquire()
    lock.release()


async def test_files_beside_the_database_are_private(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "db"))
    await store.open()
    await store.write(lambda connection: connection.execute("DELETE FROM timers").rowcount)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in Path(tmp_path).iterdir()}  # noqa: ASYNC240
    assert modes == dict.fromkeys(("db", "db-wal", "db-shm", "db-lock"), 0o600)
    await store.close()
