"""Does `POST /v1/checkpoint` become slower with a million runs in the file?"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import harness, million
from benchmarks.harness import Row
from benchmarks.place import say

RUNS = 1_000_000


def measure(folder: Path) -> list[Row]:
    empty, full = folder / "empty.db", folder / "full.db"
    began = time.monotonic()
    million.fill(str(full), RUNS)
    say(f"filled {full.name} in {time.monotonic() - began:.0f} s")
    before = {empty: 0, full: harness.count(full, harness.FINISHED)}
    sent = {empty: 0, full: 0}
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    with harness.engine(empty) as first, harness.engine(full) as second:
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
        harness.compared(
            "POST /v1/checkpoint with 1,000,000 runs in the file, share of an empty file",
            rates,
            "full",
            "empty",
            goal=">= 0.85",
            note=f"{full.stat().st_size / 1e9:.1f} GB; all {sum(sent.values())} runs arrived once",
        )
    ]
