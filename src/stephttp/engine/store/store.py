"""The SQLite file and the threads that own its connections.

One thread owns the connection that writes. It takes everything that queued up while it was
busy, runs it in one transaction, commits once, and only then tells the callers: so a commit's
cost is shared, and nothing is acknowledged before it is on the disk. Each unit of work has a
savepoint of its own, so that one that fails takes nothing else with it. A second thread reads
for the SDKs, and a few more for people who look at runs (`browse`), each from a read-only
connection of its own (a database in memory has only one connection, and one thread).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from stephttp.engine.store import counts, database
from stephttp.engine.store.lock import FileLock
from stephttp.errors import StephttpError

T = TypeVar("T")
Unit = Callable[[sqlite3.Connection], Any]
Then = Callable[[Any], None]
Observer = Callable[[int, float, bool], None]
_Caller = tuple["asyncio.Future[Any]", "Then | None"]
_Job = tuple[Unit, _Caller]
_Outcome = tuple[_Caller, Any, "BaseException | None"]

_LARGEST_BATCH = 256
_BROWSERS = 2
"""Threads for people's queries, which may take a while."""


class StoreClosedError(StephttpError):
    """The engine is stopping, and its store takes no more work."""


class Store:
    """Runs units of work (functions of a connection) and hands back what they return.

    Open it in the event loop that will use it.

    Args:
        path: the SQLite file, or `:memory:`.
        observe: called after each transaction that writes, in the writer's thread: how many units
            it was made of, how many seconds it took, and whether it was committed.
    """

    def __init__(self, path: str, observe: Observer | None = None) -> None:
        self.path = path
        self._observe = observe
        self.secret = b""
        """Random bytes that belong to this database; tokens are signed with them."""
        self._writer: _Workers | None = None
        self._reader: _Workers | None = None
        self._browsers: _Workers | None = None
        self._lock = FileLock(path)

    async def open(self) -> None:
        """Open (or make) the database and start the threads.

        Raises:
            ConfigurationError: the file cannot be opened, is no database of ours, was written by
                a newer version, or another engine works with it.
        """
        writing, *reading = await asyncio.to_thread(self._open)
        observe = self._observe
        self._writer = _Workers([writing], "BEGIN IMMEDIATE", "stephttp-writer", observe=observe)
        if reading:
            self._reader = _Workers(reading[:1], "BEGIN", "stephttp-reader")
            self._browsers = _Workers(reading[1:], "BEGIN", "stephttp-browser", largest_batch=1)

    def _open(self) -> list[sqlite3.Connection]:
        in_memory = self.path == database.MEMORY
        if not in_memory:
            self._lock.acquire()
        try:
            writing = database.open_for_writing(self.path)
            try:
                self.secret = database.secret(writing)
                count = 0 if in_memory else 1 + _BROWSERS
                return [writing, *(database.connect_read_only(self.path) for _ in range(count))]
            except BaseException:
                writing.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    async def close(self) -> None:
        """Finish what is queued, then close the database. Later work is refused."""
        workers = (self._browsers, self._reader, self._writer)
        self._browsers = self._reader = self._writer = None
        for worker in workers:
            if worker is not None:
                await asyncio.to_thread(worker.close)
        self._lock.release()

    @property
    def queued(self) -> dict[str, int]:
        """Units of work that wait for a thread, by what it does."""
        workers = {"write": self._writer, "read": self._reader, "browse": self._browsers}
        return {name: 0 if one is None else one.queued for name, one in workers.items()}

    def wal_size(self) -> int:
        """Bytes of the write-ahead log's file; 0 for a database in memory."""
        with suppress(OSError):
            return os.stat(f"{self.path}-wal").st_size
        return 0

    async def write(
        self,
        unit: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] | None = None,
    ) -> T:
        """Run `unit` in a transaction and return its result once that is committed.

        Args:
            unit: what to do; it runs in the writer's thread.
            then: called in the event loop with the result once that is committed, even if the
                caller was cancelled meanwhile.

        Raises:
            StoreClosedError: the store is closed.
            Exception: what `unit` raised (nothing of it is stored then), or the
                `sqlite3.Error` of a failed commit.
        """
        return await self._run(self._writer, unit, then)

    async def read(self, unit: Callable[[sqlite3.Connection], T]) -> T:
        """Run `unit`, which only reads, in a consistent snapshot.

        Raises:
            StoreClosedError: the store is closed.
            Exception: what `unit` raised.
        """
        return await self._run(self._reader or self._writer, unit, None)

    async def browse(self, unit: Callable[[sqlite3.Connection], T]) -> T:
        """Run `unit` as `read` does, but where it keeps no SDK waiting, however long it takes.

        Raises:
            StoreClosedError: the store is closed.
            Exception: what `unit` raised.
        """
        return await self._run(self._browsers or self._writer, unit, None)

    async def _run(
        self,
        worker: _Workers | None,
        unit: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] | None,
    ) -> T:
        if worker is None:
            raise StoreClosedError("the engine is stopping")
        result: T = await worker.submit(unit, then)
        return result


