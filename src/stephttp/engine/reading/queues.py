"""What waits behind limits of functions, as people see it: calls of runs, and held events."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import msgspec

from stephttp.engine.model.gate import START, Gate
from stephttp.engine.model.held_start import Hold
from stephttp.engine.rules.functions import throttling

MOST_IN_QUEUES = 200
"""Rows of a kind that are listed."""


@dataclass(frozen=True, slots=True)
class HeldRow:
    """Events that are held until they start one run.

    Attributes:
        slug: of the function that they start.
        key: the value of the option's key, as far as it is kept; empty if there is no key.
        events: how many have come so far; of a debounce only the latest is held.
        opened_ms: when the first came.
        due_ms: when they start the run, if no further event comes.
    """

    fn_id: str
    slug: str
    hold: Hold
    key: str
    events: int
    opened_ms: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class GateRow:
    """A limit that calls of open runs have to pass.

    Attributes:
        name: by which the executor counts calls that are under way.
        fn_id, slug: of the function that has set it last.
        most, period_ms, burst: as `Gate`.
        key: the value of the limit's key, as far as it is kept; empty if there is no key.
        waiting: calls that wait for it.
        opens_ms: of a throttle that is closed, when the next run may start.
    """

    name: str
    fn_id: str
    slug: str
    most: int
    period_ms: int | None
    burst: int
    key: str
    waiting: int
    opens_ms: int | None


@dataclass(frozen=True, slots=True)
class Queues:
    """What waits.

    Attributes:
        gates: those for which the most calls wait, at most `MOST_IN_QUEUES`.
        gates_in_all: how many there are.
        held: those that are due first, at most `MOST_IN_QUEUES`.
        held_in_all: how many there are.
    """

    gates: tuple[GateRow, ...]
    gates_in_all: int
    held: tuple[HeldRow, ...]
    held_in_all: int

    def __bool__(self) -> bool:
        """Say whether there is anything to see."""
        return bool(self.held or self.gates)


def queues(
    connection: sqlite3.Connection,
    now_ms: int,
    fn_id: str | None = None,
    limit: int = MOST_IN_QUEUES,
) -> Queues:
    """Return what waits.

    Args:
        now_ms: the present time.
        fn_id: id of the only function that is wanted; `None`: all.
        limit: how many rows of a kind.
    """
    values = {"fn_id": fn_id, "limit": limit, "now_ns": now_ms * 1_000_000}
    held = [
        HeldRow(fn_id, slug, Hold(hold), readable_key(key), events, opened_ms, due_ms)
        for fn_id, slug, hold, key, events, opened_ms, due_ms in connection.execute(_HELD, values)
    ]
    gates = [_gate(now_ms, *row) for row in connection.execute(_GATES, values)]
    in_all = [connection.execute(query, values).fetchone()[0] for query in _IN_ALL]
    return Queues(tuple(gates), in_all[0], tuple(held), in_all[1])


def _gate(now_ms: int, fn_id: str, slug: str, waiting: int, *columns: Any) -> GateRow:
    gate = Gate(*columns)
    opens_ms = throttling.opens_ms(gate) if gate.place == START else 0
    return GateRow(
        name=gate.name,
        fn_id=fn_id,
        slug=slug,
        most=gate.most,
        period_ms=gate.period_ms,
        burst=gate.burst,
        key=readable_key(gate.shown),
        waiting=waiting,
        opens_ms=opens_ms if opens_ms > now_ms else None,
    )


_OF_FUNCTION = "(:fn_id IS NULL OR gates.fn_id = :fn_id)"

# A throttle is stored for some time after it has forgotten all runs.
_IN_USE = """(
    period_ms IS NULL OR free_ns > :now_ns
    OR EXISTS (SELECT 1 FROM run_gates WHERE gate = gates.name))"""

_GATES = f"""
SELECT gates.fn_id, coalesce(slug, gates.fn_id),
       (SELECT count(*) FROM timers WHERE aside = gates.name AND kind != 'gateway') AS waiting,
       gates.name, place, rank, most, period_ms, burst, free_ns, shown
FROM gates LEFT JOIN endpoints USING (fn_id) WHERE {_IN_USE} AND {_OF_FUNCTION}
ORDER BY waiting DESC, slug, place, gates.name LIMIT :limit"""


_HELD = """
SELECT held_starts.fn_id, coalesce(slug, held_starts.fn_id), hold, shown, came, opened_ms, due_ms
FROM held_starts LEFT JOIN endpoints USING (fn_id)
WHERE :fn_id IS NULL OR held_starts.fn_id = :fn_id
ORDER BY due_ms, held LIMIT :limit"""

_IN_ALL = [
    f"SELECT count(*) FROM gates WHERE {_IN_USE} AND {_OF_FUNCTION}",
    "SELECT count(*) FROM held_starts WHERE :fn_id IS NULL OR fn_id = :fn_id",
]


def readable_key(key: str) -> str:
    """Return the value of a key as people write it: text without the quotation marks of JSON."""
    try:
        value = msgspec.json.decode(key or '""')
    except msgspec.DecodeError:
        return key  # it is cut
    return value if isinstance(value, str) else key
