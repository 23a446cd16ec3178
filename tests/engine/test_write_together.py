"""What comes one by one is stored many at a time."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from stephttp.engine.store.store import Store


class Storage:
    """Stores words, when it is let; all or none."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.batches: list[list[str]] = []

    def store(self, connection: sqlite3.Connection, words: Sequence[str]) -> list[int]:
        self.batches.append(list(words))
        self.begun.set()
        assert self.gate.wait(10)
        if "bad" in words:
            raise ValueError("bad")
        return [len(word) for word in words]


@pytest.fixture
async def database() -> AsyncIterator[Store]:
    store = Store(":memory:")
    await store.open()
    yield store
    await store.close()


async def test_what_comes_while_one_is_stored_is_the_next_batch(database: Store) -> None:
    storage = Storage()
    puts = [asyncio.ensure_future(database.write_together(storage.store, "a"))]
    await asyncio.sleep(0)
    assert await asyncio.to_thread(storage.begun.wait, 10)
    puts += [
        asyncio.ensure_future(database.write_together(storage.store, word))
        for word in ("bb", "ccc")
    ]
    await asyncio.sleep(0)
    storage.gate.set()
    assert await asyncio.gather(*puts) == [1, 2, 3]
    assert storage.batches == [["a"], ["bb", "ccc"]]
    last = await database.write_together(storage.store, "dddd")
    assert last == 4, "and again, after it was empty"


async def test_one_that_cannot_be_stored_spoils_no_other(database: Store) -> None:
    storage = Storage()
    storage.gate.set()
    outcomes = await asyncio.gather(
        *(database.write_together(storage.store, word) for word in ("a", "bad", "ccc")),
        return_exceptions=True,
    )
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], ValueError)
    assert outcomes[2] == 3


async def test_a_caller_that_leaves_does_not_keep_others_waiting(database: Store) -> None:
    storage = Storage()
    leaving, staying = (
        asyncio.ensure_future(database.write_together(storage.store, word)) for word in ("a", "bb")
    )
    await asyncio.sleep(0)
    leaving.cancel()
    storage.gate.set()
    assert await staying == 2
    with pytest.raises(asyncio.CancelledError):
        await leaving
