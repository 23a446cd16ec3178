"""How much of a Flask handler's throughput under gunicorn is left with two steps?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Row
from benchmarks.place import ROOT

THREADS = 8


def gunicorn(app: str, engine_url: str, *, checkout: Path = ROOT) -> Any:
    command = ["-m", "gunicorn", app, "--bind", "127.0.0.1:0", "--workers", "1"]
    options = ["--threads", str(THREADS), "--keep-alive", "30"]
    env = {"INNGEST_DEV": engine_url}
    return harness.served(
        [*command, *options], r"Listening at: (http://\S+)", env, checkout=checkout
    )


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    path, requests = "/orders/book", 0
    rates: dict[str, list[float]] = {"bare": [], "durable": []}
    with (
        harness.engine(db) as engine,
        gunicorn("flask_apps:bare", engine.url) as bare,
        gunicorn("flask_apps:durable", engine.url) as durable,
    ):
        harness.load(bare.url + path, seconds=1)
        requests += harness.load(durable.url + path, seconds=1).requests
        for _ in range(harness.ROUNDS):
            rates["bare"].append(harness.load(bare.url + path).per_second)
            done = harness.load(durable.url + path)
            rates["durable"].append(done.per_second)
            requests += done.requests
            in_flight = 16 * (harness.ROUNDS + 1)
            harness.arrived(db, requests, steps=2, in_flight=in_flight)
    return [
        harness.compared(
            "Flask under gunicorn with 2 steps, share of the bare handler",
            rates,
            "durable",
            "bare",
            goal=">= 0.70",
            note=f"1 worker, {THREADS} threads; all {requests} runs arrived once",
        )
    ]
