"""Shares a number of slots among origins, so that none of them can take all. Pure.

An origin may have as many slots as it leaves free. Alone it gets half of them. If it keeps these
without end, a second one still gets a quarter, and a third one an eighth: there is a slot for an
application that works, whichever others hang.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping


class Shares:
    """The slots, and which origin has how many.

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
