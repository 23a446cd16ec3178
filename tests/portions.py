"""The order of the tests, and the portions that workers of pytest-xdist get."""

from __future__ import annotations

import re
from collections.abc import Iterable

WAITING = ("acceptance/", "browser/", "cli/", "conformance/", "faults/")
"""Folders of tests that mostly wait for processes which they have started."""
LONGEST = (
    "faults/test_schedules.py", "browser/test_axe.py", "acceptance/test_readme.py",
    "browser/test_dashboard.py", "conformance/test_typescript.py", "acceptance/test_load.py",
    "browser/test_functions.py",
    "acceptance/test_demo.py", "acceptance/test_demo_events.py", "acceptance/test_instructions.py",
    "acceptance/test_endpoint_limits.py",
    "conformance/test_typescript_keys.py", "acceptance/test_docs.py",
    "matrix/test_matrix.py", "engine/test_openapi.py", "integrations/test_threads_real_server.py",
    "integrations/test_parallel_real_server.py", "engine/dashboard/test_sessions.py",
    "integrations/test_rolling_deploys.py", "integrations/test_watched.py",
    "testing/test_runners.py", "testing/test_crash_everywhere.py", "test_english.py",
)  # fmt: skip
"""Those that take longest, of both kinds, so that no worker comes to one when the others have
nothing left."""
APART = frozenset(
    {
        "acceptance/test_load.py", "engine/test_openapi.py", "faults/test_schedules.py",
        "integrations/test_threads_real_server.py",
    }
)  # fmt: skip
"""Files that take long, and whose tests share nothing: a worker gets one test, not the file."""
_FRAMEWORK = re.compile(r"matrix/test_matrix\.py::.*-(?:first|late)-(.+)\]$")
"""The tests of the matrix share what is made for a framework, whose name their id ends with."""
_SPREAD_OVER = 0.85
"""The part of the files that compute among which those that wait are spread."""


def spread(files: Iterable[str]) -> dict[str, float]:
    """Return a place for each file of tests: the longest first, and those that wait evenly among
    those that compute, so that workers have something to compute while others wait."""
    first = {name: number for number, name in enumerate(LONGEST)}
    names = sorted(dict.fromkeys(files), key=lambda name: first.get(name, len(first)))
    waiting = [name for name in names if name.startswith(WAITING)]
    computing = [name for name in names if not name.startswith(WAITING)]
    step = _SPREAD_OVER * len(computing) / max(1, len(waiting))
    places = {name: float(number) for number, name in enumerate(computing)}
    return places | {name: number * step - 0.5 for number, name in enumerate(waiting)}


def portion(nodeid: str) -> str:
    """Return the name that a test shares with those that the same worker runs: its file, or the
    test alone, or in the matrix its framework."""
    file = nodeid.partition("::")[0]
    if (found := _FRAMEWORK.search(nodeid)) is not None:
        return f"{file}::{found[1]}"
    return nodeid if file.removeprefix("tests/") in APART else file
