"""Idempotency keys: the first request that brings one makes a run, the others get its answer."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from hashlib import sha256

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work.checkpoints import take
from stephttp.engine.work.start import Opening


@dataclass(frozen=True, slots=True)
class Key:
    """A key within its scope, and the digest of the request that carries it."""

    digest: bytes
    request: bytes

    @classmethod
    def of(cls, scope: str, key: str, request: str) -> Key:
        """Make a key from what an SDK sends; all texts are opaque here."""
        parts = (sha256(text.encode()).digest() for text in (scope, key))
        return cls(sha256(b"".join(parts)).digest(), sha256(request.encode()).digest())


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """The run that answers the request; `change` if it was opened just now."""

    run_id: str
    change: Change | None = field(default=None, repr=False)


def claim(connection: sqlite3.Connection, key: Key, opening: Opening, at: Moment) -> ClaimedRun:
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
    expires_ms = at.now_ms + round(at.settings.idempotency_ttl * 1000)
    if row is None:
        values = (key.digest, key.request, opening.new.run_id, expires_ms)
        connection.execute(QUERIES["insert_key"], values)
    return ClaimedRun(opening.new.run_id, taken.change)
