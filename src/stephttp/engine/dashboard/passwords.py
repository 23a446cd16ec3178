"""Passwords of the dashboard, kept as scrypt hashes (RFC 7914)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from binascii import Error

from stephttp.errors import ConfigurationError

_PREFIX = "scrypt"
_COST, _BLOCK, _PARALLEL = 2**14, 8, 1
_MEMORY = 256 * 1024 * 1024
SHORTEST = 12
"""Letters of a password that is not hashed."""


def hash_password(password: str, salt: bytes | None = None) -> str:
    """What can be configured in place of a password: `scrypt$n$r$p$salt$digest`.

    Args:
        password: any text.
        salt: 16 random bytes, by default fresh ones.
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    digest = _digest(password, salt, _COST, _BLOCK, _PARALLEL)
    encoded = (b64encode(one).decode() for one in (salt, digest))
    parts = [_PREFIX, _COST, _BLOCK, _PARALLEL, *encoded]
    return "$".join(map(str, parts))


def verify(password: str, hashed: str) -> bool:
    """Whether a password is the one that was hashed. Takes some 50 ms of a processor on purpose."""
    cost, block, parallel, salt, digest = _parts(hashed)
    return hmac.compare_digest(_digest(password, salt, cost, block, parallel), digest)


def as_hash(configured: str) -> str:
    """The hash of what was configured, which is one already, or a password.

    Raises:
        ConfigurationError: it is a broken hash, or too short a password.
    """
    if configured.startswith(f"{_PREFIX}$"):
        try:
            verify("", configured)
        except (ValueError, Error) as error:
            raise ConfigurationError(
                f"the dashboard's password is no valid hash ({error}); make one with "
                "`stephttp dashboard-password`"
            ) from None
        return configured
    if len(configured) < SHORTEST:
        raise ConfigurationError(
            f"the dashboard's password is too short: it needs {SHORTEST} characters or more"
        )
    return hash_password(configured)


def _parts(hashed: str) -> tuple[int, int, int, bytes, bytes]:
    parts = hashed.split("$")
    if len(parts) != 6:
        raise ValueError("it has not six parts")
    _, cost, block, parallel, salt, digest = parts
    return (
        int(cost),
        int(block),
        int(parallel),
        b64decode(salt, validate=True),
        b64decode(digest, validate=True),
    )


def _digest(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    data = password.encode()
    return hashlib.scrypt(data, salt=salt, n=cost, r=block, p=parallel, maxmem=_MEMORY, dklen=32)
