"""Made-up tokens at `result_path`: callers may send what they like, and the server is not
asked about each.
"""

from __future__ import annotations

import binascii
import re
import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stephttp._wire.json import UNREADABLE
from stephttp._wire.run_links import LINK, is_run_link

_JWT = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]{43}")
_KEPT = 10.0
"""Seconds for which a refusal of the server counts."""
_MOST = 1000
"""Refusals that are remembered."""


class MadeUpTokens:
    """Says which tokens the server need not be asked about. Thread-safe.

    Args:
        keys: the signing keys.
        now: a clock, in seconds.
    """

    def __init__(self, keys: Sequence[str], now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now
        self._lock = threading.Lock()
        self._refused: dict[tuple[str, str], float] = {}

    def has(self, run_id: str, token: str, *, ours: bool) -> bool:
        """Return whether a token opens no result of this run.

        Args:
            ours: the server is our engine, whose tokens have a known form.
        """
        if token.startswith(LINK):
            if self._keys and not is_run_link(token, run_id, self._keys):
                return True
        elif _run_of(token) not in ((run_id,) if ours else (run_id, None)):
            return True
        until = self._refused.get((run_id, token))
        return until is not None and self._now() < until

    def refused(self, run_id: str, token: str) -> None:
        """Remember for a while that the server has refused a token."""
        now = self._now()
        with self._lock:
            if len(self._refused) >= _MOST:
                self._refused = {one: end for one, end in self._refused.items() if now < end}
            if len(self._refused) < _MOST:
                self._refused[run_id, token] = now + _KEPT


def _run_of(token: str) -> str | None:
    """Return the run that a token names, if it is a JWT."""
    found = _JWT.fullmatch(token)
    if found is None:
        return None
    try:
        claims: Any = msgspec.json.decode(urlsafe_b64decode(found[1] + "==="))
    except (*UNREADABLE, binascii.Error):
        return None
    named = claims.get("RunID") if isinstance(claims, dict) else None
    return named if isinstance(named, str) else None
