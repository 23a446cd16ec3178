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
        """The time that each takes up, so that no more than `most` fit into a period."""
        return -(-self.period_ms * _NS // self.most)


def passed(rate: Rate, free_ns: int, now_ms: int) -> int | None:
    """Let one pass, if the limit allows that.

    Args:
        free_ns: from when on the limit is as if nothing had passed; 0: nothing has.
        now_ms: the present time.

    Returns:
        The new `free_ns`; `None` if it may not pass now.
    """
    moved_ns = max(now_ms * _NS, free_ns) + rate.interval_ns
    return moved_ns if moved_ns <= _latest_ns(rate, now_ms) else None


def bounded(rate: Rate, free_ns: int, now_ms: int) -> int:
    """Return `free_ns`, but no later than the limit sets it.

    It is later if the clock was set back. That must not shut the limit for longer than the limit
    itself does.
    """
    return min(free_ns, _latest_ns(rate, now_ms))


def _latest_ns(rate: Rate, now_ms: int) -> int:
    return now_ms * _NS + (rate.burst + 1) * rate.interval_ns
