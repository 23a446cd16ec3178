"""The calls under way by origin, and which origins give no answers.

An origin that gave no answer to its last `MOST_IN_VAIN` calls is only tried out: it gets one call
at a time, until one is answered. That keeps connections, and time, from an address that
swallows them, and its runs from growing back-offs of their own.
"""

from __future__ import annotations

from collections import Counter

MOST_IN_VAIN = 5


class Origins:
    """Counts calls. Begin and end each."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()
        self._in_vain: Counter[str] = Counter()

    @property
    def trying(self) -> frozenset[str]:
        """Return the origins that are only tried out."""
        return frozenset(o for o, count in self._in_vain.items() if count >= MOST_IN_VAIN)

    def begin(self, origin: str) -> None:
        """Count a call that starts."""
        self.used[origin] += 1

    def end(self, origin: str) -> None:
        """Count a call that is over."""
        self.used[origin] -= 1
        if not self.used[origin]:
            del self.used[origin]

    def heard(self, origin: str, *, answered: bool) -> None:
        """Note how a call ended."""
        if answered:
            self._in_vain.pop(origin, None)
        else:
            self._in_vain[origin] += 1
