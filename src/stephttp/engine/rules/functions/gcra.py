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


def passed(rate: Rate, free_ns: int | None, now_ms: int) -> int | None:
    """Let one pass, if the limit allows that.

    Args:
        free_ns: from when on the limit is as if nothing had passed; `None`: nothing has.
        now_ms: the present time.

    Returns:
        The new `free_ns`; `None` if it may not pass now.
    """
    now_ns, interval_ns = now_ms * _NS, rate.interval_ns
    latest_ns = now_ns + (rate.burst + 1) * interval_ns
    # A later time than any that this limit sets comes of a clock that was set back, or of another
    # limit that was there before: it must not shut the limit for longer than this one does.
    since_ns = min(max(now_ns, free_ns or 0), latest_ns)
    moved_ns = since_ns + interval_ns
    return moved_ns if moved_ns <= latest_ns else None
