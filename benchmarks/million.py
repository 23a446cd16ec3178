"""Makes a database with a million runs, as a busy week leaves them.

The schema is the real one, and so are the rules of `checks.sql`, except that the rows are
written in bulk, without an engine. There are a dozen endpoints of different popularity. Most runs
end in their first call; some wait, fail, or are cancelled. The same count makes the same file, but
for its secret.
"""

from __future__ import annotations

import sqlite3
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from stephttp._wire.ids import hash_step_id, ulid
from stephttp.engine.model.function_ids import ids
from stephttp.engine.store import counts, database

ORIGIN = "https://shop.example.com"
END_MS = 1_800_000_000_000
WEEK_MS = 7 * 86_400_000
NEEDLE = "parcel-4711"
"""Stands in one run of ten thousand."""

_PORTION = 20_000
_ENDPOINTS = (
    ("POST", "/orders", 40), ("GET", "/prices", 25), ("POST", "/users", 10), ("POST", "/mails", 8),
    ("POST", "/reports", 5), ("POST", "/webhooks/stripe", 4), ("PUT", "/carts", 3),
    ("POST", "/imports", 2), ("POST", "/exports", 1), ("DELETE", "/users", 1),
    ("POST", "/invoices", 0.8), ("POST", "/backups", 0.2),
)  # fmt: skip
_OUTCOMES = {"completed": 86, "async": 9, "failed": 4, "cancelled": 0.6, "waiting": 0.4}
_STEPS = tuple((name, hash_step_id(name)) for name in ("load", "charge", "reserve", "mail"))
_NAP = hash_step_id("nap")
_WORDS = ("apple", "book", "chair", "desk", "engine", "fork", "garden", "house", "ink", "jar")


@dataclass
class Rows:
    """Rows of each table, and the counts."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    timers: list[tuple[Any, ...]] = field(default_factory=list)
    history: list[tuple[Any, ...]] = field(default_factory=list)
    notes: list[counts.Note] = field(default_factory=list)


def fill(path: str, count: int) -> None:
    """Make the file, which must not exist yet."""
    connection = database.open_for_writing(path)
    # Nothing is lost if this is cut short: the next attempt starts from scratch.
    connection.execute("PRAGMA synchronous = OFF")
    rng = Random(count)
    counted: Counter[counts.Counted] = Counter()
    rows = Rows()
    for number in range(count):
        add(rows, rng, number, END_MS - WEEK_MS + WEEK_MS * number // count)
        if len(rows.runs) == _PORTION:
            store(connection, rows, counted)
            rows = Rows()
    store(connection, rows, counted)
    connection.execute("BEGIN")
    connection.executemany(counts.ADD, counts.spread(counted, kept_at_s=END_MS // 1000))
    connection.executemany(_INSERT_ENDPOINT, list(_endpoints()))
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def add(rows: Rows, rng: Random, number: int, began_ms: int) -> None:
    """Add one run."""
    ((method, path, _),) = rng.choices(_ENDPOINTS, [weight for *_, weight in _ENDPOINTS])
    (outcome,) = rng.choices(list(_OUTCOMES), list(_OUTCOMES.values()))
    slug = f"{method} {path}"
    app_id, fn_id = ids(ORIGIN, slug)
    run_id = ulid(began_ms, rng.getrandbits(80))
    first_ns = int(rng.lognormvariate(3, 1) * 1_000_000)
    first_ms = first_ns // 1_000_000
    word = NEEDLE if number % 10_000 == 5_000 else rng.choice(_WORDS)
    body = f'{{"number":{number},"item":"{word}","pieces":{number % 7},"note":"{"x" * 120}"}}'
    names = _STEPS[: rng.randrange(len(_STEPS) + 1)]
    start_ns, first_step = began_ms * 1_000_000, len(rows.steps)
    for place, (name, step_id) in enumerate(names, 1):
        took_ns = first_ns // (len(names) + 1)
        memo = f'{{"data":{{"step":"{name}","number":{number},"item":"{word}"}}}}'
        rows.steps.append(
            (run_id, step_id, place, name, "StepRun", 1, start_ns, took_ns, None, memo.encode())
        )
        start_ns += took_ns
    waits = outcome in ("async", "waiting", "cancelled")
    whole_ms = rng.randrange(1_000, 3_600_000) if waits else first_ms
    # The runs that wait longest started long ago.
    ended_ms = None if outcome == "waiting" else began_ms + whole_ms
    status = {"async": "completed", "waiting": "async"}.get(outcome, outcome)
    if waits:
        memo_of_nap = b"null" if outcome == "async" else None
        rows.steps.append(
            (run_id, _NAP, len(names) + 1, "nap", "Sleep", 1, start_ns,
             (whole_ms - first_ms) * 1_000_000, b'{"duration":"1h"}', memo_of_nap)
        )  # fmt: skip
    if outcome == "waiting":
        rows.timers.append((run_id, _NAP, "sleep", END_MS + rng.randrange(1_000, WEEK_MS)))
    if outcome == "async" and ended_ms is not None:
        rows.history.append((run_id, "call", "", "job", 0, ended_ms - 50, ended_ms, 1))
    error = b'{"name":"ValueError","message":"no such item"}' if outcome == "failed" else None
    answer = f'{{"status":200,"headers":{{"content-type":"application/json"}},"body":"{word}"}}'
    rows.runs.append(
        {
            "run_id": run_id,
            "status": status,
            "step_count": len(names) + waits,
            "state_size": sum(len(row[-1] or b"") for row in rows.steps[first_step:]),
            "created_ms": began_ms + first_ms,
            "began_ms": began_ms,
            "first_ns": first_ns,
            "async_ms": began_ms + first_ms if waits else None,
            "ended_ms": ended_ms,
            "app_id": app_id,
            "fn_id": fn_id,
            "slug": slug,
            "method": method,
            "path": path,
            "domain": ORIGIN,
            "event_id": ulid(began_ms, number),
            "event_ts": began_ms,
            "error": error,
            "body": body.encode(),
            "output": answer.encode() if status == "completed" else None,
        }
    )
    rows.notes.append(counts.Note(fn_id, began_ms, counts.BEGAN))
    first = counts.bucket_of(first_ns)
    rows.notes.append(counts.Note(fn_id, began_ms, counts.FIRST, first))
    if waits:
        rows.notes.append(counts.Note(fn_id, began_ms, counts.ASYNC))
    if ended_ms is not None:
        whole = counts.bucket_of(whole_ms * 1_000_000 if waits else first_ns)
        rows.notes.append(counts.Note(fn_id, ended_ms, status))
        rows.notes.append(counts.Note(fn_id, ended_ms, counts.WHOLE, whole))


def store(connection: sqlite3.Connection, rows: Rows, counted: Counter[counts.Counted]) -> None:
    """Write rows, and add up the counts."""
    connection.execute("BEGIN")
    connection.executemany(_INSERT_RUN, rows.runs)
    connection.executemany(_INSERT_STEP, rows.steps)
    connection.executemany(_INSERT_TIMER, rows.timers)
    connection.executemany(_INSERT_HISTORY, rows.history)
    connection.execute("COMMIT")
    counted.update(counts.add_up(rows.notes))


_INSERT_RUN = """
INSERT INTO runs (run_id, status, retries, request_version, job_id, attempt, unreached, idle,
                  step_count, state_size, created_ms, began_ms, first_ns, async_ms, ended_ms,
                  app_id, fn_id, slug, digest, event_id, event_name, event_ts, fn, domain, method,
                  path, query, content_type, ip, sdk, reads_state, error, body, output)
