"""Runs tests against mutants: one process collects them, and forks for each mutant.

mutmut makes the mutants, all in one copy of the sources, and switches between them by a variable
(`set_mutant_under_test`). It starts pytest anew for each one, which takes seconds; a fork that has
the tests collected takes milliseconds. Each mutant gets the tests that come through its function,
the fastest first, until one fails.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

KILLED, SURVIVED, TIMEOUT, UNTESTED = "killed", "survived", "timeout", "untested"
_SLACK = 5.0
"""Seconds that tests may take longer, beside ten times as long, than without a mutant."""


class Mutants:
    """A plugin of pytest that runs the tests against mutants instead of once.

    Args:
        source: the copy of the sources with the mutants.
        patterns: names of mutants, with wildcards; empty: all.
        done: called with name and outcome of each.
    """

    def __init__(
        self, source: Path, patterns: Iterable[str], done: Callable[[str, str], None]
    ) -> None:
        self._done = done
        wanted = list(patterns) or ["*"]
        self._names = [
            name for name in names(source) if any(fnmatchcase(name, pattern) for pattern in wanted)
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        tests: dict[str, list[tuple[float, str]]] = json.loads(in_fork(lambda: _times(items)))
        for name in self._names:
            function = name.partition("__mutmut_")[0]
            chosen = sorted(tests.get(function, ()))
            if not chosen:
                self._done(name, UNTESTED)
                continue
            limit = _SLACK + 10 * sum(seconds for seconds, _ in chosen)
            run = [items[nodeid] for _, nodeid in chosen]
            self._done(name, _outcome(name, run, limit))
        return True


def names(source: Path) -> list[str]:
    """Return the names of all mutants."""
    found: list[str] = []
    for meta in sorted(source.rglob("*.py.meta")):
        found += json.loads(meta.read_text())["exit_code_by_key"]
    return found


def in_fork(work: Callable[[], bytes]) -> bytes:
    """Return what the work returns in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(work())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        result = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not result:
        raise SystemExit("the tests do not pass without a mutant")
    return result


def _times(items: dict[str, pytest.Item]) -> bytes:
    """Return, by mutated function, the tests that come through it, with their seconds."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    set_mutant_under_test("stats")
    for nodeid, item in items.items():
        state()._stats.clear()
        begun = time.perf_counter()
        if _fails(item):
            sys.stderr.write(f"{nodeid} fails without a mutant\n")
            os._exit(1)
        seconds = time.perf_counter() - begun
        for function in state()._stats:
            found[function].append((seconds, nodeid))
    return json.dumps(found).encode()


def _fails(item: pytest.Item, following: pytest.Item | None = None) -> bool:
    reports = runtestprotocol(item, nextitem=following, log=False)
    return any(report.failed for report in reports)


def _outcome(name: str, items: list[pytest.Item], limit: float) -> str:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit)
        # A mutant may take all memory, too.
        set_mutant_under_test(name)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        code = 1
        try:
            followed = [*items[1:], None]
            code = int(any(_fails(*pair) for pair in zip(items, followed, strict=True)))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return TIMEOUT if os.WTERMSIG(status) == signal.SIGALRM else KILLED
    return KILLED if os.WEXITSTATUS(status) else SURVIVED


def run(folder: Path, arguments: list[Any], plugin: Mutants) -> None:
    """Run pytest with the plugin in the folder that has `src` and `tests`."""
    os.chdir(folder)
    sys.path.insert(0, str(Path("src").resolve()))
    code = pytest.main([*arguments, "-p", "no:cacheprovider", "--timeout=0"], [plugin])
    if code:
        raise SystemExit(f"pytest: {code}")
