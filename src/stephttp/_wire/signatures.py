"""Signing keys, fallback keys, and `X-Inngest-Signature` (docs/protocol.md 2). The time is an
argument.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from stephttp._wire.canonical_json import canonical

_PREFIX = re.compile(r"^signkey-\w+-")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_SIGNATURE = re.compile(r"t=([0-9]{1,15})&s=([0-9a-f]{64})")
TOLERANCE = 300
"""Seconds by which a signature's time may differ from the clock here, in both directions."""
LARGEST_CANONICAL = 64 * 1024
"""Bytes of a body whose canonical form is computed. It takes longer than all else that is done for
a caller who has proved nothing yet, and servers that are known sign bodies as they are."""


def split_key(key: str) -> tuple[str, str]:
    """Split a signing key into prefix and rest; the prefix `signkey-<env>-` may be empty."""
    match = _PREFIX.match(key)
    end = match.end() if match else 0
    return key[:end], key[end:]


def hash_key(key: str) -> str:
    """Return what follows `Bearer`: the prefix, then SHA-256 of the decoded key, as hex.

    Raises:
        ValueError: the part after the prefix is not hexadecimal in lower case.
    """
    prefix, rest = split_key(key)
    # Capitals would name the same bytes, but signatures are made with the text.
    if not _HEX.fullmatch(rest):
        raise ValueError(
            "the signing key must be hexadecimal in lower case, with or without a "
            "'signkey-<env>-' prefix"
        )
    return prefix + hashlib.sha256(bytes.fromhex(rest)).hexdigest()


def bearer_of(authorization: str) -> str:
    """Return the token of an `Authorization: Bearer` header; empty without one."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def bearer_matches(authorization: str, keys: Iterable[str]) -> bool:
    """Return whether a header names one of `keys`, plain or hashed (docs/protocol.md 2.2)."""
    token = bearer_of(authorization)
    if not token:
        return False
    offered = split_key(token)[1].encode()
    matches = False
    for key in keys:
        for accepted in (split_key(key)[1], split_key(hash_key(key))[1]):
            matches |= hmac.compare_digest(offered, accepted.encode())
    return matches


def sign(key: str, body: bytes, now: int) -> str:
    """Return `X-Inngest-Signature` for `body` at `now` (whole seconds since the epoch)."""
    return f"t={now}&s={_digest(key, body, str(now))}"


def verify(header: str, body: bytes, keys: Iterable[str], now: float) -> bool:
    """Return whether `header` signs `body` with one of `keys`, within `TOLERANCE` of `now`.

    The body may have been signed as it is, or, if it is JSON, in its canonical form (servers
    differ, docs/protocol.md 2.3).
    """
    keys = tuple(keys)
    return verify_raw(header, body, keys, now) or verify_canonical(header, body, keys, now)


def verify_raw(header: str, body: bytes, keys: Iterable[str], now: float) -> bool:
    """Return whether `header` signs `body` as it is."""
    match = _SIGNATURE.fullmatch(header)
    return match is not None and _is_recent(match[1], now) and _signed(match, body, keys)


def may_hold(header: str, now: float) -> bool:
    """Return whether `header` is a signature whose time is right. Costs next to nothing."""
    match = _SIGNATURE.fullmatch(header)
    return match is not None and _is_recent(match[1], now)


def may_be_canonical(header: str, body: bytes, now: float) -> bool:
    """Return whether `verify_canonical` is worth its time. Costs next to nothing."""
    return 0 < len(body) <= LARGEST_CANONICAL and may_hold(header, now)


def verify_canonical(header: str, body: bytes, keys: Iterable[str], now: float) -> bool:
    """Return whether `header` signs the canonical form of a JSON body. Takes up to 50 ms."""
    match = _SIGNATURE.fullmatch(header)
    if match is None or not may_be_canonical(header, body, now):
        return False
    other = canonical(body)
    return other is not None and other != body and _signed(match, other, keys)


def _is_recent(stamp: str, now: float) -> bool:
    return abs(now - int(stamp)) <= TOLERANCE


def _signed(header: re.Match[str], body: bytes, keys: Iterable[str]) -> bool:
    stamp, signature = header.groups()
    valid = False
    for key in keys:
        valid |= hmac.compare_digest(_digest(key, body, stamp).encode(), signature.encode())
    return valid


def _digest(key: str, body: bytes, stamp: str) -> str:
    secret = split_key(key)[1].encode()
    return hmac.new(secret, body + stamp.encode(), hashlib.sha256).hexdigest()
