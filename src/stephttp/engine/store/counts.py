"""Counts what happens to runs in each span of time, so that the overview need not look at them.

For each endpoint and each span of time is counted, by when it happened:

    what         one for each run that       bucket
    began        was reported                0
    async        left its caller             0
    completed    ended so                    0
    failed       ended so                    0
    cancelled    ended so                    0
    first        left its first phase        how long that took
    whole        ended                       how long that took, waits included

Each is counted in spans of every length in `WIDTHS`, which are kept for as long as charts show
them, and in total. Units of work note what they did (`note_begin`, `note_change`); the
store adds the notes of a whole transaction up, just before its commit (`store_notes`). So the cost
is a few rows a transaction, however many runs it brings.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from math import log2
from typing import NamedTuple

from stephttp.engine.model.run import Run, RunStatus
from stephttp.engine.store import many_rows
from stephttp.engine.store.database import StoreConnection
from stephttp.engine.store.sql import QUERIES

BEGAN = "began"
ASYNC = "async"
FIRST = "first"
WHOLE = "whole"

WIDTHS: dict[int, int] = {60: 2 * 3600, 900: 2 * 86_400, 7200: 15 * 86_400}
"""Lengths of spans in seconds, with the seconds for which they are kept."""

ALWAYS = 0
"""Stands for the width of the span of all time, which is kept as long as its endpoint."""

ADD = QUERIES["add_counts"]

Counted = tuple[str, int, str, int]
"""Function id, minute (its start, in seconds since the epoch), what, and bucket."""

_STEPS = 4
"""Buckets for each doubling: a duration is known to within a tenth."""


class Note(NamedTuple):
    """One thing to be counted."""

    fn_id: str
    now_ms: int
    what: str
    bucket: int = 0


def bucket_of(duration_ns: int) -> int:
    """Return the bucket of a duration; 0 holds everything up to a microsecond."""
    return max(0, round(log2(max(duration_ns, 1) / 1000) * _STEPS))


def bucket_ms(bucket: float) -> float:
    """Return the duration in the middle of a bucket, in milliseconds."""
    return float(2 ** (bucket / _STEPS)) / 1000


def note_begin(
    connection: sqlite3.Connection,
    fn_id: str,
    began_ms: int,
    first_ns: int | None,
    run: Run,
    now_ms: int,
) -> None:
    """Note that a run was stored for the first time; it may have ended already.

    Args:
        first_ns: how long its first phase took; `None` if that continues, or if the engine started
            the run, which then had no first phase.
    """
    _note(connection, Note(fn_id, now_ms, BEGAN))
    if run.status is not RunStatus.SYNC and first_ns is not None:
        _note_status(connection, fn_id, began_ms, first_ns, run, now_ms, was_sync=True)


def move_begin(
    connection: sqlite3.Connection, from_fn_id: str, to_fn_id: str, created_ms: int
) -> None:
    """Count a run that was stored then, in another transaction, for another endpoint."""
    counted = add_up([Note(from_fn_id, created_ms, BEGAN)])
    rows = [(*row, -n) for *row, n in spread(counted, kept_at_s=0)]
    connection.executemany(ADD, rows)
    connection.executemany(QUERIES["forget_empty_counts"], [row[:-1] for row in rows])
    _note(connection, Note(to_fn_id, created_ms, BEGAN))


def note_change(connection: sqlite3.Connection, before: RunStatus, run: Run, now_ms: int) -> None:
    """Note a change of a run's status."""
    if run.status is not before and isinstance(connection, StoreConnection):
        first_ns, was_sync = 0, before is RunStatus.SYNC
        if was_sync:
            row = connection.execute(QUERIES["first_phase"], (run.run_id,)).fetchone()
            first_ns = row[0] or 0
        _note_status(connection, run.fn_id, run.began_ms, first_ns, run, now_ms, was_sync=was_sync)


def _note_status(
    connection: sqlite3.Connection,
    fn_id: str,
    began_ms: int,
    first_ns: int,
    run: Run,
    now_ms: int,
    *,
    was_sync: bool,
) -> None:
    if was_sync:
        _note(connection, Note(fn_id, now_ms, FIRST, bucket_of(first_ns)))
    if run.status is RunStatus.ASYNC:
        _note(connection, Note(fn_id, now_ms, ASYNC))
        return
    whole_ns = first_ns if was_sync else (now_ms - began_ms) * 1_000_000
    _note(connection, Note(fn_id, now_ms, run.status.value))
    _note(connection, Note(fn_id, now_ms, WHOLE, bucket_of(whole_ns)))


def _note(connection: sqlite3.Connection, note: Note) -> None:
    if isinstance(connection, StoreConnection):
        connection.notes.append(note)


def count_notes(connection: sqlite3.Connection) -> int:
    """Return the number of notes so far."""
    return len(connection.notes) if isinstance(connection, StoreConnection) else 0


def drop_notes(connection: sqlite3.Connection, kept: int = 0) -> None:
    """Forget all notes but the first `kept`, because what they count was rolled back."""
    if isinstance(connection, StoreConnection):
        del connection.notes[kept:]


def add_up(notes: Iterable[Note]) -> Counter[Counted]:
    """Count the notes by minute."""
    return Counter(
        (fn_id, now_ms // 60_000 * 60, what, bucket) for fn_id, now_ms, what, bucket in notes
    )


def spread(counted: Counter[Counted], kept_at_s: int) -> list[tuple[int, int, str, str, int, int]]:
    """Return rows for `ADD`: each count in spans of every length, except those no longer kept.

    Args:
        kept_at_s: the present, in seconds since the epoch.
    """
    ever = Counter[tuple[str, str, int]]()
    for (fn_id, _, what, bucket), n in counted.items():
        ever[fn_id, what, bucket] += n
    sums = [(ALWAYS, 0, fn_id, what, bucket, n) for (fn_id, what, bucket), n in ever.items()]
    sums += [
        (width, minute - minute % width, fn_id, what, bucket, n)
        for width, kept in WIDTHS.items()
        for (fn_id, minute, what, bucket), n in counted.items()
        if minute >= kept_at_s - kept
    ]
    return sums


def store_notes(connection: sqlite3.Connection) -> None:
    """Add up what was noted since the last commit, and store it."""
    if not isinstance(connection, StoreConnection) or not connection.notes:
        return
    counted = add_up(connection.notes)
    latest = max(minute for _, minute, _, _ in counted)
    many_rows.insert(connection, ADD, spread(counted, kept_at_s=latest))
    if latest > connection.counted_until_s:
        connection.counted_until_s = latest
        old = [(width, latest - kept) for width, kept in WIDTHS.items()]
        connection.executemany(QUERIES["purge_counts"], old)
    connection.notes.clear()
