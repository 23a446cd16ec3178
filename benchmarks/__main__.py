"""Runs the benchmarks and writes one table, as Markdown and as JSON.

python -m benchmarks                all of them
python -m benchmarks steps core     some
BENCH_ROUNDS, BENCH_SECONDS         alternating rounds (4), seconds of load in each (3)
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import place
from benchmarks.harness import Row

QUESTIONS = [
    "steps", "plain", "latency", "flask", "ingest", "wakeup", "end_to_end", "due", "sleeping",
    "events", "stored", "reading", "core", "import", "peers", "outage", "batches", "growth",
    "client", "transaction", "testing",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", help=", ".join(QUESTIONS))
    parser.add_argument("--out", type=Path, default=place.FOLDER, help="folder for the results")
    options = parser.parse_args()
    unknown = set(options.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    place.prepare()
    rows, failed = [], False
    for name in options.questions or QUESTIONS:
        place.say(
            f"==> {name}: {time.monotonic() - began:.0f} s so far, load {os.getloadavg()[0]:.1f}"
        )
        try:
            rows += ask(name)
        except Exception:
            failed = True
            traceback.print_exc()
            rows.append(Row(name, math.nan, "", note="failed; see the output"))
    seconds = time.monotonic() - began
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}",
        "python": platform.python_version(),
        "seconds": round(seconds),
        "load": os.getloadavg(),
        "rows": [row.data() for row in rows],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    text = table(rows) + f"\n{report['machine']}, Python {report['python']}; {seconds:.0f} s.\n"
    (options.out / "results.md").write_text(text)
    print(text)
    sys.exit(failed)


def ask(name: str) -> list[Row]:
    """Run one benchmark, in a folder of its own."""
    module = importlib.import_module(f"benchmarks.bench_{name}")
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        rows: list[Row] = module.measure(Path(folder))
    for row in rows:
        place.say(f"    {row.question}: {number(row.figure)} {row.unit} ({row.goal}) {row.note}")
    return rows


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| question | figure | goal | reached | spread | beside it |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = "" if row.spread is None else " to ".join(map(number, row.spread))
        reached = {True: "yes", False: "**no**", None: ""}[row.reached]
        beside = "; ".join(
            [*(f"{name}: {number(value)}" for name, value in row.peers.items()), row.note]
        ).strip("; ")
        goal = row.goal.replace(">=", "≥").replace("<=", "≤")
        unit = "" if row.unit == "share" else f" {row.unit}"
        lines.append(
            f"| {row.question} | {number(row.figure)}{unit} | {goal} | {reached} | {spread} "
            f"| {beside} |"
        )
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """With three significant digits, or all before the point."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
