"""Stores your OpenTelemetry spans as they arrive in the engine, also those that arrive before their
run.
"""

from __future__ import annotations

from functools import partial

from stephttp.engine.live.early_parts import EarlyParts
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
        self.early = EarlyParts[Span](self._keep_early, _size_of, _MOST_EARLY, _EARLY_MS)
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._settings = settings

    async def keep(self, received: ReceivedSpans) -> int:
        """Store spans with their runs; those of unknown runs are kept for a while in memory.

        Returns:
            How many do not fit, because their runs have as many as they may have.
        """
        unit = partial(store, spans=received.spans, settings=self._settings)
        stored = await self._store.write(unit, self._await_runs)
        self._metrics.traced(stored.count, stored.full + len(received.problems))
        return stored.full

    async def _keep_early(self, run_id: str, spans: list[Span]) -> None:
        await self.keep(ReceivedSpans(spans, []))

    def _await_runs(self, stored: Stored) -> None:
        now_ms = self._clock.now_ms()
        dropped = sum(self.early.put(span.run_id, span, now_ms) for span in stored.unknown)
        self._metrics.traced(0, dropped)


def _size_of(span: Span) -> int:
    return len(span.details) + _OVERHEAD
