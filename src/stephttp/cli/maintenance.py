"""`stephttp check-db` and `stephttp backup`."""

from __future__ import annotations

import sys

from stephttp.cli.terminal import complain, say
from stephttp.engine.backup import backup
from stephttp.engine.checkdb import check_file
from stephttp.errors import ConfigurationError


def run_check(path: str) -> int:
    """Check a database; 0 if it is whole, 1 if not, 2 if it cannot be read."""
    try:
        report = check_file(path)
    except ConfigurationError as error:
        complain(str(error))
        return 2
    for problem in report.problems:
        complain(problem)
    if report.problems:
        complain(f"{path}: {len(report.problems)} problems")
        return 1
    runs = ", ".join(f"{count} {status}" for status, count in sorted(report.runs.items()))
    say(f"{path} is whole (schema {report.version}; runs: {runs or 'none'})")
    return 0


def run_backup(source: str, target: str) -> int:
    """Copy a database; 0 if there is a whole copy now, 2 if not (then the target is as it was)."""
    shown = -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // max(total, 1)
        # For people: a log has no use for it.
        if percent != shown and sys.stderr.isatty():
            shown = percent
            print(f"\rstephttp: {percent} %", end="", file=sys.stderr, flush=True)

    try:
        size = backup(source, target, progress)
    except ConfigurationError as error:
        complain(str(error))
        return 2
    finally:
        if shown >= 0:
            print(file=sys.stderr)
    say(f"{source} is backed up to {target} ({size} bytes, checked)")
    return 0
