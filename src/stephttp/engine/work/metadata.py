"""Attaches metadata to runs: what callers send, and what comes with the results of steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress

from stephttp._wire.opcodes import Op
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run_metadata import MetadataUpdate
from stephttp.engine.rules.metadata_updates import LARGEST_RUN, merged, read_reported
from stephttp.engine.store import metadata_rows
from stephttp.engine.store.sql import QUERIES


def attach(
    connection: sqlite3.Connection, run_id: str, updates: Sequence[MetadataUpdate], now_ms: int
) -> bool:
    """Attach metadata to a run, which may have ended; return whether there is such a run.

    Raises:
        Refused: it would have too much metadata; nothing is stored.
    """
    if connection.execute(QUERIES["run_state"], (run_id,)).fetchone() is None:
        return False
    for one in updates:
        _attach(connection, run_id, one, now_ms)
    return True


def attach_reported(
    connection: sqlite3.Connection, run_id: str, ops: Sequence[Op], now_ms: int
) -> None:
    """Attach the metadata that came with ops, as far as there is room."""
    for op in ops:
        for update in read_reported(op):
            with suppress(Refused):
                _attach(connection, run_id, update, now_ms)


def _attach(
    connection: sqlite3.Connection, run_id: str, update: MetadataUpdate, now_ms: int
) -> None:
    before = metadata_rows.load_values(connection, run_id, update.target, update.kind)
    after = merged(before, update)
    total = metadata_rows.size(connection, run_id) - len(before or b"") + len(after)
    if total > LARGEST_RUN:
        raise Refused(
            f"metadata: the run would have {total} bytes, at most {LARGEST_RUN} are kept", 413
        )
    metadata_rows.save(connection, run_id, update.target, update.kind, after, now_ms)
