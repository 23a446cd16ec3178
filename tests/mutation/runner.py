"""Runs tests against mutants: one process collects them, and forks for each mutant.

mutmut makes the mutants, all in one copy of the sources, and switches between them by a variable
(`set_mutant_under_test`). It starts pytest anew for each one, which takes seconds; a fork that has
the tests collected takes milliseconds. Each mutant gets the tests that come through its function
until one fails: those first that killed others there, then the fastest.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import chdir
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state

KILLED, SURVIVED, TIMEOUT, UNTESTED = "killed", "survived", "timeout", "untested"
_SLACK = 2.0
"""Seconds that a test may take longer, beside ten times as long, than without a mutant."""
_DEADLOCK = 60.0
_MOST_MEMORY = 2 * 1024**3
"""Bytes that a test may take: a loop that never ends may grow until the machine has no more."""
_TIMERS = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}


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
        gc.collect()
        gc.freeze()
        tests = _tests_of_functions(items)
        killers: dict[str, Counter[str]] = defaultdict(Counter)
        for name in self._names:
            function = name.partition("__mutmut_")[0]
            known = killers[function]
            chosen = sorted(tests.get(function, ()), key=lambda one: (-known[one[1]], one))
            if not chosen:
                self._done(name, UNTESTED)
                continue
            run = [(items[nodeid], _SLACK + 10 * seconds) for seconds, nodeid in chosen]
            outcome, killer = _outcome(name, run)
            known[killer] += 1
            self._done(name, outcome)
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


def _tests_of_functions(items: dict[str, pytest.Item]) -> dict[str, list[tuple[float, str]]]:
    """Return, by mutated function, the tests that come through it, with their seconds.

    Each test begins where it will with a mutant: what another one has left in a cache would keep it
    from coming through what fills the cache.
    """
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for nodeid, item in items.items():
        seconds, functions = json.loads(in_fork(partial(_time, item)))
        for function in functions:
            found[function].append((seconds, nodeid))
    return found


def _time(item: pytest.Item) -> bytes:
    """Return the seconds that a test takes, and the mutated functions that it comes through."""
    set_mutant_under_test("stats")
    state()._stats.clear()
    begun = time.process_time()
    if _fails(item):
        sys.stderr.write(f"{item.nodeid} fails without a mutant\n")
        os._exit(1)
    seconds = time.process_time() - begun
    return json.dumps((seconds, sorted(state()._stats))).encode()


def _fails(item: pytest.Item, following: pytest.Item | None = None) -> bool:
    reports = runtestprotocol(item, nextitem=following, log=False)
    return any(report.failed for report in reports)


def _limit(seconds: float) -> None:
    """Let this process live for so long: of processor time, so that a busy machine kills no
    mutants, and longer by the clock, for deadlocks."""
    for timer in _TIMERS:
        real = timer == signal.ITIMER_REAL
        signal.setitimer(timer, _DEADLOCK + 10 * seconds if real else seconds)


def _outcome(name: str, items: list[tuple[pytest.Item, float]]) -> tuple[str, str]:
    """Return what becomes of a mutant, and the test that has killed it.

    Args:
        items: tests, and the seconds that each may take.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        for number in _TIMERS.values():
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        set_mutant_under_test(name)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        code = 1
        try:
            followed = [*(item for item, _ in items[1:]), None]
            for (item, seconds), following in zip(items, followed, strict=True):
                _limit(seconds)
                if _fails(item, following):
                    os.write(writing, item.nodeid.encode())
                    break
            else:
                code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        killer = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return TIMEOUT if os.WTERMSIG(status) in _TIMERS.values() else KILLED, killer
    return KILLED if os.WEXITSTATUS(status) else SURVIVED, killer


def run(folder: Path, arguments: list[Any], plugin: Mutants) -> None:
    """Run pytest with the plugin in the folder that has `src` and `tests`."""
    sys.path.insert(0, str((folder / "src").resolve()))
    # Failures are counted, not shown: to explain them would take most of the time.
    options = ["-p", "no:cacheprovider", "--timeout=0", "--tb=no", "--assert=plain"]
    with chdir(folder):
        code = pytest.main([*arguments, *options], [plugin])
    if code:
        raise SystemExit(f"pytest: {code}")
