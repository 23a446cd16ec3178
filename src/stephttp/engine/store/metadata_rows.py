"""Metadata of runs, between its table and values."""

from __future__ import annotations

import sqlite3

from stephttp.engine.model.run_metadata import MetadataTarget, RunMetadata
from stephttp.engine.store.sql import QUERIES


def load(connection: sqlite3.Connection, run_id: str) -> list[RunMetadata]:
    """Load the metadata of a run: first what is about the run, then that of its steps, in their
    order."""
    return [
        RunMetadata(MetadataTarget(step_id, attempt, span_id), step, kind, at_ms, values)
        for step_id, attempt, span_id, step, kind, at_ms, values in connection.execute(
            QUERIES["run_metadata"], (run_id,)
        )
    ]


def load_values(
    connection: sqlite3.Connection, run_id: str, target: MetadataTarget, kind: str
) -> bytes | None:
    """Load the values of one kind; `None` if the run has no such kind."""
    key = (run_id, target.step_id, target.attempt, target.span_id, kind)
    row = connection.execute(QUERIES["metadata_values"], key).fetchone()
    return None if row is None else row[0]


def size(connection: sqlite3.Connection, run_id: str) -> tuple[int, int]:
    """Return how many kinds about targets a run has, and how many bytes their values have."""
    count: int
    total: int
    count, total = connection.execute(QUERIES["metadata_size"], (run_id,)).fetchone()
    return count, total


def save(
    connection: sqlite3.Connection,
    run_id: str,
    target: MetadataTarget,
    kind: str,
    values: bytes,
    now_ms: int,
) -> None:
    """Store the values of one kind, in place of those that there are."""
    key = (run_id, target.step_id, target.attempt, target.span_id, kind)
    connection.execute(QUERIES["save_metadata"], (*key, now_ms, values))
