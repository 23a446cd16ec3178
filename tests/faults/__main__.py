"""Schedules of faults from the command line: `python -m tests.faults --help`."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.judge import Verdict
from tests.faults.runner import carry_out
from tests.faults.schedules import Schedule, schedule, short
from tests.faults.world import World

_PORTION = 20
"""Schedules that share a world, so that its database is not ever growing."""


async def run(plans: list[Schedule], keep: bool) -> Verdict:
    """Carry out the schedules one after the other, and print what came of each."""
    task = asyncio.current_task()
    assert task is not None
    # So that the world's processes end with this one.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    total = Verdict()
    for start in range(0, len(plans), _PORTION):
        directory = Path(tempfile.mkdtemp(prefix="stephttp-faults-"))
        broken = False
        async with World(directory) as world:
            for plan in plans[start : start + _PORTION]:
                begun = time.monotonic()
                seed = plan.seed
                verdict = await carry_out(world, plan)
                total.add(verdict)
                broken = broken or bool(verdict.broken)
                blows = ", ".join(blow.what for blow in plan.blows)
                print(
                    f"seed {seed}: {plan.app}; {verdict.accepted} of {verdict.requests} accepted, "
                    f"{verdict.executions} steps, {time.monotonic() - begun:.0f} s; {blows}",
                    flush=True,
                )
                for one in verdict.broken:
                    print(
                        f"  BROKEN {one}\n    again: python -m tests.faults --seed {seed}",
                        flush=True,
                    )
        if keep or broken:
            print(f"  ledger, database and logs: {directory}", flush=True)
        else:
            shutil.rmtree(directory)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--seed", type=int, help="the first seed; alone: only this one")
    parser.add_argument("--schedules", type=int, default=1, help="how many seeds from there")
    parser.add_argument("--requests", type=int, default=20, help="requests of each schedule")
    parser.add_argument("--short", action="store_true", help="those of continuous integration")
    parser.add_argument("--keep", action="store_true", help="keep ledger, database and logs")
    given = parser.parse_args()
    first = time.time_ns() % 1_000_000_000 if given.seed is None else given.seed
    seeds = list(range(first, first + given.schedules))
    plans = [short(one) if given.short else schedule(one, given.requests) for one in seeds]
    print(f"seeds {seeds[0]} to {seeds[-1]}", flush=True)
    total = asyncio.run(run(plans, given.keep))
    print(f"{len(seeds)} schedules, {total.figures()}")
    return 1 if total.broken else 0


if __name__ == "__main__":
    sys.exit(main())
