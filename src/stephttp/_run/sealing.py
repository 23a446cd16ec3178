"""Encrypts the secrets of the request capsule (`Authorization`, cookies; docs/design.md 3.3), with
`cryptography`.

AES-256-GCM under a key of its own for each run: HKDF-SHA256 of the signing key, salted with the
run id, which is the associated data as well. So what was sealed for one run opens for no other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from stephttp._wire.capsule import Open, Seal
from stephttp._wire.signatures import split_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_NONCE_BYTES = 12
_INFO = b"stephttp request capsule"


class Sealer:
    """Seals with the first of the signing keys, opens with any.

    Args:
        keys: signing keys, as configured.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [bytes.fromhex(split_key(key)[1]) for key in keys]
        self.has_keys = bool(keys)

    def __repr__(self) -> str:
        return f"<Sealer: {len(self._keys)} keys>"

    def seal(self, run_id: str) -> Seal | None:
        """Return what seals for a run; `None` without a key."""
        return partial(self._seal, run_id.encode()) if self._keys else None

    def open(self, run_id: str) -> Open | None:
        """Return what opens what was sealed for a run; `None` as above."""
        return partial(self._open, run_id.encode()) if self._keys else None

    def _seal(self, run_id: bytes, secret: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = _cipher(self._keys[0], run_id).encrypt(nonce, secret, run_id)
        return _VERSION + nonce + sealed

    def _open(self, run_id: bytes, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        version, rest = sealed[:1], sealed[1:]
        if version != _VERSION or len(rest) <= _NONCE_BYTES:
            raise ValueError("it is sealed in a way that is not known here")
        for key in self._keys:
            try:
                return _cipher(key, run_id).decrypt(
                    rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], run_id
                )
            except InvalidTag:
                continue
        raise ValueError("it was changed, or sealed with another signing key or for another run")


def _cipher(key: bytes, run_id: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), 32, salt=run_id, info=_INFO).derive(key))
