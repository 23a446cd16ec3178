"""The tokens in `result_url` that the SDK makes itself, as the engine reads them
(docs/protocol.md 14, `run-links`).
"""

from __future__ import annotations

from collections.abc import Iterable

from stephttp._wire.ids import ulid_ms
from stephttp._wire.run_links import is_run_link
from stephttp.engine.model.tokens import RunToken

STILL_COMING_S = 3600
"""Seconds for which a run that is not stored may still be reported."""


def read_sdk_link(
    token: str, run_id: str, keys: Iterable[str], now_s: int, lifetime: float | None
) -> RunToken | None:
    """Return what a token says; `None` if it is forged or of another kind.

    Args:
        run_id: the run whose output is asked for.
        keys: the engine's signing keys.
        lifetime: seconds for which tokens are good; `None`: for any time.
    """
    if not is_run_link(token, run_id, keys):
        return None
    try:
        age_s = now_s - ulid_ms(run_id) / 1000
    except ValueError:
        return None
    expired = lifetime is not None and age_s >= lifetime
    return RunToken(run_id, expired, cookies=False, early=abs(age_s) < STILL_COMING_S)
