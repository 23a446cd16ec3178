"""Handlers with parallel branches, for every framework: generators, as those of `tests.matrix`.

They are the programs of `tests.integrations.parallel_programs`, which are coroutines; without those
whose branches are cancelled, which threads cannot be.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import stephttp
from tests.matrix.cells import Flow
from tests.matrix.uses import Program, Use

SECOND = timedelta(seconds=1)


class Parallel(NamedTuple):
    """A handler, what it answers, and how often its steps fail."""

    program: Program
    value: Any
    failures: dict[str, int]


def _nap(u: Use, name: str, seconds: int = 1) -> Flow:
    yield u.step.sleep(f"nap {name}", seconds * SECOND)
    return (yield u.do(name))


def naps(u: Use) -> Flow:
    found = yield u.step.parallel([u.branch(_nap(u, f"p{number}")) for number in range(10)])
    return u.json(list(found))


def chain(u: Use) -> Flow:
    """Run branches of waits and steps, and a sequential end."""

    def link(name: str) -> Flow:
        yield u.step.sleep(f"{name}1", SECOND)
        yield u.do(f"{name}2")
        yield u.do(f"{name}3")
        yield u.step.sleep(f"{name}4", SECOND)
        return (yield u.do(f"{name}5"))

    yield u.step.parallel([u.branch(link(name)) for name in "abcd"])
    c = yield u.do("c")
    d = yield u.do("d")
    return u.json([c, d, (yield u.do("e"))])


def mix(u: Use) -> Flow:
    def one() -> Flow:
        yield u.do("one1")
        yield u.step.sleep("one2", SECOND)
        yield u.do("one3")

    def two() -> Flow:
        yield u.step.sleep("two1", SECOND)
        yield u.do("two2")
        yield u.do("two3")

    def three() -> Flow:
        yield u.do("three1")
        yield u.do("three2")

    def four() -> Flow:
        event = yield u.step.wait_for_event("four1", event="never", timeout=2 * SECOND)
        yield u.do(f"four2 {event}")

    def alone(name: str) -> Flow:
        yield u.do(name)

    yield u.step.sleep("before", SECOND)
    yield u.step.parallel([u.branch(one()), u.branch(two()), u.branch(three()), u.branch(four())])
    yield u.do("between")
    yield u.step.parallel([u.branch(alone("x")), u.branch(alone("y"))])
    return u.json((yield u.do("last")))


def failing(u: Use) -> Flow:
    """Run steps that fail beside each other, before and after a wait."""

    def alone(name: str) -> Flow:
        return (yield u.do(name, retries=2))

    def caught() -> Flow:
        yield u.step.sleep("caught nap", SECOND)
        try:
            return (yield u.do("f3"))
        except (stephttp.StepError, ConnectionError):
            return (yield u.do("repaired"))

    branches = [u.branch(alone("f1")), u.branch(alone("f2")), u.branch(caught())]
    found = yield u.step.parallel(branches)
    return u.json([*found, (yield u.do("last"))])


def caught_at_once(u: Use) -> Flow:
    """Run a step that has failed for good, and others behind it."""

    def nap(name: str) -> Flow:
        yield u.step.sleep(name, SECOND)

    try:
        yield u.do("x")
        yield u.do("bad")
    except (stephttp.StepError, ConnectionError):
        yield u.step.parallel([u.branch(nap("one")), u.branch(nap("two"))])
    yield u.do("y")
    return u.json((yield u.do("last")))


def fetches(u: Use) -> Flow:
    def fetch(number: int) -> Flow:
        found = yield u.step.fetch(f"fetch{number}", f"http://a.test/{number}")
        return found.status_code

    branches = [u.branch(fetch(1)), u.branch(fetch(2)), u.branch(_nap(u, "nap"))]
    found = yield u.step.parallel(branches)
    last = yield u.branch(fetch(3))()
    return u.json([*found, last, (yield u.do("last"))])


def race(u: Use) -> Flow:
    branches = (u.branch(_nap(u, "slow", 3)), u.branch(_nap(u, "quick")))
    won = yield u.step.race("who", branches)
    yield u.step.sleep("nap", SECOND)
    return u.json([won in ("slow", "quick"), (yield u.do("last"))])


def first(u: Use) -> Flow:
    """Run branches, and then a race that the branch which fails does not win."""
    found = yield u.step.parallel([u.branch(_nap(u, name)) for name in "ab"])
    won = yield u.step.first("who", (u.branch(_nap(u, "bad")), u.branch(_nap(u, "good", 2))))
    return u.json([*found, won, (yield u.do("last"))])


PROGRAMS = {
    "naps": Parallel(naps, [f"p{number}" for number in range(10)], {}),
    "chain": Parallel(chain, ["c", "d", "e"], {}),
    "mix": Parallel(mix, "last", {}),
    "failing": Parallel(
        failing, ["f1", "f2", "repaired", "last"], {"f1": 2, "f2": 1, "f3": 1}
    ),
    "caught_at_once": Parallel(caught_at_once, "last", {"bad": 1}),
    "fetches": Parallel(fetches, [200, 200, "nap", 200, "last"], {}),
    "race": Parallel(race, [True, "last"], {}),
    "first": Parallel(first, ["a", "b", "good", "last"], {"bad": 1}),
}  # fmt: skip
