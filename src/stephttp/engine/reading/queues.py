"""What waits behind limits of functions: held events, as people see them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import msgspec

from stephttp.engine.model.held_start import Hold

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
class Queues:
    """What waits.

    Attributes:
        held: those that are due first, at most `MOST_IN_QUEUES`.
        held_in_all: how many there are.
    """

    held: tuple[HeldRow, ...]
    held_in_all: int

    def __bool__(self) -> bool:
        """Say whether anything waits."""
        return bool(self.held)


def queues(connection: sqlite3.Connection, fn_id: str | None = None) -> Queues:
    """Return what waits.

    Args:
        fn_id: id of the only function that is wanted; `None`: all.
    """
    values = {"fn_id": fn_id, "limit": MOST_IN_QUEUES}
    held = [
        HeldRow(fn_id, slug, Hold(hold), readable_key(key), events, opened_ms, due_ms)
        for fn_id, slug, hold, key, events, opened_ms, due_ms in connection.execute(_HELD, values)
    ]
    (in_all,) = connection.execute(_HELD_IN_ALL, values).fetchone()
    return Queues(tuple(held), in_all)


_HELD = """
SELECT held_starts.fn_id, coalesce(slug, held_starts.fn_id), hold, shown, came, opened_ms, due_ms
FROM held_starts LEFT JOIN endpoints USING (fn_id)
WHERE :fn_id IS NULL OR held_starts.fn_id = :fn_id
ORDER BY due_ms, held LIMIT :limit"""

_HELD_IN_ALL = "SELECT count(*) FROM held_starts WHERE :fn_id IS NULL OR fn_id = :fn_id"


def readable_key(key: str) -> str:
    """Return the value of a key as people write it: text without the quotation marks of JSON."""
    try:
        value = msgspec.json.decode(key or '""')
    except msgspec.DecodeError:
        return key  # it is cut
    return value if isinstance(value, str) else key
