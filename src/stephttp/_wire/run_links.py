"""`result_url` and redirects that the SDK makes itself, signed (docs/protocol.md 14): it need
not ask the engine, which may not know the run yet.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256

from stephttp._wire.signatures import hash_key, split_key

FEATURE = "run-links"
LINK = "l1."
"""How they begin."""
_PURPOSE = b"stephttp link to the result of run "


def run_link(run_id: str, key: str) -> str:
    """Return the token with which its bearer can read the output of one run.

    It is the same each time, and good as long as the run and the key.

    Args:
        key: the signing key; empty in development.
    """
    secret = sha256(split_key(hash_key(key))[1].encode() if key else b"").digest()
    made = hmac.digest(secret, _PURPOSE + run_id.encode(), "sha256")
    return LINK + urlsafe_b64encode(made).rstrip(b"=").decode()


def is_run_link(token: str, run_id: str, keys: Iterable[str]) -> bool:
    """Return whether a token opens the output of a run.

    Args:
        keys: the signing keys of the engine; without any, one for development.
    """
    if not token.startswith(LINK) or not run_id.isascii():
        return False
    offered, opens = token.encode("utf-8", "replace"), False
    for key in tuple(keys) or ("",):
        opens |= hmac.compare_digest(offered, run_link(run_id, key).encode())
    return opens
