"""`python -m tests.fuzzing [TARGET] --seed N --cases N --first N`: runs cases."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time

from tests.fuzzing import cases
from tests.fuzzing.targets import TARGETS


def main() -> int:
    """Run the cases, and print figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", nargs="*", choices=[[], *TARGETS], help="all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=1000, help="of each target")
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    logging.getLogger("stephttp").addHandler(logging.NullHandler())
    logging.lastResort = None
    total = 0
    for name in chosen.target or TARGETS:
        began = time.perf_counter()
        try:
            figures = asyncio.run(cases.run(TARGETS[name], chosen.seed, chosen.cases, chosen.first))
        except cases.Found as found:
            cause = found.__cause__
            print(f"FOUND {found}", *(getattr(cause, "__notes__", [])), file=sys.stderr)
            if chosen.cases == 1 and cause is not None:
                raise
            return 1
        count = figures.outcomes.total()
        total += count
        outcomes = ", ".join(f"{what} {n}" for what, n in sorted(figures.outcomes.items()))
        print(
            f"{name}: {count} cases in {time.perf_counter() - began:.0f} s: {outcomes}; "
            f"slowest {figures.slowest * 1000:.0f} ms ({figures.slowest_case})",
            flush=True,
        )
    print(f"{total} cases, nothing found (seed {chosen.seed})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
