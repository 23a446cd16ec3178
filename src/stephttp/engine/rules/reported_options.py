"""What an SDK reports with an op beside its result: options, and warnings (docs/protocol.md 14).

Pure.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from stephttp._wire.http import without_credentials
from stephttp._wire.opcodes import Op
from stephttp.engine.model.change import RunWarning

_SECRET_OPTS = frozenset({"auth_key", "headers"})
_MOST = 100
"""Warnings of one op."""
_KIND, _STEP_ID, _MESSAGE = 64, 64, 2_000
"""Characters."""


class _Reported(Struct):
    kind: str
    message: str
    step_id: str = ""


def read_warnings(op: Op, now_ms: int) -> list[RunWarning]:
    """Return the warnings in the options of an op. They decide nothing, so what cannot be read is
    left out rather than refused."""
    reported = (op.opts or {}).get("warnings")
    if not isinstance(reported, list):
        return []
    found: list[RunWarning] = []
    for one in reported[:_MOST]:
        try:
            warning = msgspec.convert(one, _Reported)
        except msgspec.ValidationError:
            continue
        kind, step_id = warning.kind[:_KIND], warning.step_id[:_STEP_ID]
        found.append(RunWarning(kind, step_id, now_ms, warning.message[:_MESSAGE]))
    return found


def kept_opts(op: Op) -> bytes | None:
    """Return the options to store, for people, without secrets (docs/protocol.md 5.2)."""
    if not op.opts:
        return None
    kept = {name: value for name, value in op.opts.items() if name not in _SECRET_OPTS}
    if isinstance(kept.get("url"), str):
        kept["url"] = without_credentials(kept["url"])
    return msgspec.json.encode(kept)
