"""An application whose handlers answer when the test says so, for what waits for its turn."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from typing import Any

import httpx2

from tests.engine.functions.support import body_of, returns
from tests.engine.support import World, until


class Queue:
    """Calls by the `n` of their events, in the order in which they came.

    Attributes:
        calls: of every call, the function and `n`.
        open: the calls that are under way.
        most: how many were under way at a time, at most, by function.
        answers: what calls are answered with, by `n`; else the function returns.
        hold: whether calls are answered only when the test says so.
    """

    def __init__(self, w: World, *, hold: bool = True) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.open: dict[Any, asyncio.Event] = {}
        self.functions: dict[Any, str] = {}
        self.most: Counter[str] = Counter()
        self.answers: dict[Any, list[httpx2.Response]] = {}
        self.hold = hold
        self._w = w
        w.reach(httpx2.MockTransport(self._answer))

    @property
    def order(self) -> list[Any]:
        """Return the `n` of every call."""
        return [n for _, n in self.calls]

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        fn, n = request.url.params["fnId"], body_of(request)["event"]["data"]["n"]
        self.calls.append((fn, n))
        self.open[n], self.functions[n] = asyncio.Event(), fn
        under_way = Counter(self.functions[one] for one in self.open)
        self.most[fn] = max(self.most[fn], under_way[fn])
        try:
            if self.hold:
                await self.open[n].wait()
            return self.answers[n].pop(0) if self.answers.get(n) else returns(n)
        finally:
            del self.open[n]

    async def settled(self) -> None:
        """Wait until the engine has taken up all that it may."""
        executor = self._w.engine.executor

        def all_arrived() -> bool:
            return len(executor.busy) == len(self.open)

        while True:
            await self._w.engine.functions.backlog.idle()
            await until(all_arrived)
            await executor.looked()
            if all_arrived():
                return

    async def end(self, *numbers: Any) -> None:
        """Answer calls."""
        for n in numbers:
            self.open[n].set()
        await until(lambda: not set(numbers) & set(self.open))
        await self.settled()


async def events(w: World, *data: dict[str, Any], name: str = "go") -> list[str]:
    """Send events in one request, and return their ids."""
    sent = [{"name": name, "data": one} for one in data]
    response = await w.http.post("/e/key", json=sent)
    assert response.status_code == 200, response.text
    ids: list[str] = response.json()["ids"]
    return ids


async def lanes(w: World) -> Counter[str]:
    """Count the timers in the lanes of gates, by the kind of the gate."""

    def read(connection: sqlite3.Connection) -> list[tuple[str]]:
        return connection.execute("SELECT aside FROM timers WHERE aside >= '~'").fetchall()

    return Counter(name.split()[0][1:] for (name,) in await w.engine.store.read(read))


async def gates(w: World) -> Counter[str]:
    """Count the gates that are stored, by their kind."""

    def read(connection: sqlite3.Connection) -> list[tuple[str]]:
        return connection.execute("SELECT name FROM gates").fetchall()

    return Counter(name.split()[0][1:] for (name,) in await w.engine.store.read(read))


def ns(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    """The data of events."""
    return [{"n": n, **more} for n in numbers]
