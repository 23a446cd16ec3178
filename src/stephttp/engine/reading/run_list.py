"""The list of runs, newest first, in pages."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from stephttp.engine.reading.list_filter import Page, Paging, RunFilter
from stephttp.engine.reading.run_rows import RunRow, with_waits
from stephttp.engine.reading.run_search import RunSearch
from stephttp.engine.reading.scanning import (
    Bounds,
    Stop,
    Times,
    check,
    cursor_bounds,
    search,
    time_bounds,
)
from stephttp.engine.store.runs import unknown

_TIMES = Times("runs", "created_ms")


def list_runs(
    connection: sqlite3.Connection,
    wanted: RunFilter,
    page: Paging,
    now_ms: int,
    stop: Stop = lambda: False,
) -> Page[RunRow]:
    """Return runs, newest first, in the order in which they were reported.

    Args:
        wanted: which ones.
        page: which part of the list.
        now_ms: the present time.
        stop: says whether the search has taken long enough. A page without a filter, or with
            filters for endpoint, state or time, is found at once; filters for text, and rare
            combinations, need a search, which examines at most `MOST_EXAMINED` runs.

    Raises:
        Refused: limit or cursor is not valid.
    """
    check(page)
    times = time_bounds(connection, _TIMES, wanted.after_ms, wanted.before_ms)
    bounds = cursor_bounds(page).within(times)
    runs = RunSearch(connection, wanted, now_ms, newer=page.newer)
    found = search(runs.candidates(bounds), runs.examine, page.limit, stop)
    shown = found.page(page, connection, _TIMES)
    return replace(shown, items=with_waits(connection, shown.items))


def load_row(connection: sqlite3.Connection, run_id: str, now_ms: int) -> RunRow:
    """Return one run, as the list shows it.

    Raises:
        Refused: there is no such run.
    """
    found = connection.execute("SELECT seq FROM runs WHERE run_id = ?", (run_id,)).fetchall()
    runs = RunSearch(connection, RunFilter(), now_ms, newer=False)
    rows = [row for _, row in runs.examine([seq for (seq,) in found])]
    if not rows:
        raise unknown(run_id)
    return with_waits(connection, rows)[0]


def matching(
    connection: sqlite3.Connection, wanted: RunFilter, below: int, limit: int, now_ms: int
) -> tuple[list[str], int | None]:
    """Return ids of wanted runs with numbers below the given one, newest first; and the number to
    continue below, if there may be more."""
    times = time_bounds(connection, _TIMES, wanted.after_ms, wanted.before_ms)
    runs = RunSearch(connection, wanted, now_ms, newer=False)
    candidates = runs.candidates(times.within(Bounds(below=below)))
    found = search(candidates, runs.examine, limit, lambda: False)
    last = found.rows[-1][0] if found.stopped_at is None and found.rows else found.stopped_at
    return [row.run_id for _, row in found.rows], last if found.more else None
