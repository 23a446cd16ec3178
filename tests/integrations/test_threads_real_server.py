"""Runs with parallel branches in threads, on a real server: none hangs, and no step runs twice.

What is tested in `test_parallel_real_server` on a loop, under WSGI: two processes take the calls,
and which thread works, and what happens next, is chosen by a seed or by Hypothesis.
"""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integrations.test_parallel_real_server import listed
from tests.realserver.programs import PROGRAMS
from tests.realserver.series import Ended, Scenario, figures, frameworks, run, scenario

APPLICATIONS = frameworks()
IN_CI = 16


async def ended(one: Scenario, choose: Callable[[int], int] | None = None) -> Ended:
    application = APPLICATIONS[one.framework]
    with application.there():
        return await run(one, application, choose)


@pytest.mark.parametrize("framework", ["flask", "django-wsgi"])
@pytest.mark.parametrize("name", PROGRAMS)
async def test_no_step_runs_twice_in_two_processes(name: str, framework: str) -> None:
    found = await ended(Scenario(name, framework, 2, 0, 1))
    assert (found.problem, found.twice) == ("", []), found.trace


@pytest.mark.parametrize("name", ["chain", "mix", "caught_at_once", "race"])
async def test_the_same_choices_are_the_same_order(name: str) -> None:
    """So a failure can be looked at."""
    one = Scenario(name, "flask", 2, 1, 7)
    first, second = await ended(one), await ended(one)
    assert first.trace == second.trace
    assert first.calls == second.calls
    other = await ended(one._replace(seed=8))
    assert other.trace != first.trace


@settings(max_examples=15)
@given(
    st.sampled_from(sorted(PROGRAMS)), st.lists(st.integers(0, 5040), max_size=300),
    st.integers(0, 2),
)  # fmt: skip
def test_each_acknowledged_step_runs_once_whatever_happens(
    name: str, numbers: list[int], deaths: int
) -> None:
    found = asyncio.run(ended(Scenario(name, "flask", 2, deaths, 0), listed(numbers)))
    assert (found.problem, found.twice) == ("", []), found.trace


async def test_a_series_of_runs_in_all_frameworks() -> None:
    """The beginning of `python -m tests.realserver.series`."""
    found = [(one := scenario(number), await ended(one)) for number in range(IN_CI)]
    wrong = [(one, end) for one, end in found if end.problem or end.twice]
    assert not wrong
    assert sum(end.died for _, end in found) > IN_CI / 4
    assert figures(found).splitlines()[-1].split()[:4] == ["all", str(IN_CI), "0", "0"]
