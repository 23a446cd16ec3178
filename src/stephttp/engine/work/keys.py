"""Idempotency keys as the engine stores them: digests, so that no secret is kept."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from hashlib import sha256

import msgspec
from msgspec import Struct

from stephttp.engine.model.inputs import Moment
from stephttp.engine.store.sql import QUERIES

_MOST = 10
"""Further keys of one answer."""


@dataclass(frozen=True, slots=True)
class ScopedKey:
    """A key within its scope, and the digest of the request that carries it."""

    digest: bytes
    request: bytes

    @classmethod
    def of(cls, scope: str, key: str, request: str) -> ScopedKey:
        """Make a key from what an SDK sends; all texts are opaque here."""
        parts = (sha256(text.encode()).digest() for text in (scope, key))
        return cls(sha256(b"".join(parts)).digest(), sha256(request.encode()).digest())


class _ReportedKey(Struct):
    scope: str
    key: str
    request: str


def add(connection: sqlite3.Connection, run_id: str, reported: object, at: Moment) -> None:
    """Store the further keys of a run that has ended, by which its caller is known from now on
    (docs/protocol.md 14, `further-keys`).

    A key that has a run keeps it. Keys that cannot be read are left out, since the run has its
    answer.

    Args:
        reported: the option `keys` of an op.
    """
    for one in reported[:_MOST] if isinstance(reported, list) else ():
        try:
            given = msgspec.convert(one, _ReportedKey)
        except msgspec.ValidationError:
            continue
        remember(connection, ScopedKey.of(given.scope, given.key, given.request), run_id, at)


def remember(connection: sqlite3.Connection, key: ScopedKey, run_id: str, at: Moment) -> None:
    """Store which run a key has, unless it has one that is still stored."""
    expires_ms = at.now_ms + round(at.settings.idempotency_ttl * 1000)
    values = (key.digest, key.request, run_id, expires_ms)
    connection.execute(QUERIES["insert_key"], values)
