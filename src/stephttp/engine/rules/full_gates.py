"""When a first call may pass its gates, if its endpoint refuses requests over limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stephttp.engine.model.gate import Gate
from stephttp.engine.rules.functions import throttling

SOON = 1
"""Seconds after which a limit of calls may have room: the end of a call is not known before."""


def seconds_until_room(gates: Sequence[Gate], at_work: Mapping[str, int], now_ms: int) -> int:
    """Return after how many seconds a first call may pass all its gates; 0: it may pass them now.

    Args:
        gates: with the `free_ns` of throttles no later than it can be by now.
        at_work: the first calls and the calls of the engine at each limit of calls, by its name.
        now_ms: the present time.
    """
    return max((_seconds(gate, at_work, now_ms) for gate in gates), default=0)


def _seconds(gate: Gate, at_work: Mapping[str, int], now_ms: int) -> int:
    if gate.period_ms is None:
        return SOON if at_work.get(gate.name, 0) >= gate.most else 0
    return max(0, -(-(throttling.opens_ms(gate) - now_ms) // 1000))
