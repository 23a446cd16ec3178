"""The gates of a run of an endpoint, from the limits in its first checkpoint. Pure.

A key of an endpoint is the text that its application has made of the request. Runs that have the
same one share a limit: those of the endpoint, or of all endpoints of the application.
"""

from __future__ import annotations

import msgspec

from stephttp._wire.limits_of_run import LimitKey, RunLimits
from stephttp.engine.model.gate import MARK, START, Gate
from stephttp.engine.rules.functions.limit_names import limit_name, shown_key


def gates_of(limits: RunLimits, app_id: str, fn_id: str) -> tuple[Gate, ...]:
    """Return what calls of a run have to pass.

    Args:
        app_id, fn_id: of its endpoint.
    """
    gates = []
    for place, limit in enumerate(limits.concurrency):
        rank = 3 if limit.shared else 2 if limit.key is None else 1
        owner = f"shared {app_id}" if limit.shared else f"{fn_id} {place}"
        name = limit_name(f"{MARK}concurrency {owner}", _key(limit))
        gates.append(Gate(name, place, rank, limit.limit, shown=shown_key(_key(limit))))
    start = limits.throttle
    if start is not None:
        owner = f"shared {app_id}" if start.shared else fn_id
        name = limit_name(f"{MARK}throttle {owner}", _key(start))
        period_ms, burst = start.period, start.burst
        gates.append(
            Gate(name, START, 0, start.limit, period_ms, burst, shown=shown_key(_key(start)))
        )
    return tuple(gates)


def _key(limit: LimitKey) -> str:
    # A run without a key shares a limit with others that have none, not with an empty text.
    return "" if limit.key is None else msgspec.json.encode(limit.key).decode()
