"""A short, seeded set of cases of each target; `make fuzz` runs many."""

from __future__ import annotations

import logging
from collections.abc import Generator

import pytest

from tests.examples import examples
from tests.fuzzing import cases
from tests.fuzzing.targets import TARGETS

SLOW = {"hostile-application": 10, "engine-dev": 60, "engine-start": 60}
"""Cases a push, where one takes more than a millisecond or two."""


@pytest.fixture(autouse=True)
def levels() -> Generator[None]:
    """Targets silence loggers."""
    names = ("stephttp", "stephttp.engine.rules.conditions")
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("name", TARGETS)
async def test_nothing_from_outside_breaks_what_reads_it(name: str) -> None:
    target = TARGETS[name]
    count = examples(SLOW.get(name, 100), 20 * SLOW.get(name, 100))
    figures = await cases.run(target, seed=0, cases=count)
    assert figures.outcomes.total() == count
    assert len(figures.outcomes) > 1, "all cases went the same way"
