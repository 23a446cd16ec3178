"""Backups of a database that is being written, and what must never be overwritten."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from stephttp.engine.store import database
from stephttp.engine.store.backup import backup
from stephttp.engine.store.check import check_file
from stephttp.errors import ConfigurationError

from .support import OTHER, RUN, sleep, step, world


def files(folder: Path) -> list[str]:
    """What is there, but for what SQLite leaves beside a database that is read."""
    return sorted(set(os.listdir(folder)) - {"db-wal", "db-shm"})


def silent(done: int, total: int) -> None:
    pass


async def test_a_backup_of_a_live_database_can_be_started_from(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    async with world(path=tmp_path / "db") as w:
        await w.post(step(), sleep())
        seen: list[tuple[int, int]] = []
        size = backup(str(tmp_path / "db"), str(copy), lambda *pages: seen.append(pages))
        assert size == copy.stat().st_size
        assert seen[-1][0] == seen[-1][1] > 0
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        await w.post(step(), sleep(), run_id=OTHER)
        secret = w.engine.store.secret
        clock = w.clock
    assert check_file(str(copy)).runs == {"async": 1}
    async with world(clock=clock, path=copy) as w:
        assert w.engine.store.secret == secret
        assert (await w.run(RUN))["status"] == "Running"
        assert (await w.http.get(f"/v1/runs/{OTHER}")).status_code == 404


def test_a_backup_is_one_moment_even_if_the_engine_writes_all_the_time(tmp_path: Path) -> None:
    """Two tables that are always written together are equal in the copy, and it ends."""
    source = tmp_path / "db"
    writing = database.open_for_writing(str(source))
    writing.execute("CREATE TABLE a (x, pad)")
    writing.execute("CREATE TABLE b (x, pad)")

    def add(number: int) -> None:
        writing.execute("BEGIN")
        for table in "ab":
            writing.execute(f"INSERT INTO {table} VALUES (?, zeroblob(3000))", (number,))
        writing.execute("COMMIT")

    for number in range(3000):
        add(number)
    added = 3000
    steps = 0

    def between(done: int, total: int) -> None:
        nonlocal added, steps
        steps += 1
        add(added)
        added += 1

    backup(str(source), str(tmp_path / "copy"), between)
    writing.close()
    assert steps >= 3, "the copy was made in one step, so nothing was written in between"
    with closing(sqlite3.connect(tmp_path / "copy")) as connection:
        numbers = [
            {x for (x,) in connection.execute(f"SELECT x FROM {table}")} for table in ("a", "b")
        ]
    assert numbers == [set(range(3000))] * 2


def test_a_copy_can_be_read_from_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    database.open_for_writing(str(tmp_path / "db")).close()
    backup(str(tmp_path / "db"), str(tmp_path / "copy"), silent)
    header = (tmp_path / "copy").read_bytes()[18:20]
    assert header == b"\x01\x01", "it is not in WAL mode, which needs files beside it"
    assert files(tmp_path) == ["copy", "db"]


def test_an_earlier_backup_is_replaced(tmp_path: Path) -> None:
    database.open_for_writing(str(tmp_path / "db")).close()
    copy = tmp_path / "copy"
    copy.write_text("an old one")
    backup(str(tmp_path / "db"), str(copy), silent)
    assert check_file(str(copy)).problems == ()


def test_a_backup_that_is_not_whole_replaces_nothing(tmp_path: Path) -> None:
    source, copy = tmp_path / "db", tmp_path / "copy"
    connection = database.open_for_writing(str(source))
    connection.execute(
        "INSERT INTO timers (run_id, step_id, kind, due_ms, job_id, attempt, unreached) "
        "VALUES ('nobody', '', 'resume', 1, '', 0, 0)"
    )
    connection.close()
    copy.write_text("an old one")
    with pytest.raises(ConfigurationError, match="is not whole: only async runs have timers"):
        backup(str(source), str(copy), silent)
    assert copy.read_text() == "an old one"
    assert files(tmp_path) == ["copy", "db"]


def test_databases_are_not_overwritten(tmp_path: Path) -> None:
    source, other, link = tmp_path / "db", tmp_path / "other", tmp_path / "link"
    link.symlink_to(source)
    database.open_for_writing(str(source)).close()
    for target in (source, link):
        with pytest.raises(ConfigurationError, match="replace the database itself"):
            backup(str(source), str(target), silent)
    live = database.open_for_writing(str(other))
    live.execute("DELETE FROM timers")
    with pytest.raises(ConfigurationError, match="a database in use"):
        backup(str(source), str(other), silent)
    live.close()


def test_what_cannot_be_backed_up(tmp_path: Path) -> None:
    source = tmp_path / "db"
    for content, complaint in (
        (None, "cannot back up .* unable to open"),
        (b"", "is an empty database"),
        (b"text " * 1000, "not a database"),
    ):
        if content is not None:
            source.write_bytes(content)
        with pytest.raises(ConfigurationError, match=complaint):
            backup(str(source), str(tmp_path / "copy"), silent)
    source.unlink()
    database.open_for_writing(str(source)).close()
    with pytest.raises(ConfigurationError, match="is a directory"):
        backup(str(source), str(tmp_path), silent)
    with pytest.raises(ConfigurationError, match="No such file"):
        backup(str(source), str(tmp_path / "missing" / "copy"), silent)
    assert files(tmp_path) == ["db"]


def test_a_backup_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    database.open_for_writing(str(tmp_path / "db")).close()
    threads = threading.enumerate()  # other tests may have left some in their pools

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(str(tmp_path / "db"), str(tmp_path / "copy"), interrupt)
    assert files(tmp_path) == ["db"]
    assert set(threading.enumerate()) <= set(threads)
