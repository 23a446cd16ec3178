"""Does `POST /v1/checkpoint` become slower with a million runs in the file?"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row
from benchmarks.place import say
from stephttp.engine import database

RUNS = 1_000_000

# Ids sort by time, as real ones do, and the new ones come after them.
_FILL_RUNS = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :runs)
INSERT INTO runs (run_id, status, retries, request_version, job_id, attempt, unreached, idle,
                  step_count, created_ms, began_ms, first_ns, ended_ms, app_id, fn_id, slug,
                  digest, event_id, event_name, event_ts, fn, domain, method, path, query,
                  content_type, ip, sdk, output)
SELECT printf('01GZ%022d', n), 'completed', 0, 2, '', 0, 0, 0, 2, 1700000000000 + n,
       1700000000000 + n, 1000000, 1700000000001 + n, app_id, fn_id, slug,
       randomblob(32), printf('01GZ%022d', n), event_name, 1700000000000 + n, fn, domain,
       method, path, '', '', '127.0.0.1', sdk,
       CAST('{"status":200,"headers":{},"body":"{}","duration":1}' AS BLOB)
FROM numbers, (SELECT * FROM runs ORDER BY seq LIMIT 1)
"""
_FILL_STEPS = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :runs)
INSERT INTO steps (run_id, step_id, seq, userland_id, userland_index, name, op, attempts,
                   started_ns, duration_ns, memo)
SELECT printf('01GZ%022d', n), step_id, seq, userland_id, userland_index, name, op, attempts,
       started_ns, duration_ns, memo
FROM numbers, (SELECT * FROM steps ORDER BY run_id LIMIT 2)
"""


def measure(folder: Path) -> list[Row]:
    empty, full = folder / "empty.db", folder / "full.db"
    with harness.engine(full) as engine:
        harness.load(engine.url, script="checkpoints.lua", args="Z", seconds=1, connections=1)
    fill(full)
    before = {empty: 0, full: harness.count(full, harness.ALL)}
    sent = {empty: 0, full: 0}
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    with harness.engine(empty) as first, harness.engine(full, "--retention", "0") as second:
        files = {"empty": (empty, first), "full": (full, second)}
        for number in range(harness.ROUNDS + 1):
            for name, (db, engine) in files.items():
                done = harness.load(
                    engine.url,
                    script="checkpoints.lua",
                    args=str(number),
                    seconds=harness.SECONDS if number else 1,
                )
                sent[db] += done.requests
                if number:
                    rates[name].append(done.per_second)
    for db, requests in sent.items():
        found = harness.count(db, harness.FINISHED) - before[db]
        # Of each round, what was under way at its end may be there as well.
        assert requests <= found <= requests + 16 * (harness.ROUNDS + 1), (requests, found)
    return [
        Row(
            "POST /v1/checkpoint with 1,000,000 runs in the file, share of an empty file",
            harness.ratio(rates, "full", "empty"),
            "share",
            ">= 0.85",
            harness.ratios(rates, "full", "empty"),
            note=f"{full.stat().st_size / 1e9:.1f} GB; all {sum(sent.values())} runs arrived once",
        )
    ]


def fill(path: Path) -> None:
    """Put a million finished runs of two steps into a database that has one."""
    began = time.monotonic()
    connection = sqlite3.connect(path, isolation_level=None)
    assert database.version(connection, str(path)) == database.newest_version()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -400000")
    connection.execute("BEGIN")
    for statement in (_FILL_RUNS, _FILL_STEPS):
        connection.execute(statement, {"runs": RUNS})
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    say(f"filled {path.name} in {time.monotonic() - began:.0f} s")
