"""How many may pass in a period: the generic cell rate algorithm (GCRA). Pure.

A limit of 10 a minute lets one pass every 6 seconds, and `burst` more at once after a pause. One
number says all that there is to know of the past: the time from which on the limit is as if nothing
had passed yet. Each that passes moves it ahead by an interval.
"""

from __future__ import annotations

from stephttp.engine.model.values import Value

_NS = 1_000_000
"""Nanoseconds of a millisecond."""


class Rate(Value, frozen=True, gc=False):
    """How many may pass in a period.

    Attributes:
        burst: how many may pass at once beyond the one whose turn it is.
    """

    most: int
    period_ms: int
    burst: int = 0

    @property
    def interval_ns(self) -> int:
        """The time that each takes up."""
        return max(1, self.period_ms * _NS // self.most)


def moved_ns(rate: Rate, free_ns: int, now_ms: int) -> int:
    """Return the new `free_ns` after one has passed.

    Args:
        free_ns: from when on the limit is as if nothing had passed; 0: nothing has.
        now_ms: the present time.
    """
    return max(now_ms * _NS, free_ns) + rate.interval_ns


def opens_ms(rate: Rate, free_ns: int) -> int:
    """Return from when on the next one may pass; 0 if it might have passed ever since."""
    return max(0, -(-(free_ns - rate.interval_ns * rate.burst) // _NS))


def bounded(rate: Rate, free_ns: int, now_ms: int) -> int:
    """Return `free_ns`, but no later than the limit sets it.

    It is later if the clock was set back. That must not shut the limit for longer than the limit
    itself does.
    """
    return min(free_ns, now_ms * _NS + (rate.burst + 1) * rate.interval_ns)
