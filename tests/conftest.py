"""What all tests share: which children are measured, and how many examples are made up."""

from __future__ import annotations

import gc
import logging
import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import databases
from tests.portions import portion, spread

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give workers a portion at a time, where they would get files."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    scheduling = LoadFileScheduling(config, log)
    scheduling._split_scope = portion
    return scheduling


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
    if passing := [nodeid for nodeid in times if " at 0x" in nodeid]:
        raise pytest.UsageError(f"other workers have other addresses: {', '.join(passing)}")
    names = {path: path.relative_to(_HERE).as_posix() for path in {item.path for item in items}}
    places = spread(names[item.path] for item in items)
    items.sort(key=lambda item: places[names[item.path]])


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
    """Leave what a file of tests has left behind out as well, such as reports and caches; and take
    back what a framework has done to the log of the process, as Litestar does when it starts."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    done = yield
    root.setLevel(level)
    root.handlers[:] = handlers
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
