"""Crashes at boundaries: `python -m tests.faults.boundaries [PATTERN ...]`; all, or those named."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.faults.boundaries.bench import Bench
from tests.faults.boundaries.crashes import Crash, crash, crashes


async def run(chosen: Iterable[Crash], keep: bool) -> tuple[int, int]:
    """Carry out crashes; benches are shared by those that can. Returns how many, and the broken."""
    count = broken = 0
    task = asyncio.current_task()
    assert task is not None
    # So that the benches' processes end with this one.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    benches: dict[tuple[str, tuple[str, ...], str], list[Crash]] = {}
    for one in chosen:
        benches.setdefault(one.bench, []).append(one)
    for (app, options, armed), crashed in benches.items():
        directory = Path(tempfile.mkdtemp(prefix="stephttp-boundaries-"))
        async with Bench(directory, app, options, armed) as bench:
            for one in crashed:
                begun = time.monotonic()
                problems = await crash(bench, one)
                count, broken = count + 1, broken + bool(problems)
                print(f"{one}: {time.monotonic() - begun:.1f} s", flush=True)
                for problem in problems:
                    print(f"  BROKEN {problem}", flush=True)
        if keep or broken:
            print(f"ledger and database: {directory}", flush=True)
        else:
            shutil.rmtree(directory)
    return count, broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.boundaries")
    parser.add_argument("patterns", nargs="*", help="parts of a line, such as 'settle' or 'sync'")
    parser.add_argument("--list", action="store_true", help="only print the lines")
    parser.add_argument("--keep", action="store_true", help="keep ledgers and databases")
    given = parser.parse_args()
    chosen = [one for one in crashes() if all(part in str(one) for part in given.patterns)]
    if given.list:
        print(*chosen, sep="\n")
        return 0
    begun = time.monotonic()
    count, broken = asyncio.run(run(chosen, given.keep))
    names = {one.boundary for one in chosen}
    print(
        f"{count} crashes at {len(names)} boundaries in {time.monotonic() - begun:.0f} s: "
        f"{broken} with broken promises"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