class _Workers:
    """Threads that own a connection each, and run what is queued for all of them, in batches."""

    def __init__(
        self,
        connections: Sequence[sqlite3.Connection],
        begin: str,
        name: str,
        largest_batch: int = _LARGEST_BATCH,
        observe: Observer | None = None,
    ) -> None:
        self.connections = connections
        self._begin = begin
        self._largest_batch = largest_batch
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(connection,), name=name, daemon=True)
            for connection in connections
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        return self._queue.qsize()

    def submit(self, unit: Unit, then: Then | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put((unit, (future, then)))
        return future

    def close(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, connection: sqlite3.Connection) -> None:
        last = False
        while not last:
            batch, last = self._take()
            if batch:
                outcomes = self._transaction(connection, batch)
                try:
                    self._loop.call_soon_threadsafe(_tell, outcomes)
                except RuntimeError:
                    break  # The loop is gone, and with it everybody who waited.
        connection.close()

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for work; return all there is, and whether it is the last."""
        batch: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            batch.append(job)
            if len(batch) == self._largest_batch:
                return batch, False
            try:
                job = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _transaction(self, connection: sqlite3.Connection, batch: list[_Job]) -> list[_Outcome]:
        begun = time.perf_counter()
        try:
            connection.execute(self._begin)
            outcomes = [_savepoint(connection, unit, caller) for unit, caller in batch]
            counts.store_notes(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            self._tell_observer(len(batch), begun, False)
            # If even this fails the next batch meets it again; this thread must live on, because
            # everybody waits for it.
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            counts.drop_notes(connection)
            return [(caller, None, error) for _, caller in batch]
        self._tell_observer(len(batch), begun, True)
        return outcomes

    def _tell_observer(self, units: int, begun: float, committed: bool) -> None:
        if self._observe is not None:
            self._observe(units, time.perf_counter() - begun, committed)


def _savepoint(connection: sqlite3.Connection, unit: Unit, caller: _Caller) -> _Outcome:
    connection.execute("SAVEPOINT unit")
    noted = counts.count_notes(connection)
    try:
        result = unit(connection)
    except BaseException as error:
        # A full disk makes SQLite roll back the whole transaction by itself; then what the
        # units before this one did is lost as well, and all of the batch must hear of it.
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO unit")
        connection.execute("RELEASE unit")
        counts.drop_notes(connection, noted)
        return caller, None, error
    connection.execute("RELEASE unit")
    return caller, result, None


def _tell(outcomes: list[_Outcome]) -> None:
    for (future, _), result, error in outcomes:
        if future.done():
            continue  # Its caller was cancelled meanwhile; the work is stored all the same.
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
    for (_, then), result, error in outcomes:
        if then is not None and error is None:
            then(result)
