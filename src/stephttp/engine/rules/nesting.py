"""How deep JSON may be nested in an event. Pure.

What is nested deeper than Python's own limit cannot be decoded, and an event has parts of other
events: without a bound on each part, an event could be stored that nothing can read.
"""

from __future__ import annotations

from typing import Any

import msgspec

DEEPEST = 100
"""Levels. Expressions are evaluated by a library that is not bounded by Python's own limit."""


def is_deep(value: Any) -> bool:
    """Say whether decoded JSON is nested more than `DEEPEST` levels deep."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)


def is_deep_json(raw: bytes) -> bool:
    """Say the same of JSON that is acceptable otherwise."""
    if raw.count(b"[") + raw.count(b"{") <= DEEPEST:
        return False
    try:
        return is_deep(msgspec.json.decode(raw))
    except RecursionError:
        return True
