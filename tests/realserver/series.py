"""Many runs with parallel branches on the double, and what came of them, in figures.

    python -m tests.realserver.series 400

Each run has a program, a framework, one process of the application or two, and an order of what
happens, all chosen by its number: calls of one run overlap, calls come late and again, targeted
calls are tried again, and in every second run a node of the server dies.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stephttp._wire.ids import hash_step_id
from tests.matrix.frameworks import FRAMEWORKS, Framework
from tests.matrix.uses import Counts
from tests.realserver.programs import PROGRAMS
from tests.realserver.server import RealServer

IN_SERIES = ("fastapi", "flask", "django-asgi", "django-wsgi")
STRAYS = 3


class Scenario(NamedTuple):
    """What one run of the series is.

    Args:
        name: of the program.
        framework: of the application.
        processes: of the application.
        deaths: how often a node of the server may die.
        seed: of the order in which things happen.
    """

    name: str
    framework: str
    processes: int
    deaths: int
    seed: int


def scenario(number: int, seed: int = 0) -> Scenario:
    """Return the run of this number: after 128 there was each kind of them."""
    names, half = [*PROGRAMS], 2 * len(IN_SERIES)
    return Scenario(
        names[number // half % len(names)],
        IN_SERIES[number % len(IN_SERIES)],
        1 + number // len(IN_SERIES) % 2,
        (number // half + number // half // len(names)) % 2,
        seed * 1_000_003 + number,
    )


@dataclass
class Ended:
    """What came of a run.

    Args:
        problem: why it is wrong; empty: the caller got the handler's own answer.
        twice: steps that ran although the server had their result, or that ran again without a
            death.
        again: steps that ran again because the node died that was to store their result.
        calls: of the application.
        died: whether a node has died.
        trace: what happened, in its order.
    """

    problem: str = ""
    twice: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    calls: int = 0
    died: bool = False
    trace: list[str] = field(default_factory=list, repr=False)


class Watched(Counts):
    """The bodies of steps; notes those that run although the server has their result."""

    def __init__(self, server: RealServer) -> None:
        super().__init__()
        self._server = server
        self.acknowledged: list[str] = []

    def body(self, name: str) -> str:
        if any(hash_step_id(name) in run.memos for run in self._server.runs.values()):
            self.acknowledged.append(name)
        return super().body(name)


def frameworks() -> dict[str, Framework]:
    """Return the applications of the series, which have all programs."""
    programs = {name: one.program for name, one in PROGRAMS.items()}
    return {name: FRAMEWORKS[name](programs) for name in IN_SERIES}


async def run(
    one: Scenario, application: Framework, choose: Callable[[int], int] | None = None
) -> Ended:
    """Carry out a run.

    Args:
        one: what it is.
        application: is there (`Framework.there`).
        choose: chooses the order instead of the seed.
    """
    chosen = choose or random.Random(one.seed).randrange
    server = RealServer(choose=chosen, wsgi=application.wsgi, key="ab" * 16)
    server.deaths, server.strays = one.deaths, STRAYS
    counts = application.counts = Watched(server)
    program = PROGRAMS[one.name]
    counts.failures.update(program.failures)
    providers = [server.provider() for _ in range(one.processes)]
    server.apps = [application.wrapped(provider) for provider in providers]
    ended = Ended()
    first = await server.begin(f"/{one.name}")
    try:
        final = await server.finish(first)
        if final.status_code != 200 or final.json() != program.value:
            ended.problem = f"{final.status_code}: {final.text}"
    except AssertionError as error:
        ended.problem = f"hangs: {error}"
    for provider in providers:
        await provider.aclose()
    ended.calls, ended.trace = len(server.reentries), server.trace
    ended.died = server.deaths < one.deaths
    more = [
        name for name, count in counts.done.items() if count > 1 + program.failures.get(name, 0)
    ]
    fetched = [name for name, count in Counter(server.executor.fetched).items() if count > 1]
    ended.twice = counts.acknowledged if ended.died else [*counts.acknowledged, *more, *fetched]
    ended.again = [*more, *fetched] if ended.died else []
    return ended


async def _series(runs: int, seed: int, at: int | None) -> list[tuple[Scenario, Ended]]:
    made, found = frameworks(), list[tuple[Scenario, Ended]]()
    for name, application in made.items():  # Django has settings once in a process
        with application.there():
            for number in range(runs):
                one = scenario(number, seed)
                if one.framework == name and at in (None, number):
                    found.append((one, await run(one, application)))
    return found


def main() -> int:
    """Carry out a series, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at", type=int, help="only the run of this number")
    given = parser.parse_args()
    logging.disable()
    began = time.monotonic()
    found = asyncio.run(_series(given.runs, given.seed, given.at))
    print(figures(found), f"{time.monotonic() - began:.0f} s")
    wrong = [(one, ended) for one, ended in found if ended.problem or ended.twice]
    for one, ended in wrong:
        print(one, ended)
    return bool(wrong)


def figures(found: list[tuple[Scenario, Ended]]) -> str:
    """Return the figures of a series, a line for each framework and number of processes."""
    groups: dict[Any, list[Ended]] = {}
    for one, ended in found:
        groups.setdefault((one.framework, one.processes), []).append(ended)
    lines = ["framework, processes    runs  hung or wrong  twice  node died  again  calls"]
    total = [ended for _, ended in found]
    for name, several in [*sorted(groups.items()), (("all", ""), total)]:
        wrong = sum(bool(ended.problem) for ended in several)
        twice = sum(bool(ended.twice) for ended in several)
        died = sum(ended.died for ended in several)
        again = sum(len(ended.again) for ended in several)
        calls = sum(ended.calls for ended in several) / max(1, len(several))
        shown = f"{' '.join(map(str, name)):22}{len(several):6}{wrong:15}{twice:7}{died:11}"
        lines.append(f"{shown}{again:7}{calls:7.1f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
