"""How many whole runs does `POST /v1/checkpoint` take, one a request, 16 connections?"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row

INNGEST = 303.0
"""Runs a second that a real Inngest dev server takes of the same load; measured on such a machine,
and not in this run, because its binary cannot be installed from a registry."""


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    rates, requests = [], 0
    with harness.engine(db) as engine:
        for number in range(harness.ROUNDS + 1):
            done = harness.load(
                engine.url,
                script="checkpoints.lua",
                args=str(number),
                seconds=harness.SECONDS if number else 1,
            )
            requests += done.requests
            harness.arrived(db, requests, steps=2, in_flight=16 * (number + 1))
            if number:
                rates.append(done.per_second)
        used = engine.cpu()
    rate = statistics.median(rates)
    spread = (min(rates), max(rates))
    note = f"{1e6 * used / requests:.0f} µs of CPU a run; all {requests} runs arrived once"
    peers = {"Inngest dev server, measured earlier": INNGEST}
    return [
        Row(
            "whole runs accepted by POST /v1/checkpoint", rate, "/s", ">= 3000", spread, peers, note
        ),
        Row("the same, against an Inngest dev server", rate / INNGEST, "times", ">= 10"),
    ]
