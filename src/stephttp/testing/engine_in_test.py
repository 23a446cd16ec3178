"""The engine, as a test uses it: `until`, `send_event`, `send_signal`, `cancel`, `runs`,
`events`, `save`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import EventFilter, Page, Paging, RunFilter
from stephttp.engine.web.event_message import store_event
from stephttp.testing.passing_time import MOST_TURNS, PassingTime, Stuck
from stephttp.testing.recorded import RecordedEvent, RecordedRun, recorded, recorded_event

Item = TypeVar("Item")


class EngineInTest(PassingTime):
    """An engine whose clock the test moves: what the test sends to it, and sees of it."""

    async def until(
        self, run_id: str, reached: Callable[[RecordedRun], bool] | None, what: str
    ) -> None:
        """Let time pass until a run has come somewhere.

        Args:
            run_id: the run.
            reached: whether it has; `None`: whether it has ended.
            what: names that, for the message.

        Raises:
            Stuck: it does not come there.
        """
        await self.settle()
        for _ in range(MOST_TURNS):
            self.check()
            # Of a run with many steps, the status is read much faster than all of it.
            status = await self.status(run_id)
            ended = status is not None and status.ended
            if ended if reached is None else reached(await self.run(run_id)):
                return
            if ended:
                run = await self.run(run_id)
                raise Stuck(f"the run ended before it {what}:\n\n{run}")
            if not await self.turn():
                run = await self.run(run_id)
                waits = "; ".join(map(str, run.waits)) or "its handler"
                raise Stuck(
                    f"nothing is due any more, and the run never {what}. It waits for: {waits}. "
                    f"Send what it waits for: client.send_event(...)\n\n{run}"
                )
        raise Stuck(f"after {MOST_TURNS} waits the run has not {what}; does it loop forever?")

    async def run(self, run_id: str) -> RecordedRun:
        """Return a run as it stands now.

        Raises:
            LookupError: the engine does not have it.
        """
        try:
            return recorded(await self.engine.reader.run(run_id))
        except Refused as refused:
            raise LookupError(f"the engine has no run {run_id}: {refused}") from None

    async def runs(self) -> list[RecordedRun]:
        """Return all runs, in the order in which they began."""
        await self.settle()
        rows = await _all(partial(self.engine.reader.runs, RunFilter()))
        return [await self.run(row.run_id) for row in rows]

    async def events(self) -> list[RecordedEvent]:
        """Return all events, in the order in which they came."""
        await self.settle()
        return list(
            map(recorded_event, await _all(partial(self.engine.reader.events, EventFilter())))
        )

    async def send_event(self, name: str, data: Any, event_id: str | None) -> None:
        """Send an event, as one from outside."""
        event: dict[str, Any] = {"name": name, "data": {} if data is None else data}
        if event_id is not None:
            event["id"] = event_id
        await self.settle()
        await store_event(self.engine, msgspec.json.encode(event))
        await self.settle()

    async def send_signal(self, name: str, data: Any) -> str:
        """Send a signal; return the id of the run that waited for it.

        Raises:
            AssertionError: no run waits for it.
        """
        await self.settle()
        try:
            run_id = await self.engine.signal(name, msgspec.json.encode(data))
        except Refused as refused:
            awaited = [wait.key for run in await self.runs() for wait in run.waits
                       if wait.kind == "signal"]  # fmt: skip
            known = ", ".join(map(repr, awaited)) or "no signal"
            raise AssertionError(
                f"signal {name!r}: {refused}, since no run waits for it; they wait for {known}"
            ) from None
        await self.settle()
        return run_id

    async def cancel(self, run_id: str) -> None:
        """End a run as cancelled."""
        await self.settle()
        await self.engine.cancel(run_id)
        await self.settle()

    async def save(self, path: Path) -> None:
        """Write the engine's database to a file, for `stephttp start --db` and its dashboard."""
        await self.settle()

        # Not `backup`, which waits for the transaction in which it is called.
        content = await self.engine.store.read(sqlite3.Connection.serialize)
        await asyncio.to_thread(path.write_bytes, content)


async def _all(page: Callable[[Paging], Awaitable[Page[Item]]]) -> list[Item]:
    """Return what is on all pages, oldest first."""
    found: list[Item] = []
    cursor: str | None = None
    while True:
        newest = await page(Paging(limit=100, cursor=cursor))
        found += newest.items
        cursor = newest.older
        if cursor is None:
            return found[::-1]
