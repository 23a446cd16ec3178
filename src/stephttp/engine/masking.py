"""What may be seen of secrets. Pure."""

from __future__ import annotations

import re
from typing import Any

from stephttp._core.capsule import is_secret
from stephttp._core.ops import Op, OpCode

MASKED = "••••••"
"""What is shown of a secret."""

_REQUESTS = frozenset({OpCode.GATEWAY, OpCode.AI_GATEWAY})
_USER_INFO = re.compile(r"(?<=://)[^/?#]*@")


def kept_opts(op: Op) -> dict[str, Any] | None:
    """What is kept of an op's options, to be looked at.

    Of HTTP requests neither keys nor headers that may hold any: what is needed to make them is
    stored with the timer, for as long as it is needed.
    """
    opts = op.opts
    if not opts or op.op not in _REQUESTS:
        return opts
    kept = dict(opts)
    if kept.get("auth_key"):
        kept["auth_key"] = MASKED
    if isinstance(kept.get("headers"), dict):
        kept["headers"] = {
            name: MASKED if is_secret(name.lower().encode()) else value
            for name, value in kept["headers"].items()
        }
    if isinstance(kept.get("url"), str):
        kept["url"] = _USER_INFO.sub(f"{MASKED}@", kept["url"])
    return kept
