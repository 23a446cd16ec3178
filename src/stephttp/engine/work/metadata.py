"""Attaches metadata to runs: what callers send, and what comes with the results of steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress

from stephttp._wire.opcodes import Op
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run_metadata import MetadataUpdate
from stephttp.engine.rules.metadata_updates import (
    LARGEST_RUN,
    MOST_KINDS,
    merged,
    read_reported,
)
from stephttp.engine.store import metadata_rows
from stephttp.engine.store.sql import QUERIES


def attach(
    connection: sqlite3.Connection, run_id: str, updates: Sequence[MetadataUpdate], now_ms: int
) -> bool:
    """Attach metadata to a run, which may have ended; return whether there is such a run.

    Raises:
        Refused: it would have too much metadata; nothing is stored.
    """
    if connection.execute(QUERIES["run_status"], (run_id,)).fetchone() is None:
        return False
    room = _Room(connection, run_id)
    for one in updates:
        room.attach(one, now_ms)
    return True


def attach_reported(
    connection: sqlite3.Connection, run_id: str, ops: Sequence[Op], now_ms: int
) -> None:
    """Attach the metadata that came with ops, as far as there is room."""
    room = _Room(connection, run_id)
    for op in ops:
        for update in read_reported(op):
            with suppress(Refused):
                room.attach(update, now_ms)


class _Room:
    """Attaches metadata to a run, and keeps count of what it has."""

    def __init__(self, connection: sqlite3.Connection, run_id: str) -> None:
        self._connection = connection
        self._run_id = run_id
        self._count, self._size = metadata_rows.size(connection, run_id)

    def attach(self, update: MetadataUpdate, now_ms: int) -> None:
        target, kind = update.target, update.kind
        before = metadata_rows.load_values(self._connection, self._run_id, target, kind)
        after = merged(before, update)
        count = self._count + (before is None)
        size = self._size + len(after) - len(before or b"")
        if count > MOST_KINDS:
            raise Refused(
                f"metadata: the run would have {count} kinds, at most {MOST_KINDS} are kept", 413
            )
        if size > LARGEST_RUN:
            raise Refused(
                f"metadata: the run would have {size} bytes, at most {LARGEST_RUN} are kept", 413
            )
        metadata_rows.save(self._connection, self._run_id, target, kind, after, now_ms)
        self._count, self._size = count, size
