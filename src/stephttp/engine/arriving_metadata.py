"""Attaches metadata to runs as it arrives, also before the run does.

An SDK reports a run that never waits only when it is over; until then its code may have something
to say of it. That is kept in memory for a while.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, KeysView, Sequence
from contextlib import suppress
from functools import partial

from stephttp._wire.ids import ulid_ms
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run_metadata import MetadataUpdate
from stephttp.engine.model.sdk_links import STILL_COMING_S
from stephttp.engine.rules.metadata_updates import size_of
from stephttp.engine.store.runs import unknown
from stephttp.engine.store.store import Store
from stephttp.engine.work import metadata

_MOST_EARLY = 4 * 1024 * 1024
"""Bytes of what waits for its run."""
_EARLY_MS = 600_000
"""How long it waits."""


class ArrivingMetadata:
    """Attaches metadata to runs. It lives in the engine's event loop.

    Args:
        store: the database.
        clock: the time.
        changed: called with the id of a run whose metadata has changed.
    """

    def __init__(self, store: Store, clock: Clock, changed: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._early: OrderedDict[str, tuple[int, list[MetadataUpdate]]] = OrderedDict()
        self._size = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def run_ids(self) -> KeysView[str]:
        """A live view of the runs for which something waits."""
        return self._early.keys()

    async def attach(self, run_id: str, updates: Sequence[MetadataUpdate]) -> None:
        """Attach metadata to a run, or keep it until the run is reported.

        Raises:
            Refused: there is no such run, and none that old will come; or it would have too much
                metadata.
        """
        now_ms = self._clock.now_ms()
        unit = partial(metadata.attach, run_id=run_id, updates=updates, now_ms=now_ms)
        comes = abs(now_ms - ulid_ms(run_id)) < STILL_COMING_S * 1000

        def follow(known: bool) -> None:
            if known:
                self._changed(run_id)
            elif comes:
                self._await_run(run_id, updates, now_ms)

        if not await self._store.write(unit, follow) and not comes:
            raise unknown(run_id)

    def run_began(self, run_id: str) -> None:
        """Attach what came before the run."""
        _, updates = self._early.pop(run_id)
        self._size -= size_of(updates)
        task = asyncio.create_task(self._attach_early(run_id, updates))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Return once all that is being attached is stored."""
        await asyncio.gather(*self._tasks)

    async def _attach_early(self, run_id: str, updates: Sequence[MetadataUpdate]) -> None:
        for one in updates:
            with suppress(Refused):
                await self.attach(run_id, [one])

    def _await_run(self, run_id: str, updates: Sequence[MetadataUpdate], now_ms: int) -> None:
        self._early.setdefault(run_id, (now_ms, []))[1].extend(updates)
        self._size += size_of(updates)
        while self._early and (self._size > _MOST_EARLY or self._oldest_ms < now_ms - _EARLY_MS):
            _, (_, dropped) = self._early.popitem(last=False)
            self._size -= size_of(dropped)

    @property
    def _oldest_ms(self) -> int:
        return next(iter(self._early.values()))[0]
