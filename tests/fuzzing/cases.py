"""What a target of the fuzzer is, and how its cases are made and run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

Case = Callable[[Random], Awaitable[str]]
"""Makes up a case, runs it, and returns what kind of outcome it had, for the figures. Raises
`AssertionError` if something is wrong."""

HANG = 60.0
"""Seconds in which a case must be over, however busy the machine is."""


@dataclass(frozen=True)
class Target:
    """Something that takes what comes from outside.

    Attributes:
        open: prepares it; what that yields runs cases. It is done anew for each block.
        block: how many cases share it.
    """

    name: str
    open: Callable[[], AbstractAsyncContextManager[Case]]
    block: int = 200


@dataclass
class Figures:
    """What came of the cases of a target."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    slowest_case: str = ""


class Found(AssertionError):
    """A case that showed a fault, and how to run it again."""


class _Errors(logging.Handler):
    """Keeps records of errors: nothing that comes from outside may be one of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@asynccontextmanager
async def _errors() -> AsyncIterator[list[logging.LogRecord]]:
    handler = _Errors()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler.records
    finally:
        root.removeHandler(handler)


async def run(target: Target, seed: int, cases: int, first: int = 0) -> Figures:
    """Run cases, from the beginning of the block that holds `first`.

    Raises:
        Found: one of them showed a fault.
    """
    figures = Figures()
    number = first - first % target.block
    while number < first + cases:
        async with _errors() as errors, target.open() as case:
            for _ in range(min(target.block, first + cases - number)):
                name = f"{target.name} --seed {seed} --first {number} --cases 1"
                began = time.perf_counter()
                try:
                    async with asyncio.timeout(HANG):
                        outcome = await case(Random(f"{seed} {target.name} {number}"))
                    assert not errors, errors[0].getMessage()
                except Exception as error:
                    what = "it hangs" if isinstance(error, TimeoutError) else repr(error)[:2000]
                    raise Found(f"python -m tests.fuzzing {name}: {what}") from error
                took = time.perf_counter() - began
                figures.outcomes[outcome] += 1
                number += 1
                if took > figures.slowest:
                    figures.slowest, figures.slowest_case = took, name
    return figures
