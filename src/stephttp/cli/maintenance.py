"""`stephttp check-db` and `stephttp backup`: what they print, and their exit codes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from stephttp.cli import printing
from stephttp.cli.terminal import complain, say
from stephttp.engine.store.backup import backup
from stephttp.engine.store.check import check_file
from stephttp.errors import ConfigurationError


def run_check(path: str, *, as_json: bool = False) -> int:
    """Check a database; return 0 if it is whole, 1 if not, 2 if it cannot be read."""
    try:
        with _bar(f"checking {path}") as progress:
            report = check_file(path, progress)
    except ConfigurationError as error:
        complain(str(error))
        return 2
    if as_json:
        printing.print_json(
            {
                "ok": not report.problems,
                "schema": report.version,
                "runs": report.runs,
                "problems": list(report.problems),
            }
        )
        return 1 if report.problems else 0
    for problem in report.problems:
        complain(problem)
    if report.problems:
        complain(f"{path}: {len(report.problems)} problems")
        return 1
    runs = ", ".join(f"{count} {status}" for status, count in sorted(report.runs.items()))
    say(f"{path} is whole (schema {report.version}; runs: {runs or 'none'})")
    return 0


def run_backup(source: str, target: str, *, as_json: bool = False) -> int:
    """Copy a database; return 0 if the copy is whole, 2 if not (then the target is unchanged)."""
    try:
        with _bar(f"copying {source}") as progress:
            size = backup(source, target, progress)
    except ConfigurationError as error:
        complain(str(error))
        return 2
    if as_json:
        printing.print_json({"db": source, "file": target, "bytes": size})
    else:
        say(f"{source} is backed up to {target} ({size} bytes, checked)")
    return 0


@contextmanager
def _bar(what: str) -> Generator[Callable[[int, int], None]]:
    with printing.progress() as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
