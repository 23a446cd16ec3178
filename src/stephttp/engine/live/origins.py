"""Concurrency, shared by origin: the share of an application in the calls under way, and origins
that give no answers.

An origin may have as many slots as it leaves free. Alone it gets half of them. If it keeps these
without end, a second one still gets a quarter, and a third one an eighth: there is a slot for an
application that works, whichever others hang.

An origin that gave no answer to its last `MOST_IN_VAIN` calls is only tried out: it gets one call
at a time, until one is answered. That keeps connections, and time, from an address that
swallows them, and its runs from growing back-offs of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

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


class Shares:
    """The slots for calls, and which origin has how many: shares them, so that none can take all.

    Args:
        total: how many there are.
        used: those that are in use, by origin.
        trying: origins that get one slot only, because they give no answers.
    """

    def __init__(
        self, total: int, used: Mapping[str, int], trying: Collection[str] = frozenset()
    ) -> None:
        self._used = Counter(used)
        self._trying = trying
        self.free = total - sum(used.values())

    def has_room(self, origin: str) -> bool:
        """Say whether an origin may have another slot."""
        used = self._used[origin]
        return used < self.free and not (used and origin in self._trying)

    def take(self, origin: str) -> None:
        """Give a slot to an origin."""
        self._used[origin] += 1
        self.free -= 1

    def fewest_first(self, origins: Collection[str]) -> list[str]:
        """Sort origins by the slots that they have."""
        return sorted(origins, key=lambda origin: (self._used[origin], origin))
