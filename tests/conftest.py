"""What all tests share: which children are measured, and how many examples are made up."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import databases

# Nothing is measured in time: a machine may be busy.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("push", _UNTIMED, derandomize=True)
# `make check-long` chooses it. Each run looks elsewhere, which a push must not.
settings.register_profile("long", _UNTIMED, max_examples=1000, derandomize=False)
# For `make mutation`: an example that fails is enough, and need not be made simple.
_FAST = (Phase.explicit, Phase.generate)
settings.register_profile("mutants", _UNTIMED, derandomize=True, phases=_FAST)
settings.load_profile("push")

_MEASURED = "COVERAGE_PROCESS_CONFIG"
"""With this in its environment, a Python process measures its coverage."""


_HERE = Path(__file__).parent
_WAITING = ("acceptance/", "browser/", "cli/", "conformance/", "faults/")
"""Folders of tests that mostly wait for processes which they have started."""
_LONGEST = (
    "faults/test_schedules.py", "browser/test_axe.py", "acceptance/test_readme.py",
    "browser/test_dashboard.py", "conformance/test_typescript.py", "acceptance/test_load.py",
    "acceptance/test_demo.py", "acceptance/test_instructions.py",
    "conformance/test_typescript_keys.py", "acceptance/test_docs.py",
)  # fmt: skip
"""Those that take longest, so that no worker comes to one when the others have nothing left."""
_SPREAD_OVER = 0.85
"""The part of the files that compute among which those that wait are spread."""


def spread(files: Iterable[str]) -> dict[str, float]:
    """Return a place for each file of tests: the longest first, and those that wait evenly among
    those that compute, so that workers have something to compute while others wait."""
    names = list(dict.fromkeys(files))
    first = {name: number for number, name in enumerate(_LONGEST)}
    waiting = sorted(
        (name for name in names if name.startswith(_WAITING)),
        key=lambda name: first.get(name, len(first)),
    )
    computing = [name for name in names if not name.startswith(_WAITING)]
    step = _SPREAD_OVER * len(computing) / max(1, len(waiting))
    places = {name: float(number) for number, name in enumerate(computing)}
    return places | {name: number * step - 0.5 for number, name in enumerate(waiting)}


@pytest.fixture(scope="session", autouse=True)
def _coverage_of_children() -> Generator[str | None]:
    """Leave children unmeasured: that makes them half as slow again, and what they run is
    nearly all covered by tests in this process. Returns how they would be measured."""
    with pytest.MonkeyPatch.context() as patch:
        config = os.environ.get(_MEASURED)
        patch.delenv(_MEASURED, raising=False)
        yield config


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests that share a node id: pytest-xdist would run one of them, and say nothing.

    The others get an order in which the machine is busy all the time.
    """
    times = Counter(item.nodeid for item in items)
    if shared := sorted(nodeid for nodeid, count in times.items() if count > 1):
        raise pytest.UsageError(f"tests share a node id: {', '.join(shared)}")
    places = spread(item.path.relative_to(_HERE).as_posix() for item in items)
    items.sort(key=lambda item: places[item.path.relative_to(_HERE).as_posix()])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the tests and all modules out of collections of garbage: each would look at more
    than a million objects that live as long as the process."""
    gc.disable()
    collected = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return collected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Leave what a file of tests has left behind out as well, such as reports and caches."""
    done = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()
    return done


@pytest.fixture
def measured(_coverage_of_children: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the children of this test: only they show what it looks at."""
    if _coverage_of_children is not None:
        monkeypatch.setenv(_MEASURED, _coverage_of_children)


@pytest.fixture(scope="session")
def postgres_folder() -> Generator[Path]:
    """Run a PostgreSQL server for the tests of this process; see `databases.postgres`."""
    with databases.postgres() as folder:
        yield folder


@pytest.fixture(scope="session")
def mariadb_socket() -> Generator[Path]:
    """Run a MariaDB server for the tests of this process; see `databases.mariadb`."""
    with databases.mariadb() as socket:
        yield socket
