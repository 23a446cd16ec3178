"""Throttles: when the next run may start. Pure.

A throttle is a rate. While it has room, `most + burst` runs may start at once: each takes up one of
these places, and after every `period / most` one of them is free again.

All are free after the time that all together take, at the latest. What is stored may say more, if
the clock was set back, or if the throttle got wider; neither must keep it shut for longer.
"""

from __future__ import annotations

from stephttp.engine.model.gate import Gate
from stephttp.engine.rules.functions import gcra
from stephttp.engine.rules.functions.gcra import Rate


def opens_ms(throttle: Gate) -> int:
    """Return from when on the next run may start; 0 if it might have started ever since.

    Args:
        throttle: a gate with a period.
    """
    return gcra.opens_ms(_rate(throttle), throttle.free_ns)


def bounded_ns(throttle: Gate, now_ms: int) -> int:
    """Return the `free_ns` of a throttle, but no later than it can be by now.

    Args:
        throttle: a gate with a period.
        now_ms: the present time.
    """
    return gcra.bounded(_rate(throttle), throttle.free_ns, now_ms)


def free_after_start_ns(throttle: Gate, now_ms: int) -> int:
    """Return the `free_ns` of a throttle through which a run starts now.

    Args:
        throttle: a gate with a period.
        now_ms: the present time.
    """
    return gcra.moved_ns(_rate(throttle), throttle.free_ns, now_ms)


def _rate(throttle: Gate) -> Rate:
    assert throttle.period_ms is not None
    return Rate(throttle.most, throttle.period_ms, throttle.most + throttle.burst - 1)
