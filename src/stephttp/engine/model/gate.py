"""Gates: limits that calls of runs have to pass before they are made."""

from __future__ import annotations

from stephttp.engine.model.values import Value

MARK = "~"
"""The first character of the names of gates. No origin begins with it, nor with a later one."""

START = -1
"""The `place` of the throttle of a function."""

Turn = tuple[int, str]
"""The place of a run among those that wait: a time in milliseconds, then its id."""


class Gate(Value, frozen=True, gc=False):
    """A limit that calls of a run have to pass.

    Attributes:
        name: the same for all runs that share the limit; it begins with `MARK`.
        place: of the limit among those of the function, so that it can be changed with it.
        rank: how narrow it is; fewer runs share one of a smaller rank.
        most: calls under way at a time; or, with a period, runs that start in one.
        period_ms, burst: of a throttle.
        shown: the beginning of the value of its key, for people.
        free_ns: of a throttle, when it has forgotten all starts; in nanoseconds since the epoch.
    """

    name: str
    place: int
    rank: int
    most: int
    period_ms: int | None = None
    burst: int = 0
    free_ns: int = 0
    shown: str = ""

    @property
    def order(self) -> tuple[int, int, str]:
        """Return its place among the gates of a run, the narrowest first."""
        return self.rank, self.place, self.name
