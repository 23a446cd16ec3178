"""Slots for calls: the share that an application has of them, and the gates that calls pass.

An origin may have as many slots as it leaves free. Alone it gets half of them. If it keeps these
without end, a second one still gets a quarter, and a third one an eighth: there is a slot for an
application that works, whichever others hang. An origin that gave no answer to its last
`MOST_IN_VAIN` calls is only tried out: it gets one call at a time, until one is answered. That
keeps connections, and time, from an address that swallows them, and its runs from growing back-offs
of their own.

A timer whose run has to pass gates waits in the lane of one of them. A lane is looked at again only
when that can have changed something: at the end of a call that went through the gate for which its
first timer waits, when an origin has room again, or at the time at which a throttle opens. So the
work for one call does not grow with the number of those that wait. All this is known again after a
restart, by looking at every lane once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from heapq import heappop, heappush

from stephttp.engine.model.gate import MARK, Turn
from stephttp.engine.model.timer import RESUME, SEPARATE

MOST_IN_VAIN = 5
FIRST: Turn = (0, "")
"""Before all turns: of a lane of which no turn is known yet."""
TaskKey = tuple[str, str]
"""Run id and step id of the timer that a task of the executor works on."""


def key_of(run_id: str, step_id: str, kind: str) -> TaskKey:
    """Return what is worked on when a timer falls due: a run, or one step of it."""
    return run_id, step_id if kind in SEPARATE else RESUME


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


class LaneQueue:
    """The lanes that wait for the same, in the order of the turn of their first timer."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}
        self._heap: list[tuple[Turn, str]] = []

    def __len__(self) -> int:
        """Return how many lanes wait."""
        return len(self._turns)

    def add(self, lane: str, turn: Turn) -> None:
        """Note that a timer of a lane waits; the first one counts."""
        known = self._turns.get(lane)
        if known is None or turn < known:
            self._turns[lane] = turn
            heappush(self._heap, (turn, lane))

    @property
    def first(self) -> Turn | None:
        """Return the turn of the first lane; `None` if no lane waits."""
        while self._heap:
            turn, lane = self._heap[0]
            if self._turns.get(lane) == turn:
                return turn
            heappop(self._heap)
        return None

    def pop(self) -> str | None:
        """Take out the lane whose turn it is; `None` if no lane waits."""
        if self.first is None:
            return None
        _, lane = heappop(self._heap)
        del self._turns[lane]
        return lane


class Room:
    """The gates as one claim sees them. It works in another thread than `Gates`.

    Attributes:
        waiting: lanes, by the gate or the origin that they wait for.
        open: gates that may have room since the last claim.
        every: whether all lanes of the database are to be looked at.
        later: the time at which a throttle opens, in milliseconds, for those that do not have room.
        gates_first: whether lanes go before what has no gates.
    """

    def __init__(
        self,
        used: Mapping[str, int],
        waiting: defaultdict[str, LaneQueue],
        opened: dict[str, None],
        *,
        every: bool,
        gates_first: bool,
    ) -> None:
        self._used = dict(used) if used else {}
        self.waiting = waiting
        self.open = opened
        self.every = every
        self.later: dict[str, int] = {}
        self.gates_first = gates_first

    @property
    def changed(self) -> bool:
        """Say whether there are lanes to look at."""
        return bool(self.every or self.open or self.waiting)

    def used(self, gate: str) -> int:
        """Count the calls that are under way through a gate, with those that were just taken."""
        return self._used.get(gate, 0)

    def take(self, gates: Iterable[str]) -> None:
        """Count a call that will go through gates."""
        for gate in gates:
            self._used[gate] = self._used.get(gate, 0) + 1

    def wait(self, lane: str, blocker: str, turn: Turn) -> None:
        """Note that a timer of a lane waits for a gate, or for an origin."""
        self.waiting[blocker].add(lane, turn)

    def first_turn(self, blocker: str) -> Turn | None:
        """Return the first turn of the lanes that wait for a gate or an origin."""
        queue = self.waiting.get(blocker)
        turn = None if queue is None else queue.first
        if queue is not None and turn is None:
            del self.waiting[blocker]
        return turn

    @property
    def origins(self) -> list[str]:
        """Return the origins for which lanes wait."""
        return [blocker for blocker in self.waiting if not blocker.startswith(MARK)]


class Gates:
    """Counts calls by gate, and knows which lanes to look at. It lives in the engine's event
    loop."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()
        self._resting: Mapping[str, int] = {}
        self._waiting: defaultdict[str, LaneQueue] = defaultdict(LaneQueue)
        self._open: dict[str, None] = {}
        self._opening: list[tuple[int, str]] = []
        self._opens: dict[str, int] = {}
        self._every = True
        self._gates_first = False

    def begin(self, gates: Collection[str]) -> None:
        """Count a call that starts."""
        self.used.update(gates)

    def end(self, gates: Collection[str]) -> None:
        """Count a call that is over: its gates have room."""
        for gate in gates:
            self.used[gate] -= 1
            if not self.used[gate]:
                del self.used[gate]
            self._open[gate] = None

    def under_way(self, gate: str) -> int:
        """Count the calls through a gate, with those that an earlier life may have made."""
        return self.used[gate] + self._resting.get(gate, 0)

    def rest(self, resting: Mapping[str, int]) -> None:
        """Count calls that an earlier life of the engine may have made, in place of others."""
        self._open.update(dict.fromkeys(self._resting))
        self._resting = dict(resting)

    def reopen(self) -> None:
        """Have every lane looked at, because limits have changed, or a claim was in vain."""
        self._every = True

    @property
    def opening_ms(self) -> int | None:
        """Return when the next throttle opens; `None` if no lane waits for that."""
        return self._opening[0][0] if self._opening else None

    def look(self, now_ms: int) -> Room:
        """Return what the next claim has to look at. If that fails, call `reopen`."""
        while self._opening and self._opening[0][0] <= now_ms:
            opens_ms, gate = heappop(self._opening)
            self._open[gate] = None
            if self._opens.get(gate) == opens_ms:
                del self._opens[gate]
        if self._every:
            self._waiting = defaultdict(LaneQueue)
        opened, self._open = self._open, {}
        every, self._every = self._every, False
        used = self.used + Counter(self._resting) if self._resting else self.used
        return Room(used, self._waiting, opened, every=every, gates_first=self._gates_first)

    def looked(self, room: Room) -> None:
        """Keep what a claim has left over, once it is stored."""
        self._open.update(room.open)
        # Those for which no slot was left go first every second time.
        self._gates_first = bool(room.open or room.origins) and not room.gates_first
        for gate, opens_ms in room.later.items():
            if self._opens.get(gate) != opens_ms:
                self._opens[gate] = opens_ms
                heappush(self._opening, (opens_ms, gate))
