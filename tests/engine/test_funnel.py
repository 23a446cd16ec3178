"""What comes one by one is stored many at a time."""

import asyncio
from collections.abc import Sequence

import pytest

from stephttp.engine.store.funnel import Funnel


class Storage:
    """Stores words, when it is let; all or none."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.batches: list[list[str]] = []

    async def store(self, words: Sequence[str]) -> list[int]:
        self.batches.append(list(words))
        self.begun.set()
        await self.gate.wait()
        if "bad" in words:
            raise ValueError("bad")
        return [len(word) for word in words]


async def test_what_comes_while_one_is_stored_is_the_next_batch() -> None:
    storage = Storage()
    funnel = Funnel(storage.store)
    puts = [asyncio.ensure_future(funnel.put("a"))]
    await storage.begun.wait()
    puts += [asyncio.ensure_future(funnel.put(word)) for word in ("bb", "ccc")]
    await asyncio.sleep(0)
    storage.gate.set()
    assert await asyncio.gather(*puts) == [1, 2, 3]
    assert storage.batches == [["a"], ["bb", "ccc"]]
    assert await funnel.put("dddd") == 4, "and again, after it was empty"


async def test_one_that_cannot_be_stored_spoils_no_other() -> None:
    storage = Storage()
    storage.gate.set()
    funnel = Funnel(storage.store)
    outcomes = await asyncio.gather(
        *(funnel.put(word) for word in ("a", "bad", "ccc")), return_exceptions=True
    )
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], ValueError)
    assert outcomes[2] == 3


async def test_a_caller_that_leaves_does_not_keep_others_waiting() -> None:
    storage = Storage()
    funnel = Funnel(storage.store)
    leaving, staying = (asyncio.ensure_future(funnel.put(word)) for word in ("a", "bb"))
    await storage.begun.wait()
    leaving.cancel()
    storage.gate.set()
    assert await staying == 2
    with pytest.raises(asyncio.CancelledError):
        await leaving
