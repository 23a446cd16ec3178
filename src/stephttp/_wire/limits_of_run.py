"""The limits of one run, in a first checkpoint: what its later calls have to pass, and its priority
(docs/protocol.md 14, `run-limits`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

FEATURE = "run-limits"
"""What the engine announces that keeps them."""

MOST_LIMITS = 2
"""Limits of calls that one run may have."""
LONGEST_KEY = 1024
"""Characters of a key."""
MOST_PRIORITY = 600
"""Seconds by which a run goes before or after its turn."""
LARGEST = 1_000_000
"""The largest number that a limit may have."""
LONGEST_PERIOD = 7 * 86_400_000
"""Milliseconds."""
LONGEST_BURST = 100 * 366 * 86_400_000
"""Milliseconds until the starts of a burst are forgotten; a time has to fit into 64 bits."""
BURST_TOO_LONG = (
    "burst: the throttle takes more than 100 years to forget {} starts; use a lower burst, or a "
    "shorter period"
)

_Number = Annotated[int, Meta(ge=1, le=LARGEST)]
_Key = Annotated[str, Meta(max_length=LONGEST_KEY)]


class LimitKey(Struct, omit_defaults=True, frozen=True, gc=False):
    """Which runs share a limit.

    Attributes:
        key: runs with the same text; `None`: those that have no text.
        shared: also those of other endpoints of the application.
    """

    key: _Key | None = None
    shared: bool = False


class CallLimit(LimitKey, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """So many calls are under way at a time."""

    limit: _Number


class ThrottleLimit(LimitKey, omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """So many runs get their first call in a period.

    Attributes:
        period: milliseconds.
        burst: so many more may get it at once.
    """

    limit: _Number
    period: Annotated[int, Meta(ge=1, le=LONGEST_PERIOD)]
    burst: Annotated[int, Meta(ge=0, le=LARGEST)] = 0

    def __post_init__(self) -> None:
        if self.burst * self.period // self.limit > LONGEST_BURST:
            raise ValueError(BURST_TOO_LONG.format(self.burst))


class RunLimits(Struct, omit_defaults=True, frozen=True, gc=False):
    """What the calls of a run have to pass.

    Attributes:
        priority: seconds by which it goes before its turn; negative: after.
    """

    concurrency: Annotated[list[CallLimit], Meta(max_length=MOST_LIMITS)] = []
    throttle: ThrottleLimit | None = None
    priority: Annotated[int, Meta(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] = 0
