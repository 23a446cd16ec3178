"""All crashes: each boundary, its two moments, and the applications where those differ."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass, field

from stephttp.engine.store import check, database
from tests.faults.boundaries.bench import Bench
from tests.faults.boundaries.derive import Boundary
from tests.faults.boundaries.scenarios import SCENARIOS, Scenario
from tests.faults.boundaries.workloads import RUN

MOMENTS = ("before", "after")


@dataclass(frozen=True)
class Crash:
    """The death of a process at a boundary, while a workload runs."""

    moment: str
    boundary: Boundary
    app: str
    scenario: Scenario = field(repr=False)

    def __str__(self) -> str:
        return f"{self.app}, {self.moment} {self.boundary}, {self.scenario.work.__name__}"

    @property
    def bench(self) -> tuple[str, tuple[str, ...], str]:
        """The arguments of the bench that it needs."""
        armed = f"{self.moment} {self.boundary}" if self.scenario.fresh else ""
        return self.app, self.scenario.options, armed


def crashes() -> list[Crash]:
    """Return all crashes, in a fixed order."""
    return [
        Crash(moment, boundary, app, scenario)
        for scenario in SCENARIOS
        for boundary in boundaries_of(scenario)
        # What the engine commits and sends is the same for all applications.
        for app in (scenario.apps if boundary.kind == "send" else scenario.apps[:1])
        for moment in MOMENTS
    ]


def boundaries_of(scenario: Scenario) -> list[Boundary]:
    """Return the boundaries that a scenario is there for."""
    kinds = {"commit": scenario.commits, "call": scenario.calls, "send": scenario.sends}
    return [Boundary(kind, name) for kind, names in kinds.items() for name in names]


async def crash(bench: Bench, planned: Crash) -> list[str]:
    """Carry out a crash in a bench. Returns which promises were broken, a line each."""
    await bench.alive()
    if not planned.scenario.fresh:
        # A process that imports its HTTP client meanwhile is too slow for its first lease.
        await bench.order(RUN)
    since = bench.ledger.size()
    if not planned.scenario.fresh:
        bench.arm(planned.moment, planned.boundary)
    problems: list[str] = []
    try:
        async with asyncio.timeout(300):
            await planned.scenario.work(bench)
            problems += await bench.broken(since)
    except (AssertionError, TimeoutError) as error:
        problems.append(f"{type(error).__name__}: {error}")
    if not bench.disarm():
        problems.append("nothing got there")
    with closing(database.connect_read_only(str(bench.database))) as connection:
        problems += [*check.integrity(connection), *check.invariants(connection)]
    return problems
