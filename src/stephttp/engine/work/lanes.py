"""Calls of runs that have to pass gates: each waits in the lane of a gate until all of its gates
have room.

A timer is in the lane of its narrowest gate that has no room, or of its widest gate if all have
room and the turn of others comes first. It is moved to a narrower one if that
has no room when its turn comes, and never to a wider one, so it moves at most once for each gate.
If the gate that has no room is wider, or if its origin has none, the whole lane waits for that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container, Sequence
from heapq import heappop, heappush

from msgspec.structs import replace

from stephttp.engine.live.slots import FIRST, Room, Shares, TaskKey, key_of
from stephttp.engine.model.gate import MARK, Gate, Turn
from stephttp.engine.model.timer import OF_RUN, TimerKind
from stephttp.engine.rules.functions import throttling
from stephttp.engine.store import gate_rows
from stephttp.engine.store.sql import QUERIES

Pick = Callable[[str, TaskKey, str, int, tuple[str, ...]], None]
"""Takes up a timer: its origin, its key, its kind, since when it is due, and gates."""

_UNGATED = OF_RUN | {TimerKind.LEASE}
"""Timers that lead to no call."""
_MOST_LOOKED = 500
"""Timers in lanes that one unit of work looks at."""
_MOST_PASSED_OVER = 10
"""Timers of a lane that are passed over to find one that can be taken up."""


class LaneWalk:
    """Looks at lanes, for one claim.

    Args:
        now_ms: the present time.
        busy: what is being worked on already.
        picked: what this claim has taken up.
        slots: those for calls.
        room: the gates; it learns which lanes wait for what.
        pick: takes up a timer.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        now_ms: int,
        busy: Container[TaskKey],
        picked: Container[TaskKey],
        slots: Shares,
        room: Room,
        pick: Pick,
    ) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._busy = busy
        self._picked = picked
        self._slots = slots
        self._room = room
        self._pick = pick
        self._looked = 0
        self._offers: list[tuple[Turn, str]] = []

    def lane_of(self, run_id: str, kind: str, turn_ms: int) -> str | None:
        """Return the gate in whose lane a timer has to wait, and have it looked at; `None` if the
        timer passes no gates."""
        gates = () if kind in _UNGATED else gate_rows.load_gates(self._connection, run_id)
        if not gates:
            return None
        gate = (self._blocker(gates) or gates[-1]).name
        self._room.wait(gate, gate, (turn_ms, run_id))
        self._room.open[gate] = None
        return gate

    def take_turns(self) -> bool:
        """Take up what can be taken up, in the order of turns.

        Returns:
            Whether there is more to be looked at now.
        """
        room, slots = self._room, self._slots
        if room.every:
            room.every = False
            for (lane,) in self._connection.execute(QUERIES["lanes_of_gates"]).fetchall():
                room.wait(lane, lane, FIRST)
                room.open[lane] = None
        for blocker in (*room.open, *filter(slots.has_room, room.origins)):
            self._offer(blocker)
        room.open.clear()
        while self._may_look and self._offers:
            _, blocker = heappop(self._offers)
            if blocker.startswith(MARK) or slots.has_room(blocker):
                lane = room.waiting[blocker].pop()
                if lane is not None and blocker not in self._walk(lane):
                    self._offer(blocker)
        room.open.update(dict.fromkeys(one for _, one in self._offers if one.startswith(MARK)))
        self._offers.clear()
        return bool(room.open and slots.free)

    @property
    def _may_look(self) -> bool:
        return self._slots.free > 0 and self._looked < _MOST_LOOKED

    def _offer(self, blocker: str) -> None:
        """Note that a gate or an origin may have room for the lanes that wait for it."""
        turn = self._room.first_turn(blocker)
        if turn is not None:
            heappush(self._offers, (turn, blocker))

    def _is_turn_of(self, turn: Turn) -> bool:
        """Say whether no lane that might have room comes before."""
        return not self._offers or turn <= self._offers[0][0]

    def _walk(self, lane: str) -> set[str]:
        """Take up timers of a lane, and return what others of it wait for."""
        waits_for = set[str]()
        taken: list[tuple[str, str]] = []
        moved: list[tuple[str, int, str, str]] = []
        passed_over = 0
        rows = self._connection.execute(QUERIES["lane_of_gate"], (lane,))
        while passed_over < _MOST_PASSED_OVER and (row := rows.fetchone()) is not None:
            run_id, step_id, kind, due_ms, origin, turn_ms = row
            turn = (turn_ms, run_id)
            if not (self._may_look and self._is_turn_of(turn)):
                self._room.wait(lane, lane, turn)
                self._offer(lane)
                break
            self._looked += 1
            key = key_of(run_id, step_id, kind)
            gates = gate_rows.load_gates(self._connection, run_id)
            blocker = self._blocker(gates)
            if key in self._busy or key in self._picked:
                waits_for_what = lane  # The call that is under way goes through it, too.
            elif blocker is None and self._slots.has_room(origin):
                self._take_up(run_id, key, kind, due_ms, origin, gates)
                taken.append((run_id, step_id))
                continue
            elif blocker is not None and blocker.order < _order(lane, gates):
                moved.append((blocker.name, turn_ms, run_id, step_id))
                self._room.wait(blocker.name, blocker.name, turn)
                continue
            else:
                waits_for_what = origin if blocker is None else blocker.name
            self._room.wait(lane, waits_for_what, turn)
            waits_for.add(waits_for_what)
            if blocker is not None and blocker.name == lane:
                break
            passed_over += 1
        rows.close()
        self._connection.executemany(QUERIES["set_back"], taken)
        self._connection.executemany(QUERIES["set_aside"], moved)
        return waits_for

    def _blocker(self, gates: Sequence[Gate]) -> Gate | None:
        """Return the narrowest gate that has no room."""
        for gate in gates:
            if gate.period_ms is None:
                if self._room.used(gate.name) >= gate.most:
                    return gate
            elif (opens_ms := self._opens_ms(gate)) > self._now_ms:
                self._room.later[gate.name] = opens_ms
                return gate
        return None

    def _opens_ms(self, throttle: Gate) -> int:
        opens_ms = throttling.opens_ms(throttle)
        bounded_ns = throttling.bounded_ns(throttle, self._now_ms)
        if opens_ms <= self._now_ms or bounded_ns == throttle.free_ns:
            return opens_ms
        # Stored, or the bound would move on with the time, and the throttle would never open.
        gate_rows.set_free(self._connection, throttle.name, bounded_ns)
        return throttling.opens_ms(replace(throttle, free_ns=bounded_ns))

    def _take_up(
        self, run_id: str, key: TaskKey, kind: str, due_ms: int, origin: str, gates: Sequence[Gate]
    ) -> None:
        names = tuple(gate.name for gate in gates if gate.period_ms is None)
        self._room.take(names)
        self._pick(origin, key, kind, due_ms, names)
        for gate in gates:
            if gate.period_ms is not None:  # It is for the start alone.
                gate_rows.start_through(self._connection, run_id, gate, self._now_ms)


def _order(lane: str, gates: Sequence[Gate]) -> tuple[int, int, str]:
    """Return the order of the gate in whose lane a timer of a run is."""
    return next(gate.order for gate in gates if gate.name == lane)
