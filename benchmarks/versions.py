"""Is this version slower than another one? Both in one run, on the questions of the hot path.

    python -m benchmarks.versions CHECKOUT [steps plain flask ingest end_to_end]

BENCH_STARTS         how often the servers are started (4, at least 2); others: see `benchmarks`

CHECKOUT is another working copy whose benchmarks have run once, so that it has an environment. The
servers of both run all the time, and get their load in turns: this, other, other, this. One that
waits does next to nothing, and a slow moment of the machine hits both. How its memory is laid out
makes a process faster or slower by a percent or two for as long as it lives, so the servers are
started several times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness, place
from benchmarks.bench_end_to_end import CALLERS, before
from benchmarks.bench_flask import gunicorn
from benchmarks.callers import crowd

STARTS = int(os.environ.get("BENCH_STARTS", "4"))

Measure = Callable[[float], float]
"""Puts load on servers for so many seconds; returns answers a second."""


@contextmanager
def requests(
    checkout: Path, db: Path, path: str, *, flask: bool = False, recorded: bool = True
) -> Generator[Measure]:
    """Load an application, whose runs the engine records meanwhile.

    Args:
        checkout: the version whose servers run, in its own environment.
        recorded: whether a request has steps; without any there is no run.
    """
    serve = gunicorn if flask else harness.uvicorn
    name = "flask_apps:durable" if flask else "apps:durable"
    with (
        harness.engine(db, checkout=checkout) as engine,
        serve(name, engine.url, checkout=checkout) as app,
    ):
        answered = 0

        def measure(seconds: float) -> float:
            nonlocal answered
            done = harness.load(app.url + path, seconds=round(seconds))
            answered += done.requests
            if recorded:
                harness.wait_for(db, answered)
            return done.per_second

        yield measure


@contextmanager
def ingest(checkout: Path, db: Path) -> Generator[Measure]:
    """Load the engine with whole runs."""
    with harness.engine(db, checkout=checkout) as engine:
        accepted = rounds = 0

        def measure(seconds: float) -> float:
            nonlocal accepted, rounds
            rounds += 1
            done = harness.load(
                engine.url, script="checkpoints.lua", args=f"{rounds:03}", seconds=round(seconds)
            )
            accepted += done.requests
            harness.wait_for(db, accepted)
            return done.per_second

        yield measure


@contextmanager
def end_to_end(checkout: Path, db: Path) -> Generator[Measure]:
    """Load both with runs that sleep."""
    with (
        harness.engine(db, checkout=checkout) as engine,
        harness.uvicorn("waiting_app:app", engine.url, checkout=checkout) as app,
    ):

        def measure(seconds: float) -> float:
            began = time.monotonic()
            goes_on = partial(before, began + seconds)
            results = asyncio.run(crowd(app.url, engine.url, "/short", CALLERS, goes_on))
            assert all(result.body == b"3" for result in results)
            return len(results) / (time.monotonic() - began)

        yield measure


QUESTIONS: dict[str, Callable[[Path, Path], Any]] = {
    "steps": partial(requests, path="/orders/book"),
    "plain": partial(requests, path="/items/book", recorded=False),
    "flask": partial(requests, path="/orders/book", flask=True),
    "ingest": ingest,
    "end_to_end": end_to_end,
}


def start(question: str, this: Path, other: Path) -> tuple[float, float]:
    """Start the servers of both, and put load on them. Returns answers a second of each."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = [
            stack.enter_context(QUESTIONS[question](checkout, Path(folder) / f"{number}.db"))
            for number, checkout in enumerate((this, other))
        ]
        for side in sides:
            side(2)
        rates: tuple[list[float], list[float]] = ([], [])
        for number in range(harness.ROUNDS):
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                rates[index].append(sides[index](harness.SECONDS))
    ours, theirs = map(statistics.mean, rates)
    return ours, theirs


def compare(question: str, this: Path, other: Path) -> None:
    """Answer a question, and print a row of the table."""
    rates = [start(question, this, other) for _ in range(STARTS)]
    ratios = [ours / theirs for ours, theirs in rates]
    ours, theirs = map(statistics.mean, zip(*rates, strict=True))
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    print(
        f"| {question} | {ours:,.0f} /s | {theirs:,.0f} /s | {statistics.mean(ratios):.3f} "
        f"± {error:.3f} | {min(ratios):.3f} to {max(ratios):.3f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("questions", nargs="*", help=", ".join(QUESTIONS))
    options = parser.parse_args()
    if STARTS < 2:
        parser.error("BENCH_STARTS: the error of a ratio needs at least 2 starts")
    place.prepare()
    this, other = place.ROOT, options.checkout.resolve()
    print("| question | this | the other | ratio, and its standard error | of the single starts |")
    print("|---|---|---|---|---|")
    for question in options.questions or QUESTIONS:
        compare(question, this, other)


if __name__ == "__main__":
    main()
