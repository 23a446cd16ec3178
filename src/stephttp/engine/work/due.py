"""Takes up the work that is due: calls of endpoints, and HTTP requests of steps; deadlines and
timeouts of runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from stephttp.engine.live.slots import Room, Shares, TaskKey, key_of
from stephttp.engine.model.call import EndpointCall, GatewayRequest
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.run import RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, TARGETED, Timer, TimerKind
from stephttp.engine.rules.endings import overdue
from stephttp.engine.rules.transitions import fell_due
from stephttp.engine.store import due_requests, runs
from stephttp.engine.store.due_requests import DueCall
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import run_timeouts, save
from stephttp.engine.work.lanes import LaneWalk

_CALLS = TARGETED | {TimerKind.RESUME}
_PAUSE_MS = 50
"""Milliseconds after which a wait is looked at again that could not time out yet."""
_MOST_ASIDE = 500
"""Timers that one unit of work sets aside."""
_MOST_OF_RUNS = 100
"""Timers of runs as a whole that one unit of work looks at."""
_MOST_OVERDUE = 100
"""How many runs one unit of work ends."""

_Due = tuple[TaskKey, str, int, tuple[str, ...]]
"""What is due: its key, the kind of the timer, since when, and the gates of the call."""


@dataclass(frozen=True, slots=True)
class DueWork:
    """Due work that was taken up.

    Attributes:
        ended: changes of runs whose time has passed.
        next_due_ms: when to claim again; `None` if nothing is open.
        late: the kinds of the timers that led to it, and how many milliseconds after their time.
    """

    calls: list[EndpointCall]
    http_steps: list[GatewayRequest]
    ended: list[Change]
    next_due_ms: int | None
    late: list[tuple[str, int]] = field(default_factory=list)


def claim(
    connection: sqlite3.Connection,
    at: Moment,
    busy: Collection[TaskKey],
    slots: Shares,
    gateway_slots: Shares,
    room: Room,
    since_ms: int,
) -> DueWork:
    """Take up due work, the longest overdue first, and end runs whose time has passed.

    Args:
        busy: what is being worked on already; it is left out.
        slots: those for calls. More may be due: claim again when a call is over.
        gateway_slots: those for HTTP requests of steps, which count for the origin of their run.
        room: that of gates; it learns what waits for it.
        since_ms: when this engine started to call; a call that was due before may still be under
            way from the last life of the engine, so it does not carry state.
    """
    ended = _end_overdue(connection, at)
    values = (at.now_ms, _MOST_OF_RUNS)
    of_runs = connection.execute(QUERIES["due_of_runs"], values).fetchall()
    if of_runs:
        ended += run_timeouts.end_late(connection, of_runs, at)
    due_calls, more_calls = _pick(connection, "calls", at.now_ms, busy, slots, room)
    calls = _take(connection, due_calls, since_ms, at)
    functions = [call.run_id for call in calls if call.function is not None]
    if functions:
        run_timeouts.note_calls(connection, functions, at)
    calls = due_requests.attach_state(connection, calls)
    due_fetches, more_fetches = _pick(
        connection, "http_steps", at.now_ms, busy, gateway_slots, None
    )
    fetches = [due_requests.load_gateway_request(connection, *key) for key, *_ in due_fetches]
    late = [(kind, at.now_ms - due_ms) for _, kind, due_ms, _ in (*due_calls, *due_fetches)]
    more = more_calls or more_fetches or len(of_runs) == _MOST_OF_RUNS
    next_due_ms = at.now_ms if more else _next_due_ms(connection, at)
    return DueWork(calls, fetches, ended, next_due_ms, late)


def due_before(connection: sqlite3.Connection, since_ms: int) -> frozenset[TaskKey]:
    """Return the calls that were due before a time."""
    rows = connection.execute(QUERIES["calls_due_before"], (since_ms,))
    return frozenset(key_of(*row) for row in rows)


def gates_before(connection: sqlite3.Connection, since_ms: int) -> dict[str, int]:
    """Count the calls that were due before a time, and may have been under way then, by gate."""
    return dict(connection.execute(QUERIES["gates_due_before"], (since_ms,)).fetchall())


def _pick(
    connection: sqlite3.Connection,
    what: str,
    now_ms: int,
    busy: Collection[TaskKey],
    slots: Shares,
    room: Room | None,
) -> tuple[list[_Due], bool]:
    """Give the free slots to what is due.

    Timers whose origin has no room are set aside in a lane of that origin, so that they are not
    looked at again and again, and lanes come first as soon as there is room. Those of runs that
    have to pass gates are always set aside, because others may have an earlier turn (`lanes`).

    Args:
        room: that of gates; `None`: this passes no gates.

    Returns:
        What was picked, and whether there is more to be looked at now.
    """
    picked: dict[TaskKey, _Due] = {}

    def pick(
        origin: str, key: TaskKey, kind: str, due_ms: int, gates: tuple[str, ...] = ()
    ) -> None:
        picked[key] = (key, kind, due_ms, gates)
        slots.take(origin)

    def lane_walk(room: Room) -> LaneWalk:
        return LaneWalk(connection, now_ms, busy, picked, slots, room, pick)

    # Few runs have to pass gates: without them, nothing is walked.
    walk = lane_walk(room) if room is not None and room.changed else None
    more = walk is not None and room is not None and room.gates_first and walk.take_turns()
    lanes = connection.execute(QUERIES[f"lanes_of_{what}"]).fetchall() if slots.free else []
    for origin in slots.fewest_first([origin for (origin,) in lanes]):
        if slots.has_room(origin):
            rows = connection.execute(QUERIES[f"lane_of_{what}"], (origin, now_ms))
            while slots.has_room(origin) and (row := rows.fetchone()) is not None:
                run_id, step_id, kind, due_ms = row
                if (key := key_of(run_id, step_id, kind)) not in busy and key not in picked:
                    pick(origin, key, kind, due_ms)
            rows.close()
    aside: list[tuple[str, int, str, str]] = []
    rows = connection.execute(QUERIES[f"due_{what}"], (now_ms,))
    while slots.free and len(aside) < _MOST_ASIDE and (row := rows.fetchone()) is not None:
        run_id, step_id, kind, due_ms, origin, turn_ms = row
        if (key := key_of(run_id, step_id, kind)) in busy or key in picked:
            continue
        gate = None
        if room is not None and turn_ms is not None:
            walk = walk or lane_walk(room)
            gate = walk.lane_of(run_id, kind, turn_ms)
        if gate is None and slots.has_room(origin):
            pick(origin, key, kind, due_ms)
        else:
            place_ms = due_ms if turn_ms is None else turn_ms
            aside.append((gate or origin, place_ms, run_id, step_id))
    rows.close()
    connection.executemany(QUERIES["set_aside"], aside)
    if len(aside) == _MOST_ASIDE:
        return list(picked.values()), True  # Among the others may be one with an earlier turn.
    if walk and room and room.changed:
        more = walk.take_turns() or more
    return list(picked.values()), more


def _take(
    connection: sqlite3.Connection, due: Sequence[_Due], since_ms: int, at: Moment
) -> list[EndpointCall]:
    """Return the calls that follow from what fell due; from some, none follows yet."""
    resumed = [run_id for (run_id, step_id), *_ in due if step_id == RESUME]
    known = runs.load_many(connection, resumed)
    taken: list[tuple[_Due, DueCall]] = []
    for one in due:
        run_id, step_id = one[0]
        if step_id == RESUME:
            timers = _fall_due(connection, known[run_id], at)
        else:
            timers = runs.load_timers(connection, run_id)
        if timers is not None:
            taken.append((one, DueCall(run_id, step_id, timers)))
    loaded = due_requests.load_calls(connection, [call for _, call in taken])
    calls = []
    for ((_, kind, due_ms, gates), _), call in zip(taken, loaded, strict=True):
        # A run that is taken over is not for the process that was heard of last.
        again = kind == TimerKind.ORPHAN or (kind in _CALLS and due_ms < since_ms)
        reads_state = call.reads_state and not again
        calls.append(replace(call, reads_state=reads_state, gates=gates))
    return calls


def _fall_due(
    connection: sqlite3.Connection, snapshot: Snapshot, at: Moment
) -> dict[str, Timer] | None:
    """Do what falls due in a run, and return its timers if it is to be called now."""
    run_id = snapshot.run.run_id
    if snapshot.run.status is RunStatus.SYNC:  # its only timer is its lease
        snapshot = replace(snapshot, timers=runs.load_timers(connection, run_id))
    snapshot = _postpone_waits(connection, snapshot, at)
    change = fell_due(snapshot, at)
    runs.save(connection, change, snapshot.run, at.now_ms)
    if not change.call:
        return None
    timers = {key: one for key, one in snapshot.timers.items() if key not in change.dropped}
    return timers | {timer.step_id: timer for timer in change.timers}


def _postpone_waits(connection: sqlite3.Connection, snapshot: Snapshot, at: Moment) -> Snapshot:
    """Let waits not time out for which an event may have come, but is not matched with them yet."""
    waits = (one for one in snapshot.timers.values() if one.kind is TimerKind.EVENT)
    if not any(timer.due_ms <= at.now_ms for timer in waits):
        return snapshot
    values = {"run_id": snapshot.run.run_id, "now_ms": at.now_ms, "pause_ms": _PAUSE_MS}
    if connection.execute(QUERIES["postpone_waits"], values).rowcount == 0:
        return snapshot
    return replace(snapshot, timers=runs.load_timers(connection, snapshot.run.run_id))


def _end_overdue(connection: sqlite3.Connection, at: Moment) -> list[Change]:
    if at.settings.run_deadline is None:
        return []
    before_ms = at.now_ms - round(at.settings.run_deadline * 1000)
    values = {"before_ms": before_ms, "limit": _MOST_OVERDUE}
    changes = []
    for (run_id,) in connection.execute(QUERIES["overdue_runs"], values).fetchall():
        snapshot = runs.load(connection, run_id)
        change = overdue(snapshot, at)
        changes.append(save.save(connection, change, snapshot.run, (), at))
    return changes


def _next_due_ms(connection: sqlite3.Connection, at: Moment) -> int | None:
    times: list[int | None] = list(connection.execute(QUERIES["next_due"], (at.now_ms,)).fetchone())
    deadline = at.settings.run_deadline
    if deadline is not None:
        (oldest_ms,) = connection.execute(QUERIES["oldest_open_run"]).fetchone()
        times.append(None if oldest_ms is None else oldest_ms + round(deadline * 1000))
    return min((due_ms for due_ms in times if due_ms is not None), default=None)
