"""The rates that starts of functions have to pass: looked up first, and used up by what passes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.started import Refusal
from stephttp.engine.rules.functions import gcra
from stephttp.engine.rules.functions.start_limits import StartLimit
from stephttp.engine.store.sql import QUERIES

_MOST_FORGOTTEN = 10
"""Rows that say nothing any more, and that go with one that is written."""

Used = list[tuple[str, int]]
"""Names of rates, and from when on each is as if nothing had passed."""


def ask(connection: sqlite3.Connection, limits: Iterable[StartLimit], at: Moment) -> Used | Refusal:
    """Return what is to be stored if a start passes all its limits, or why it does not pass."""
    used: Used = []
    for limit in limits:
        row = connection.execute(QUERIES["rate"], (limit.name,)).fetchone()
        free_ns: int = 0 if row is None else row[0]
        if gcra.opens_ms(limit.rate, free_ns) > at.now_ms:
            bounded_ns = gcra.bounded(limit.rate, free_ns, at.now_ms)
            if bounded_ns != free_ns:
                connection.execute(QUERIES["save_rate"], (limit.name, bounded_ns))
            return limit.refusal
        used.append((limit.name, gcra.moved_ns(limit.rate, free_ns, at.now_ms)))
    return used


def use(connection: sqlite3.Connection, used: Used, at: Moment) -> None:
    """Store that a start has passed, and forget some rates that are as if nothing had passed."""
    if used:
        connection.executemany(QUERIES["save_rate"], used)
        connection.execute(QUERIES["forget_rates"], (at.now_ms * 1_000_000, _MOST_FORGOTTEN))
