"""Tables of those who wait for a run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def listed(table: dict[str, set[T]], run_id: str, event: T) -> Generator[T]:
    """Keep an event in a table, by run, while the block runs, and provide it."""
    there = table.setdefault(run_id, set())
    there.add(event)
    try:
        yield event
    finally:
        there.discard(event)
        # The set may have left the table already, and a newer one taken its place.
        if not there and table.get(run_id) is there:
            del table[run_id]
