"""The endpoints that have reported runs, and those whose origin gives no answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from stephttp.engine.model.function import Trigger
from stephttp.engine.store import counts, schedule_rows
from stephttp.engine.store.sql import QUERIES


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """An endpoint, as its latest run described it.

    Attributes:
        origin: scheme, host and port of its application.
        sdk: name and version of its SDK, as the SDK states them.
        seen_ms: when its latest run began.
        open_runs: how many of its runs have not ended.
        failed_runs, runs: how many failed, and how many there were at all, including those that are
            no longer stored.
        last_failed_run: the latest run that failed; `last_error` is its error as JSON,
            `last_error_ms` when it ended.
        function: its name, if it is a function; `None` if it is not.
        triggers: what starts it.
        refused: why it cannot be started, if it cannot.
        paused: it is not started for now, because people have paused it.
        due_ms: when triggers start it next, by their places; those by time alone.
    """

    fn_id: str
    app_id: str
    slug: str
    origin: str
    method: str
    path: str
    sdk: str
    retries: int
    seen_ms: int
    open_runs: int
    failed_runs: int
    runs: int
    last_failed_run: str | None
    last_error: bytes | None
    last_error_ms: int | None
    function: str | None
    triggers: tuple[Trigger, ...]
    refused: str | None
    paused: bool
    due_ms: Mapping[int, int]


def list_endpoints(connection: sqlite3.Connection) -> tuple[EndpointRow, ...]:
    """Return all endpoints, by application and slug."""
    ended: dict[str, dict[str, int]] = {}
    for fn_id, what, n in connection.execute(_EVER, (counts.ALWAYS,)):
        ended.setdefault(fn_id, {})[what] = n
    open_runs = dict(connection.execute(_OPEN).fetchall())
    due: dict[str, dict[int, int]] = {}
    for (fn_id, place), due_ms in schedule_rows.load_due_times(connection).items():
        due.setdefault(fn_id, {})[place] = due_ms
    rows = []
    for row in connection.execute(_ENDPOINTS):
        fn_id, *others, run_id, error, ended_ms, name, triggers, refused, paused = row
        found = ended.get(fn_id, {})
        counted = [open_runs.get(fn_id, 0), found.get("failed", 0), found.get(counts.BEGAN, 0)]
        values: list[Any] = [fn_id, *others, *counted, run_id, error, ended_ms, name]
        values.append(msgspec.json.decode(triggers or b"[]", type=tuple[Trigger, ...]))
        values += [refused, bool(paused), due.get(fn_id, {})]
        rows.append(EndpointRow(*values))
    return tuple(rows)


def latest_endpoints(connection: sqlite3.Connection, limit: int) -> list[tuple[str, str, str]]:
    """Return function id, origin and slug of the endpoints that were seen last."""
    return connection.execute(QUERIES["latest_endpoints"], (limit,)).fetchall()


def waiting_by_origin(connection: sqlite3.Connection) -> dict[str, int]:
    """Count the due runs that wait because their application has no room, by its origin."""
    return dict(connection.execute(QUERIES["count_aside"]).fetchall())


_EVER = "SELECT fn_id, what, n FROM counts WHERE width_s = ? AND bucket = 0"

_OPEN = """
SELECT fn_id, count(*) FROM runs INDEXED BY open_runs
WHERE ended_ms IS NULL GROUP BY fn_id"""

_ENDPOINTS = """
SELECT endpoints.fn_id, endpoints.app_id, endpoints.slug, endpoints.domain, endpoints.method,
       endpoints.path, endpoints.sdk, endpoints.retries, seen_ms,
       failed.run_id, failed.error, failed.ended_ms, functions.name, triggers,
       CASE present WHEN 0 THEN 'its app does not register it any more' ELSE refused END,
       paused
FROM endpoints LEFT JOIN functions USING (fn_id) LEFT JOIN runs AS failed ON failed.seq = (
    SELECT max(seq) FROM runs WHERE runs.fn_id = endpoints.fn_id AND runs.status = 'failed')
ORDER BY endpoints.domain, endpoints.slug"""
