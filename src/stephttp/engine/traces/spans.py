"""Your OpenTelemetry spans in the database, with their runs: how many a run may have, and of
how many bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from stephttp.engine.model.settings import Settings
from stephttp.engine.store.many_rows import json_array
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.traces.otlp import Span


@dataclass(frozen=True, slots=True)
class Stored:
    """The outcome of storing spans.

    Attributes:
        count: how many are stored; those that were there already count, too.
        full: how many did not fit, because their run has as many as it may have.
        unknown: those whose runs are not there.
    """

    count: int
    full: int
    unknown: list[Span]


def store(connection: sqlite3.Connection, spans: Sequence[Span], settings: Settings) -> Stored:
    """Store the spans of known runs, as far as there is room."""
    ids = json_array(sorted({span.run_id for span in spans}))
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
    """Load the spans of a run, ordered by their start."""
    return [Span(*row) for row in connection.execute(QUERIES["run_spans"], (run_id,))]