VALUES (:run_id, :status, 3, 2, '', 0, 0, 0, :step_count, :state_size, :created_ms, :began_ms,
        :first_ns, :async_ms, :ended_ms, :app_id, :fn_id, :slug, zeroblob(32), :event_id,
        'inngest/http.request', :event_ts, '', :domain, :method, :path, '', 'application/json',
        '192.0.2.1', 'stephttp-py:v1', 1, :error, :body, :output)"""

_INSERT_STEP = """
INSERT INTO steps (run_id, step_id, seq, userland_id, userland_index, op, attempts, started_ns,
                   duration_ns, opts, memo)
VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)"""

_INSERT_TIMER = "INSERT INTO timers (run_id, step_id, kind, due_ms) VALUES (?, ?, ?, ?)"

_INSERT_HISTORY = """
INSERT INTO history (run_id, kind, step_id, job_id, attempt, started_ms, ended_ms, tries)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""

_INSERT_ENDPOINT = """
INSERT INTO endpoints (fn_id, app_id, slug, event_name, fn, domain, method, path, sdk, retries,
                       request_version, reads_state, seen_ms)
VALUES (?, ?, ?, 'inngest/http.request', '', ?, ?, ?, 'stephttp-py:v1', 3, 2, 1, ?)"""


def _endpoints() -> Iterator[tuple[Any, ...]]:
    for method, path, _ in _ENDPOINTS:
        slug = f"{method} {path}"
        app_id, fn_id = ids(ORIGIN, slug)
        yield fn_id, app_id, slug, ORIGIN, method, path, END_MS


def main() -> None:
    """Make a file."""
    parser = ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("file", type=Path, help="the database to make")
    parser.add_argument("count", type=int, nargs="?", default=1_000_000, help="how many runs")
    given = parser.parse_args()
    path, count = given.file, given.count
    if path.exists():
        parser.error(f"{path} is there already")
    begun = time.perf_counter()
    fill(str(path), count)
    size = path.stat().st_size / 2**20
    print(f"{count} runs in {time.perf_counter() - begun:.0f} s, {size:.0f} MiB: {path}")


if __name__ == "__main__":
    main()
