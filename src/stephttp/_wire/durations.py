"""Durations as the protocol writes them (`1h30m`, `2w`, `500ms`), and the longest one
(docs/protocol.md 5.4).
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_PART = re.compile(r"(\d+)(ns|us|ms|s|m|h|d|w)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_WRITTEN = ("w", "d", "h", "m", "s", "ms", "us")

MAX_WAIT = timedelta(days=366)
"""The longest sleep or wait that a server accepts (docs/protocol.md 10)."""


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `1h30m`.

    Raises:
        ValueError: `text` is not one or more whole numbers, each followed by one of
            `ns us ms s m h d w`, or is too long for a `timedelta`.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as '30s', '1h30m' or '2w'")
    total = sum(int(number) * _UNITS_NS[unit] for number, unit, *_ in _PART.findall(text))
    try:
        return timedelta(microseconds=total // 1_000)
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration can be") from None


@lru_cache(maxsize=1024)  # most are constants of the application
def format_duration(value: timedelta) -> str:
    """Write a duration; the inverse of `parse_duration`. Negative durations become `0s`."""
    rest = max(0, value // timedelta(microseconds=1)) * 1_000
    parts = []
    for unit in _WRITTEN:
        count, rest = divmod(rest, _UNITS_NS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
