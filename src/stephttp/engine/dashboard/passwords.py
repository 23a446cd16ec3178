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
"""Characters that a password must have, unless it is given as a hash."""


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Return the hash that can be configured in place of a password.

    Its form is `scrypt$n$r$p$salt$digest`.

    Args:
        salt: 16 random bytes, by default fresh ones.
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    digest = _digest(password, salt, _COST, _BLOCK, _PARALLEL)
    encoded = (b64encode(one).decode() for one in (salt, digest))
    parts = [_PREFIX, _COST, _BLOCK, _PARALLEL, *encoded]
    return "$".join(map(str, parts))


def verify(password: str, hashed: str) -> bool:
    """Return whether a password has this hash. It takes about 50 ms of CPU time, on purpose."""
    cost, block, parallel, salt, digest = _parts(hashed)
    return hmac.compare_digest(_digest(password, salt, cost, block, parallel), digest)


def as_hash(configured: str) -> str:
    """Return the hash of what was configured: a password, or already its hash.

    Raises:
        ConfigurationError: the hash is broken, or the password is too short.
    """
    if configured.startswith(f"{_PREFIX}$"):
        try:
            verify("", configured)
        except (ValueError, Error) as error:
            raise ConfigurationError(
                f"the dashboard's password is not a valid hash ({error}); make one with "
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
        raise ValueError("it does not have six parts")
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
