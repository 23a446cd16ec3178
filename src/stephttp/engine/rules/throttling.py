"""Throttles: when the next run may start (the generic cell rate algorithm). Pure.

A throttle lets one run start in every `period / most`. While it has room, `most + burst` may start
at once: each start takes up one of these places, and after every `period / most` one of them is
free again. All that is kept is the time at which all places are free.

That time is never further away than all places together take. It is if the clock was set back, or
if the throttle got wider; neither must keep it shut for longer than it would be by itself.
"""

from __future__ import annotations

from stephttp.engine.model.gate import Gate

_NS = 1_000_000


def opens_ms(throttle: Gate) -> int:
    """Return from when on the next run may start; 0 if it might have started ever since.

    Args:
        throttle: a gate with a period.
    """
    free_from_ns = throttle.free_ns - _interval_ns(throttle) * (throttle.most + throttle.burst - 1)
    return max(0, -(-free_from_ns // _NS))


def bounded_ns(throttle: Gate, now_ms: int) -> int:
    """Return the `free_ns` of a throttle, but no later than it can be by now.

    Args:
        throttle: a gate with a period.
        now_ms: the present time.
    """
    latest_ns = now_ms * _NS + _interval_ns(throttle) * (throttle.most + throttle.burst)
    return min(throttle.free_ns, latest_ns)


def free_after_start_ns(throttle: Gate, now_ms: int) -> int:
    """Return the `free_ns` of a throttle through which a run starts now.

    Args:
        throttle: a gate with a period.
        now_ms: the present time.
    """
    return max(throttle.free_ns, now_ms * _NS) + _interval_ns(throttle)


def _interval_ns(throttle: Gate) -> int:
    assert throttle.period_ms is not None
    return throttle.period_ms * _NS // throttle.most
