"""`side_effects=` of `crash_everywhere`: how often side effects happen in one run of a test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from stephttp.errors import UsageError
from stephttp.testing.blocking_call import Call
from stephttp.testing.blocking_client import DurableClient

Effects = Mapping[str, Callable[[], int]]
"""For each side effect, what counts how often it has happened so far."""


def check_allowed(allowed: Mapping[str, int | Collection[int]], effects: Effects) -> None:
    """Refuse counts that are allowed to nothing.

    Raises:
        UsageError: a name is not that of a side effect, or no number is allowed.
    """
    for name, numbers in allowed.items():
        if name not in effects:
            known = ", ".join(map(repr, effects)) or "there is no effect"
            raise UsageError(f"allowed: {name!r} is not one of effects ({known}); name one of them")
        if not isinstance(numbers, int) and not numbers:
            raise UsageError(f"allowed[{name!r}]: {numbers!r} has no number; name one at least")


class SideEffects:
    """The counts of side effects since one run of a test began.

    Args:
        effects: what counts them.
    """

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self._before = self._last = self._counts()
        self._fallen: str | None = None

    def look(self) -> None:
        """Count once more, and notice a count that is lower than it was."""
        counts = self._counts()
        for name, count in counts.items():
            if count < self._last[name] and self._fallen is None:
                self._fallen = f"effects[{name!r}] was {self._last[name]}, and is {count}"
        self._last = counts

    def since(self) -> dict[str, int]:
        """Return how often each has happened.

        Raises:
            UsageError: a count has fallen.
        """
        self.look()
        if self._fallen is not None:
            raise UsageError(
                f"{self._fallen}; a count may only grow, since crash_everywhere takes the "
                "difference to the count before the test: do not reset it in the test"
            )
        return {name: count - self._before[name] for name, count in self._last.items()}

    def _counts(self) -> dict[str, int]:
        return {name: count() for name, count in self._effects.items()}


class CountingClient(DurableClient):
    """A client that looks at the side effects before and behind its requests, in the thread of the
    test."""

    side_effects: SideEffects

    def request(self, method: str, url: str, **options: Any) -> Call:
        """Send a request; see `DurableClient.request`."""
        self.side_effects.look()
        try:
            return super().request(method, url, **options)
        finally:
            self.side_effects.look()
