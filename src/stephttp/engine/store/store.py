"""The one writer: a thread that commits what queued up in one transaction (group commit), and the
threads that read; a full disk.

One thread owns the connection that writes. It takes all that queued up while it was busy, runs it
in one transaction, and commits once, so that callers share the cost of a commit. Each unit of work
has a savepoint of its own, so that one that fails takes nothing else with it. A second thread reads
for the SDKs, and a few more for people (`browse`), each with a read-only connection of its own,
where there is nothing to roll back. (A database in memory has one connection and one thread.)

The order, from a request to its acknowledgement:

1. event loop: a caller queues its unit of work and awaits a future.
2. writer thread: BEGIN; for each unit a SAVEPOINT, the unit, and RELEASE (ROLLBACK TO if it
   raised); COMMIT. If the COMMIT fails, all units of the transaction have failed.
3. event loop, once for the transaction: every future gets its result, then each unit's `then` wakes
   what waits for its changes. The callers run in later turns of the loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar, cast

from stephttp.engine.store import counts, database
from stephttp.engine.store.lock import FileLock
from stephttp.errors import StephttpError

T = TypeVar("T")
Item = TypeVar("Item")
Unit = Callable[[sqlite3.Connection], T]
Then = Callable[[T], None]
Observer = Callable[[int, float, bool], None]

_LARGEST_BATCH = 256
_BROWSERS = 2  # threads for people's queries, which may take a while


class _Job(NamedTuple):
    """A unit of work; with an `item`, it is done together with others of the same unit."""

    unit: Callable[..., Any]
    item: Any = None
    then: Then[Any] | None = None


_Queued = tuple[_Job, "asyncio.Future[Any]"]
_Outcome = tuple[_Queued, Any, "BaseException | None"]


class StoreClosedError(StephttpError):
    """The engine is stopping, and its store takes no more work."""


class Store:
    """Runs units of work (functions of a connection) and hands back what they return.

    Open it in the event loop that will use it. The caller of a unit gets what that raises, or the
    `sqlite3.Error` of a failed commit; then nothing of it is stored. Once the store is closed, all
    raise `StoreClosedError`.

    Args:
        path: the SQLite file, or `:memory:`.
        observe: called after each transaction that writes, in the writer's thread: how many units
            it was made of, how many seconds it took, and whether it was committed.
    """

    def __init__(
        self, path: str, observe: Observer = lambda units, seconds, committed: None
    ) -> None:
        self.path = path
        self.secret = b""  # random bytes of this database, with which tokens are signed
        self._observe = observe
        self._writer: _Workers | None = None
        self._reader: _Workers | None = None
        self._browsers: _Workers | None = None
        self._lock = FileLock(path)

    async def open(self) -> None:
        """Open (or make) the database and start the threads.

        Raises:
            ConfigurationError: the file cannot be opened, is not an engine's, is of a newer
                version, or another engine works with it.
        """
        writing, *reading = await asyncio.to_thread(self._open)
        self._writer = _Workers([writing], "stephttp-writer", self._observe)
        if reading:
            self._reader = _Workers(reading[:1], "stephttp-reader", reads=True)
            self._browsers = _Workers(reading[1:], "stephttp-browser", reads=True, largest_batch=1)

    def _open(self) -> list[sqlite3.Connection]:
        in_memory = self.path == database.MEMORY
        with ExitStack() as undo:
            if not in_memory:
                database.refuse_foreign(self.path)
                self._lock.acquire()
                undo.callback(self._lock.release)
            writing = undo.enter_context(closing(database.open_for_writing(self.path)))
            self.secret = database.secret(writing)
            count = 0 if in_memory else 1 + _BROWSERS
            reading = [database.connect_read_only(self.path) for _ in range(count)]
            undo.pop_all()
        return [writing, *reading]

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
        return {name: 0 if one is None else one.queue.qsize() for name, one in workers.items()}

    async def write(self, unit: Unit[T], then: Then[T] | None = None) -> T:
        """Run `unit` in a transaction and return its result once that is committed.

        Args:
            unit: what to do; it runs in the writer's thread.
            then: called in the event loop with the result once that is committed, even if the
                caller was cancelled meanwhile.
        """
        return cast(T, await _open(self._writer).submit(_Job(unit, None, then)))

    async def write_together(
        self,
        unit: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]],
        item: Item,
        then: Then[T] | None = None,
    ) -> T:
        """Run `unit` as `write` does, once for all items that queued up: they share statements.

        Args:
            unit: stores items, and returns the outcome of each. If it raises, it is called again
                with each item alone, so that one does not spoil the others.
            item: this caller's item, not `None`; `then` gets its outcome.
        """
        return cast(T, await _open(self._writer).submit(_Job(unit, item, then)))

    async def read(self, unit: Unit[T]) -> T:
        """Run `unit`, which only reads, in a consistent snapshot."""
        return cast(T, await _open(self._reader or self._writer).submit(_Job(unit)))

    async def browse(self, unit: Unit[T]) -> T:
        """Run `unit` as `read` does, but where it keeps no SDK waiting, however long it takes."""
        return cast(T, await _open(self._browsers or self._writer).submit(_Job(unit)))


class _Workers:
    """Threads that own a connection each, and run what is queued for all of them, in batches."""

    def __init__(
        self,
        connections: Sequence[sqlite3.Connection],
        name: str,
        observe: Observer = lambda units, seconds, committed: None,
        *,
        reads: bool = False,
        largest_batch: int = _LARGEST_BATCH,
    ) -> None:
        self.connections = connections
        self._begin, self._do = ("BEGIN", _read) if reads else ("BEGIN IMMEDIATE", _savepoint)
        self._largest_batch = largest_batch
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self.queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(connection,), name=name, daemon=True)
            for connection in connections
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: _Job) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self.queue.put((job, future))
        return future

    def close(self) -> None:
        for _ in self._threads:
            self.queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, connection: sqlite3.Connection) -> None:
        last = False
        while not last:
            batch, last = self._take()
            if batch:
                outcomes = self._transaction(connection, batch)
                try:
                    self._loop.call_soon_threadsafe(_hand_back, outcomes)
                except RuntimeError:
                    break  # The loop is gone, and with it all callers.
        connection.close()

    def _take(self) -> tuple[list[_Queued], bool]:
        """Wait for work; return all there is, and whether it is the last."""
        batch: list[_Queued] = []
        queued = self.queue.get()
        while queued is not None:
            batch.append(queued)
            if len(batch) == self._largest_batch:
                return batch, False
            try:
                queued = self.queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _transaction(self, connection: sqlite3.Connection, batch: list[_Queued]) -> list[_Outcome]:
        begun = time.perf_counter()
        units = _units(batch)
        try:
            connection.execute(self._begin)
            outcomes = [one for unit in units for one in self._do(connection, unit)]
            counts.store_notes(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            self._observe(len(units), time.perf_counter() - begun, False)
            # If even this fails, the next batch meets it again. This thread must live on, because
            # all callers wait for it.
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            counts.drop_notes(connection)
            return [(queued, None, error) for queued in batch]
        self._observe(len(units), time.perf_counter() - begun, True)
        return outcomes


def _open(workers: _Workers | None) -> _Workers:
    if workers is None:
        raise StoreClosedError("the engine is stopping")
    return workers


def _units(batch: Sequence[_Queued]) -> list[list[_Queued]]:
    """Put together the jobs that share a unit of work, at the place of the first."""
    units: dict[object, list[_Queued]] = {}
    for number, queued in enumerate(batch):
        job = queued[0]
        units.setdefault(number if job.item is None else job.unit, []).append(queued)
    return list(units.values())


def _read(connection: sqlite3.Connection, unit: list[_Queued]) -> list[_Outcome]:
    (queued,) = unit
    try:
        return [(queued, queued[0].unit(connection), None)]
    except BaseException as error:
        return [(queued, None, error)]


def _savepoint(connection: sqlite3.Connection, unit: list[_Queued]) -> list[_Outcome]:
    connection.execute("SAVEPOINT unit")
    noted = counts.count_notes(connection)
    job = unit[0][0]
    try:
        if job.item is None:
            results = [job.unit(connection)]
        else:
            results = job.unit(connection, [one.item for one, _ in unit])
    except BaseException as error:
        # A full disk makes SQLite roll back the whole transaction by itself. The work of the
        # units before this one is lost as well then, and all callers of the batch must learn that.
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO unit")
        connection.execute("RELEASE unit")
        counts.drop_notes(connection, noted)
        if len(unit) > 1:
            return [outcome for one in unit for outcome in _savepoint(connection, [one])]
        return [(unit[0], None, error)]
    connection.execute("RELEASE unit")
    return [(one, result, None) for one, result in zip(unit, results, strict=True)]


def _hand_back(outcomes: list[_Outcome]) -> None:
    for (_, future), result, error in outcomes:
        if future.done():
            continue  # Its caller was cancelled meanwhile; the work is stored all the same.
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
    for (job, _), result, error in outcomes:
        if job.then is not None and error is None:
            job.then(result)
