"""Spans of users' code: kept with their run, and for a while in memory if that is not there yet.

An SDK reports a run that never waits when it is over, perhaps after its spans.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import msgspec

from stephttp.engine.model.settings import Settings
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.traces.otlp import Span

_MOST_EARLY = 8 * 1024 * 1024
"""Bytes of spans that wait for their runs."""

_OVERHEAD = 500
"""What a span takes beside its details, about."""

_EARLY_MS = 60_000
"""How long they do."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of spans.

    Attributes:
        count: how many are stored; those that were there already count, too.
        full: how many did not fit, because their run has as many as it may have.
        unknown: those whose runs are not there.
    """

    count: int
    full: int
    unknown: list[Span]


def store(connection: sqlite3.Connection, spans: Sequence[Span], settings: Settings) -> Stored:
    """Keep spans of runs that are there, as far as there is room."""
    ids = msgspec.json.encode(sorted({span.run_id for span in spans})).decode()
    room = {
        run_id: (settings.max_run_spans - count, settings.max_run_spans_bytes - size)
        for run_id, count, size in connection.execute(QUERIES["span_room"], (ids,))
    }
    count, unknown = 0, []
    for span in spans:
        if span.run_id not in room:
            unknown.append(span)
            continue
        left, left_bytes = room[span.run_id]
        if left <= 0 or left_bytes < len(span.details):
            continue
        if connection.execute(QUERIES["insert_span"], astuple(span)).rowcount:
            room[span.run_id] = (left - 1, left_bytes - len(span.details))
        count += 1
    return Stored(count, len(spans) - len(unknown) - count, unknown)


def load(connection: sqlite3.Connection, run_id: str) -> list[Span]:
    """The spans of a run, by their begin."""
    return [Span(*row) for row in connection.execute(QUERIES["run_spans"], (run_id,))]


class Early:
    """Spans that came before their runs."""

    def __init__(self) -> None:
        self._spans: OrderedDict[str, tuple[int, list[Span]]] = OrderedDict()
        self._size = 0

    def put(self, spans: Sequence[Span], now_ms: int) -> int:
        """Keep them for a while; how many others had to go for that."""
        dropped = self._drop_old(now_ms)
        for span in spans:
            self._spans.setdefault(span.run_id, (now_ms, []))[1].append(span)
            self._size += _size(span)
        while self._size > _MOST_EARLY:
            dropped += self._drop_first()
        return dropped

    def take(self, run_id: str) -> list[Span]:
        """Those of a run that is there now."""
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
