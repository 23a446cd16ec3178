"""One function: what starts it, its options, its latest runs."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from stephttp.engine.model.function import App, Function
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading.list_filter import Paging, RunFilter
from stephttp.engine.reading.queues import Queues, queues
from stephttp.engine.reading.run_list import list_runs
from stephttp.engine.reading.run_rows import RunRow
from stephttp.engine.reading.scanning import Stop
from stephttp.engine.store import counts, function_rows, schedule_rows

_LATEST = 8
"""Runs that are listed with their function."""


@dataclass(frozen=True, slots=True)
class FunctionDetail:
    """A function.

    Attributes:
        app: the app that registers it; `None`: its app does not register it any more.
        runs, failed_runs: how many there were at all, and how many failed, including those that are
            no longer stored.
        open_runs: how many of its runs have not ended.
        latest: its latest runs, newest first.
        due_ms: when triggers start it next, by their places; those by time alone.
        queues: what waits behind its limits.
        data: what the event had that started the latest run, as JSON; `None` if there is no run.
    """

    function: Function
    app: App | None
    runs: int
    failed_runs: int
    open_runs: int
    latest: tuple[RunRow, ...]
    due_ms: dict[int, int]
    queues: Queues
    data: bytes | None

    @property
    def why_not_started(self) -> str | None:
        """Why nothing starts it; `None` if something can."""
        if self.app is None:
            return "its app does not register it any more"
        return self.function.why_not_started


def function_detail(
    connection: sqlite3.Connection, name: str, now_ms: int, stop: Stop = lambda: False
) -> FunctionDetail:
    """Return one function, also one that its app does not register any more.

    Args:
        name: its id or slug.
        now_ms: the present time.
        stop: as for `list_runs`.

    Raises:
        Refused: there is no such function.
    """
    found = function_rows.load_any_function(connection, name)
    if found is None:
        raise Refused(f"function: there is no function {name[:200]!r}", HTTPStatus.NOT_FOUND)
    function, present = found
    fn_id, app_id = function.endpoint.fn_id, function.endpoint.app_id
    apps = [app for app in function_rows.load_apps(connection) if app.app_id == app_id and present]
    counted = dict(connection.execute(_EVER, (counts.ALWAYS, fn_id)).fetchall())
    (open_runs,) = connection.execute(_OPEN, (fn_id,)).fetchone()
    wanted = RunFilter(endpoints=(fn_id,))
    latest = list_runs(connection, wanted, Paging(_LATEST), now_ms, stop).items
    return FunctionDetail(
        function=function,
        app=next(iter(apps), None),
        runs=counted.get(counts.BEGAN, 0),
        failed_runs=counted.get("failed", 0),
        open_runs=open_runs,
        latest=latest,
        due_ms={
            place: due_ms
            for (of, place), due_ms in schedule_rows.load_due_times(connection).items()
            if of == fn_id
        },
        queues=queues(connection, now_ms, fn_id),
        data=_data(connection, latest[0].run_id) if latest else None,
    )


_EVER = """
SELECT what, n FROM counts WHERE width_s = ? AND start_s = 0 AND fn_id = ? AND bucket = 0"""

_OPEN = "SELECT count(*) FROM runs INDEXED BY open_runs WHERE ended_ms IS NULL AND fn_id = ?"


def _data(connection: sqlite3.Connection, run_id: str) -> bytes | None:
    """Return the data of the event that started a run, without what the engine put there."""
    events = function_rows.load_events(connection, run_id)
    if events is None:
        return None
    first, *_ = msgspec.json.decode(events, type=list[dict[str, msgspec.Raw]])
    data = msgspec.json.decode(first.get("data", b"{}"), type=dict[str, msgspec.Raw])
    return msgspec.json.encode({key: data[key] for key in data if key != "_inngest"})
