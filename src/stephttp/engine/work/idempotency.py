"""Idempotency keys, engine side: the first request that brings one makes a run, the others
get its answer.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work.checkpoints import take
from stephttp.engine.work.keys import ScopedKey, remember
from stephttp.engine.work.start import FirstCheckpoint


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """The run that answers the request; `change` if it was opened just now."""

    run_id: str
    change: Change | None = field(default=None, repr=False)


def claim(
    connection: sqlite3.Connection, key: ScopedKey, opening: FirstCheckpoint, at: Moment
) -> ClaimedRun:
    """Open a run for a key, unless the key has one.

    A key whose run is no longer stored is free, and so is one that has expired.

    Raises:
        Refused: the key was used with another request (422), or the opening is not acceptable.
    """
    connection.execute(QUERIES["forget_keys"], (at.now_ms,))
    row = connection.execute(QUERIES["known_key"], (key.digest,)).fetchone()
    if row is not None:
        request, run_id = row
        if request != key.request:
            raise Refused(
                "claim.request: this idempotency key was used with another request; use a new key "
                "for a new request", 422,
            )  # fmt: skip
        if run_id != opening.new.run_id:
            return ClaimedRun(run_id)
    (taken,) = take(connection, [opening], at)
    if isinstance(taken, Refused):
        raise taken
    remember(connection, key, opening.new.run_id, at)
    return ClaimedRun(opening.new.run_id, taken.change)
