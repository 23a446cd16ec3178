"""Each cell: the caller, the steps and the record see no difference, or the one that is known."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.matrix.differences import DIFFERENCES, there
from tests.matrix.frameworks import FRAMEWORKS
from tests.matrix.programs import CELLS
from tests.matrix.sides import OnEngine, on_double, on_engine

DIFFERING = {name for one in DIFFERENCES for name in one.cells}
PARALLEL = ("parallel", "gather", "task", "race", "first")


def places(name: str, when: str) -> tuple[int, ...]:
    """In how many processes a cell runs: where that matters, in one and in two."""
    if name in DIFFERING or name.startswith(PARALLEL):
        return (1, 2)
    return (1,) if when == "first" else (2,)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(request: pytest.FixtureRequest) -> AsyncGenerator[OnEngine]:
    """Our engine, with the application of one framework."""
    framework = FRAMEWORKS[request.param]({name: one.program for name, one in CELLS.items()})
    with framework.there():
        async with on_engine(framework) as side:
            yield side


def cells(*, on_loop: bool) -> list[tuple[str, str]]:
    return [(n, when) for n, one in CELLS.items() if one.on_loop is on_loop for when in one.when]


@pytest.mark.parametrize("engine", FRAMEWORKS, indirect=True)
@pytest.mark.parametrize(("name", "when"), cells(on_loop=False))
@pytest.mark.asyncio(loop_scope="module")
async def test_cell(engine: OnEngine, name: str, when: str) -> None:
    await check(engine, name, when)


@pytest.mark.parametrize(
    "engine", [n for n, one in FRAMEWORKS.items() if one.on_loop], indirect=True
)
@pytest.mark.parametrize(("name", "when"), cells(on_loop=True))
@pytest.mark.asyncio(loop_scope="module")
async def test_cell_on_a_loop(engine: OnEngine, name: str, when: str) -> None:
    await check(engine, name, when)


async def check(engine: OnEngine, name: str, when: str) -> None:
    cell = CELLS[name]
    expected = await engine.outcome(name, cell, when)
    assert (expected.answers[-1].status, expected.runs) == (cell.status, cell.runs)
    if cell.value is not ...:
        assert expected.answers[-1].json() == cell.value
    for processes in places(name, when):
        async with on_double(engine.framework, processes) as double:
            found = await double.outcome(name, cell, when)
        assert there(expected, name, when, processes) == found, processes


def test_what_differs_is_what_there_is() -> None:
    assert CELLS.keys() >= DIFFERING
