"""What does a step cost in the core, without any I/O: its start, its end, and its place in the
checkpoint?"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row
from stephttp._core.conversion import CONVERSIONS
from stephttp._core.encoding import decode_result, encode_result
from stephttp._core.run import Run
from stephttp._wire.json import encode_struct

STEPS = 10
RUNS = 2000

RESULT = CONVERSIONS.of(dict[str, str | int])


def one_run(steps: int) -> bytes:
    """Make a run of so many steps in the SDK's core, and return its ops as they are sent."""
    run = Run("01HZ0000000000000000000000")
    for number in range(steps):
        step = run.begin(f"step-{number}")
        raw = encode_result({"item": "book", "cents": 1200}, step.step_id)
        decode_result(raw, RESULT, step.step_id)
        run.complete(step, raw, 1_732_462_323_123_456_789, 20_000)
    return encode_struct(run.unreported.take_all())


def measure(folder: Path) -> list[Row]:
    assert one_run(STEPS).count(b'"StepRun"') == STEPS
    rounds = [a_step() for _ in range(max(harness.ROUNDS, 5))]
    figure = statistics.median(rounds)
    return [Row("a step in the core", figure, "µs", "<= 12", (min(rounds), max(rounds)))]


def a_step() -> float:
    """Return the microseconds of runs with steps, less those of runs without."""
    spent = {}
    for steps in (0, STEPS):
        began = time.perf_counter()
        for _ in range(RUNS):
            one_run(steps)
        spent[steps] = time.perf_counter() - began
    return (spent[STEPS] - spent[0]) / RUNS / STEPS * 1e6
