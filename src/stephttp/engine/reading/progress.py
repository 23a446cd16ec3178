"""How far a run has come, for its caller, read from the database."""

from __future__ import annotations

import sqlite3

from stephttp._wire.progress import MOST_SHOWN, Progress, StepDone
from stephttp.engine.reading.run_rows import load_waits


def progress(
    connection: sqlite3.Connection, run_id: str, after: int = 0, most: int = MOST_SHOWN
) -> Progress:
    """Return how far a run has come: at most so many of the latest steps that have ended.

    Args:
        after: the number of a step; only later ones are returned.
    """
    row = connection.execute("SELECT slug FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    rows = connection.execute(_STEPS, (run_id, after, most)).fetchall()
    steps = [
        StepDone(number, name or "", "failed" if failed else "completed")
        for number, name, failed in reversed(rows)
    ]
    waits = load_waits(connection, [run_id])[run_id]
    names = dict.fromkeys(wait.step for wait in waits if wait.step_id is not None and wait.step)
    return Progress("" if row is None else row[0], steps, list(names))


_STEPS = """
SELECT seq, coalesce(userland_id, name), substr(memo, 1, 9) = x'7b226572726f72223a'
FROM steps WHERE run_id = ? AND seq > ? AND memo IS NOT NULL ORDER BY seq DESC LIMIT ?"""
