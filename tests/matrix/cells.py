"""The table of cells: a handler, the request that it gets, and what comes of it.

The handlers are in `programs`. The same one runs in all frameworks, so it is a generator. With
`late`, it waits first: what it does then happens in a re-entry.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import stephttp
from tests.matrix.uses import Program, Use

NAP, HOUR = timedelta(minutes=1), timedelta(hours=1)
SOON = datetime(2026, 12, 24, tzinfo=UTC)
BINARY = b"\xff\x00\xfe"
Flow = Generator[Any, Any, Any]


@dataclass
class Cell:
    """A handler, the request that it gets, and what comes of it.

    Args:
        program: the handler.
        value: what it answers, as JSON; `...`: something else, which is only compared.
        status: of its answer.
        runs: how often the bodies of its steps run.
        request: method, query, headers, body.
        failures: how often each body fails.
        act: what happens while it waits: the name of a method of `sides.Side`, and its arguments.
        on_loop: whether it needs a handler on a loop.
        when: in which call it does its work: in the `first` one, in a `late` one, or in either.
        before: a path that is called before, if it needs one.
        twice: whether the caller sends its request twice.
        retries: of the endpoint, if it says how many.
    """

    program: Program
    value: Any = None
    status: int = 200
    runs: dict[str, int] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    act: tuple[str, ...] = ()
    on_loop: bool = False
    when: tuple[str, ...] = ("first", "late")
    before: str = ""
    twice: bool = False
    retries: int | None = None


CELLS: dict[str, Cell] = {}


def cell(value: Any = None, status: int = 200, **more: Any) -> Callable[[Program], Program]:
    """Put a program into the table, under its own name."""

    def put(program: Program) -> Program:
        def whole(u: Use) -> Flow:
            if (retries := CELLS[name].retries) is not None:
                stephttp.configure(retries=retries)
            if "late" in u.query():
                yield u.step.sleep("late", NAP)
            return (yield from program(u))

        name = program.__name__.strip("_").replace("_", "-")
        assert name not in CELLS
        CELLS[name] = Cell(whole, value, status, **more)
        return program

    return put
