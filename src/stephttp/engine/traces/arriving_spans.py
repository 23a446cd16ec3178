"""Takes in spans of users' code; those that come before their run wait for it for a while."""

from __future__ import annotations

import asyncio
from functools import partial

from stephttp.engine.metrics import Metrics
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.settings import Settings
from stephttp.engine.store.store import Store
from stephttp.engine.traces.otlp import Received
from stephttp.engine.traces.spans import Early, Stored, store


class ArrivingSpans:
    """Stores spans with their runs.

    Attributes:
        early: spans whose runs are not known yet.
    """

    def __init__(self, store: Store, metrics: Metrics, clock: Clock, settings: Settings) -> None:
        self.early = Early()
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._settings = settings
        self._tasks: set[asyncio.Task[int]] = set()

    async def keep(self, received: Received) -> int:
        """Store spans; see `Engine.trace`."""
        unit = partial(store, spans=received.spans, settings=self._settings)
        stored = await self._store.write(unit, self._await_runs)
        self._metrics.traced(stored.count, stored.full + len(received.problems))
        return stored.full

    def run_began(self, run_id: str) -> None:
        """Store the spans that came before their run."""
        early = self.early.take(run_id)
        if early:
            task = asyncio.create_task(self.keep(Received(early, [])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Return once what is under way has been stored."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _await_runs(self, stored: Stored) -> None:
        dropped = self.early.put(stored.unknown, self._clock.now_ms())
        self._metrics.traced(0, dropped)
