"""Stores your OpenTelemetry spans as they arrive in the engine, also those that arrive before their
run.

An SDK reports a run that never waits only when it is over, perhaps after its spans. Those are kept
in memory for a while.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import KeysView, Sequence
from functools import partial

from stephttp.engine.metrics import Metrics
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.settings import Settings
from stephttp.engine.store.store import Store
from stephttp.engine.traces.otlp import ReceivedSpans, Span
from stephttp.engine.traces.spans import Stored, store

_MOST_EARLY = 8 * 1024 * 1024
"""Bytes of spans that wait for their runs."""

_EARLY_MS = 60_000
"""How long they wait."""

_OVERHEAD = 500
"""Bytes that a span takes beside its details, about."""


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

    async def keep(self, received: ReceivedSpans) -> int:
        """Store spans; see `Engine.trace`."""
        unit = partial(store, spans=received.spans, settings=self._settings)
        stored = await self._store.write(unit, self._await_runs)
        self._metrics.traced(stored.count, stored.full + len(received.problems))
        return stored.full

    def run_began(self, run_id: str) -> None:
        """Store the spans that came before their run."""
        early = self.early.take(run_id)
        if early:
            task = asyncio.create_task(self.keep(ReceivedSpans(early, [])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Return once all spans that are being stored are stored."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _await_runs(self, stored: Stored) -> None:
        dropped = self.early.put(stored.unknown, self._clock.now_ms())
        self._metrics.traced(0, dropped)


class Early:
    """Spans that came before their runs."""

    def __init__(self) -> None:
        self._spans: OrderedDict[str, tuple[int, list[Span]]] = OrderedDict()
        self._size = 0

    @property
    def run_ids(self) -> KeysView[str]:
        """A live view of the runs that spans wait for."""
        return self._spans.keys()

    def put(self, spans: Sequence[Span], now_ms: int) -> int:
        """Keep spans for a while, and return how many others had to go for that."""
        dropped = self._drop_old(now_ms)
        for span in spans:
            self._spans.setdefault(span.run_id, (now_ms, []))[1].append(span)
            self._size += _size(span)
        while self._size > _MOST_EARLY:
            dropped += self._drop_first()
        return dropped

    def take(self, run_id: str) -> list[Span]:
        """Remove and return the spans of a run."""
        _, spans = self._spans.pop(run_id, (0, []))
        self._size -= sum(map(_size, spans))
        return spans

    def _drop_old(self, now_ms: int) -> int:
        dropped = 0
        while self._spans and next(iter(self._spans.values()))[0] < now_ms - _EARLY_MS:
            dropped += self._drop_first()
        return dropped

    def _drop_first(self) -> int:
        _, (_, spans) = self._spans.popitem(last=False)
        self._size -= sum(map(_size, spans))
        return len(spans)


def _size(span: Span) -> int:
    return len(span.details) + _OVERHEAD
