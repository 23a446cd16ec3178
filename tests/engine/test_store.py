"""The writer thread: group commit, savepoints, failures, files."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stephttp.engine.store import Store, StoreClosedError
from stephttp.errors import ConfigurationError
from tests.examples import examples


@asynccontextmanager
async def opened(path: str | Path = ":memory:") -> AsyncGenerator[Store]:
    store = Store(str(path))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def put(key: str, *, fail: BaseException | None = None) -> Any:
    def unit(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO meta VALUES (?, x'')", (key,))
        if fail is not None:
            raise fail
        return key

    return unit


def keys(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT key FROM meta")
    return {key for (key,) in rows} - {"schema_version", "secret"}


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


class Gate:
    """Holds the writer, so that what is written meanwhile becomes one batch."""

    def __init__(self, store: Store) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = asyncio.Event()
        self._open = threading.Event()
        self._task = asyncio.ensure_future(store.write(self._hold))

    def _hold(self, connection: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self._held.set)
        self._open.wait()

    async def held(self) -> None:
        await self._held.wait()

    async def release(self) -> None:
        self._open.set()
        await self._task


async def batch(store: Store, *units: Any) -> list[Any]:
    """Run units in one transaction; return results and exceptions."""
    gate = Gate(store)
    await gate.held()
    tasks = [asyncio.ensure_future(store.write(unit)) for unit in units]
    await asyncio.sleep(0)
    await gate.release()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_queued_is_committed_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as store:
        statements: list[str] = []
        await store.write(lambda connection: connection.set_trace_callback(statements.append))
        await batch(store, put("a"), put("b"), put("c"))
        # Of the tracing unit itself, of the gate, and one of the whole batch.
        assert statements.count("COMMIT") == 3
        assert await store.read(keys) == {"a", "b", "c"}


async def test_a_failing_unit_takes_nothing_else_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as store:
        error = ValueError("no")
        results = await batch(store, put("a"), put("b", fail=error), put("a"), put("c"))
        assert results[0] == "a"
        assert results[1] is error
        assert isinstance(results[2], sqlite3.IntegrityError)
        assert results[3] == "c"
        assert await store.read(keys) == {"a", "c"}


async def test_a_transaction_that_sqlite_gave_up_fails_the_whole_batch(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as store:

        def give_up(connection: sqlite3.Connection) -> None:
            connection.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

        results = await batch(store, put("a"), give_up, put("b"))
        assert [str(result) for result in results] == ["database or disk is full"] * 3
        assert await store.read(keys) == set()
        assert await store.write(put("a")) == "a"


async def test_a_failing_commit_fails_the_batch(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as store:

        def break_commit(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            connection.execute("INSERT INTO child VALUES (1)")

        def make(connection: sqlite3.Connection) -> None:
            connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
            connection.execute("CREATE TABLE child (id REFERENCES parent)")

        await store.write(make)
        # The pragma does nothing inside a transaction, so it is set in between two.
        assert store._writer is not None
        store._writer.connections[0].execute("PRAGMA foreign_keys = ON")
        results = await batch(store, put("a"), break_commit)
        assert [type(result) for result in results] == [sqlite3.IntegrityError] * 2
        assert await store.read(keys) == set()


async def test_a_cancelled_caller_does_not_undo_its_work() -> None:
    async with opened() as store:
        gate = Gate(store)
        await gate.held()
        told: list[str] = []
        task = asyncio.ensure_future(store.write(put("a"), told.append))
        await asyncio.sleep(0)
        task.cancel()
        await gate.release()
        assert await store.read(keys) == {"a"}
        assert told == ["a"]


async def test_the_reader_cannot_write(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as store:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await store.read(put("a"))


async def test_a_closed_store_refuses_work() -> None:
    async with opened() as store:
        pass
    with pytest.raises(StoreClosedError):
        await store.write(put("a"))


async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as store:
        tasks = [asyncio.ensure_future(store.write(put(str(n)))) for n in range(10)]
        await asyncio.sleep(0)
    assert [await task for task in tasks] == [str(n) for n in range(10)]


async def test_a_file_is_private_and_keeps_its_secret(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with opened(path) as store:
        await store.write(put("a"))
        secret = store.secret
        assert modes(tmp_path) == {0o600}
    async with opened(path) as store:
        assert store.secret == secret
        assert await store.read(keys) == {"a"}
    async with opened() as other:
        assert other.secret != secret


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with opened(path) as store:
        await store.write(
            lambda c: c.execute("UPDATE meta SET value = x'3939' WHERE key = 'schema_version'")
        )
    with pytest.raises(ConfigurationError, match=r"newer version of stephttp \(schema 99"):
        await Store(str(path)).open()


async def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("dear diary, " * 100)
    with pytest.raises(ConfigurationError, match="cannot open"):
        await Store(str(text)).open()
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(ConfigurationError, match="not one of stephttp"):
        await Store(str(other)).open()
    with pytest.raises(ConfigurationError, match="cannot open"):
        await Store(str(tmp_path / "missing" / "db")).open()


@settings(max_examples=examples(25, 500), deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6), max_size=5))
def test_exactly_what_was_acknowledged_is_there(batches: list[list[tuple[int, bool]]]) -> None:
    """Whatever fails next to it: an acknowledged unit is stored, a failed one is not."""

    async def check(path: Path) -> None:
        acknowledged: set[str] = set()
        async with opened(path) as store:
            for units in batches:
                failing = ValueError("no")
                results = await batch(
                    store, *(put(str(n), fail=failing if bad else None) for n, bad in units)
                )
                acknowledged |= {result for result in results if isinstance(result, str)}
                assert await store.read(keys) == acknowledged
        async with opened(path) as store:
            assert await store.read(keys) == acknowledged

    with TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder) / "db"))


async def test_a_commit_on_a_file_reaches_the_disk(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs.db"))
    await store.open()
    full, wal = await store.write(
        lambda connection: (
            connection.execute("PRAGMA synchronous").fetchone()[0],
            connection.execute("PRAGMA journal_mode").fetchone()[0],
        )
    )
    assert (full, wal) == (2, "wal")
    await store.close()
