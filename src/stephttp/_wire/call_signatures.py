"""The engine's own signature on its calls of endpoints (docs/protocol.md 14): it covers method,
target, run and body.

`X-Inngest-Signature` covers the body alone, which is empty for most requests. This one covers all
that decides what a call does, so that a captured call of one run is worth nothing for another. Its
key signs nothing else: a caller chooses the body of a request, which the engine then signs.

What is signed: method and target; a line for each header that steers a call; an empty line; the
SHA-256 of the body as sent, in hexadecimal digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote

from stephttp._wire.signatures import may_hold, sign, split_key, verify_raw

FEATURE = "signed-calls"
"""Its name among the extras that the engine announces."""
SIGNATURE = "x-stephttp-signature"

_RUN_ID = b"x-run-id"
_STEERING = (b"x-inngest-", b"x-stephttp-")
_SIGNATURES = frozenset({b"x-inngest-signature", SIGNATURE.encode()})
"""One is this signature, and the other one is made before or after it."""
_PATH_SAFE = "/%:@!$&'()*+,;=-._~"
_QUERY_SAFE = _PATH_SAFE + "?[]|"
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def request_target(path: str, query: str) -> str:
    """Return what stands on the request line: as it was received, but for characters that have no
    place there."""
    target = quote(path or "/", safe=_PATH_SAFE)
    if not target.startswith("/"):
        target = "/" + target
    return f"{target}?{quote(query, safe=_QUERY_SAFE)}" if query else target


def sign_call(
    key: str,
    now: int,
    method: str,
    target: str,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
) -> str:
    """Return `X-Stephttp-Signature` of a call.

    Args:
        key: the signing key.
        now: seconds since the epoch.
        target: path and query, as `request_target` writes them.
        headers: names in lower case. Those that do not steer a call are not signed.
        body: all of it, with the state that may follow the original request's.
    """
    return sign(_key(key), _head(method, target) + _rest(headers, body), now)


def verify_call(
    signature: str,
    keys: Iterable[str],
    now: float,
    method: str,
    target: str,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
) -> bool:
    """Return whether one of `keys` made `signature` for this very call. See `sign_call`."""
    return verify_any(signature, keys, now, method, (target,), headers, body)


def verify_any(
    signature: str,
    keys: Iterable[str],
    now: float,
    method: str,
    targets: Iterable[str],
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
) -> bool:
    """Return whether one of `keys` made `signature` for this call, at one of `targets`. The body,
    which may be large, is read once."""
    if not may_hold(signature, now):
        return False
    rest, keys = _rest(headers, body), [*map(_key, keys)]
    return any(verify_raw(signature, _head(method, one) + rest, keys, now) for one in targets)


def _head(method: str, target: str) -> bytes:
    return f"{method.upper()} {_ENCODED.sub(_normal, target)}\n".encode()


def _rest(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    steering = sorted(
        b"%s:%s\n" % (name, value.strip())
        for name, value in headers
        if (name.startswith(_STEERING) or name == _RUN_ID) and name not in _SIGNATURES
    )
    return b"%s\n%s" % (b"".join(steering), sha256(body).hexdigest().encode())


def _normal(encoded: re.Match[str]) -> str:
    """Return an encoded character as RFC 3986 (6.2.2) has it, since proxies may write it so."""
    character = chr(int(encoded[0][1:], 16))
    return character if character in _UNRESERVED else encoded[0].upper()


@lru_cache(maxsize=16)
def _key(key: str) -> str:
    return sha256(b"stephttp:call:" + split_key(key)[1].encode()).hexdigest()
