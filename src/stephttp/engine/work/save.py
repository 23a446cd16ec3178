"""Stores a change, and what follows from it for other runs: invoked runs start, and answer the runs
that invoked them.

A new wait may be ended at once by an event that came before it. A run that was invoked starts. A
run that ended answers the run that invoked it. A run that becomes the engine's may be cancelled by
an earlier request; as long as its handler answers the first request, that request is left alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.model.change import Change
from stephttp.engine.model.function_start import Start
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import NewRun, Run, RunStatus
from stephttp.engine.model.started import Started
from stephttp.engine.model.timer import Timer, TimerKind
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.endings import cancelled
from stephttp.engine.rules.transitions import arrived
from stephttp.engine.rules.waiting_ops import invoked_result, not_started
from stephttp.engine.store import function_rows, run_triggers, runs
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import admission, announcements, keys, matching, metadata
from stephttp.engine.work.admission import Admitted
from stephttp.engine.work.links import link

_STEP_RUN = OpCode.STEP_RUN
_SEND = "step.sendEvent"
_SEND_NAME = "sendEvent"
_DISPLACED = "a later run took its place, as the option singleton says"


def save(
    connection: sqlite3.Connection, change: Change, before: Run, ops: Sequence[Op], at: Moment
) -> Change:
    """Store what a transition decided, and what follows from it.

    Args:
        before: the run as it was.
        ops: what was reported, if that was the cause.

    Returns:
        The change, with those of other runs in `others`.
    """
    runs.save(connection, change, before, at.now_ms)
    if change.ended and before.status is RunStatus.ASYNC and before.is_of_function:
        change = replace(change, announced=announcements.announce(connection, change.run, at))
    change = _follow(connection, change, ops, at, change.run.began_ms)
    return _taken_over(connection, change, at) if before.status is RunStatus.SYNC else change


def begun(
    connection: sqlite3.Connection, new: NewRun, change: Change, ops: Sequence[Op], at: Moment
) -> Change:
    """Do what follows from a new run that was stored with its first change."""
    change = replace(_follow(connection, change, ops, at, new.began_ms), began=new)
    return _taken_over(connection, change, at)


def cancel(
    connection: sqlite3.Connection, run_id: str, at: Moment, reason: str | None = None
) -> Change:
    """End a run as cancelled. One that has ended stays as it is.

    Args:
        reason: why, if no person asked for it.

    Raises:
        Refused: there is no such run.
    """
    snapshot = runs.load(connection, run_id)
    return save(connection, cancelled(snapshot, at, reason), snapshot.run, (), at)


def start(connection: sqlite3.Connection, starts: Sequence[Start], at: Moment) -> Started:
    """Start functions, as far as their options let them start now."""
    return follow_admitted(connection, admission.admit(connection, starts, at), at)


def follow_admitted(connection: sqlite3.Connection, admitted: Admitted, at: Moment) -> Started:
    """Do what follows from the starts of functions.

    Runs begin, and others end that they displace. Steps that wait for a run that will never be
    learn that at once.
    """
    changes = [begun(connection, new, first, (), at) for new, first in admitted.begun]
    changes += [cancel(connection, run_id, at, _DISPLACED) for run_id in admitted.displaced]
    for why, invokers in admitted.refused:
        changes += _answer(connection, invokers, not_started(why.reason), at)
    return Started(changes, admitted.refused, admitted.held_ms)


def deliver(
    connection: sqlite3.Connection, run_id: str, memos: dict[str, bytes], at: Moment
) -> Change:
    """End waits of a run with what has come for them; see `transitions.arrived`."""
    snapshot = runs.load(connection, run_id)
    return save(connection, arrived(snapshot, memos, at), snapshot.run, (), at)


def _follow(
    connection: sqlite3.Connection, change: Change, ops: Sequence[Op], at: Moment, began_ms: int
) -> Change:
    others = list(change.others)
    sent = {op.id: ids for op in ops if (ids := _sent(op))}
    for step_id, ids in sent.items():
        for event_id in ids:
            link(connection, change.run.run_id, event_id, step_id, received=False)
    for new, first in change.invoked:
        runs.insert(connection, new, first)
        others.append(begun(connection, new, first, (), at))
    if change.starts:
        started = start(connection, change.starts, at)
        others += started.changes
        change = replace(change, held_ms=started.held_ms)
    if any(op.metadata is not UNSET for op in ops):
        metadata.attach_reported(connection, change.run.run_id, ops, at.now_ms)
    if change.ended:
        for op in ops:
            if op.opts and "keys" in op.opts:
                keys.add(connection, change.run.run_id, op.opts["keys"], at)
    if change.ended and change.run.invoked_by is not None:
        function = function_rows.load_events(connection, change.run.run_id) is not None
        memo = invoked_result(change.run, at.settings.max_step_output, function=function)
        further = connection.execute(QUERIES["invokers"], (change.run.run_id,)).fetchall()
        invokers = [change.run.invoked_by, *(invoked_by for (invoked_by,) in further)]
        others += _answer(connection, invokers, memo, at)
    for timer in change.timers:
        if timer.kind is TimerKind.EVENT:
            sent_ids = [event_id for ids in sent.values() for event_id in ids]
            since_ms = matching.since_ms(began_ms, timer, at)
            found = _look_back(connection, change.run, timer, sent_ids, since_ms, at)
            if found is None:
                change = replace(change, looks_back=True)
            else:
                others += found
        elif timer.kind is TimerKind.CANCEL:
            matching.open_wait(connection, change.run.run_id, timer)
    return replace(change, others=tuple(others)) if others else change


def _answer(
    connection: sqlite3.Connection, invokers: Sequence[str], memo: bytes, at: Moment
) -> list[Change]:
    """End the waits of steps that have invoked a run."""
    changes = []
    for invoked_by in invokers:
        run_id, _, step_id = invoked_by.partition(".")
        # The run that invoked this one may have ended long ago, and be no longer stored.
        with suppress(Refused):
            changes.append(deliver(connection, run_id, {step_id: memo}, at))
    return changes


def _look_back(
    connection: sqlite3.Connection,
    run: Run,
    timer: Timer,
    sent: Sequence[str],
    since_ms: int,
    at: Moment,
) -> list[Change] | None:
    """End a wait that was just opened by an event that came before it.

    That may be one that a step of the same batch sent: the SDK sends before it reports.

    Returns:
        Changes of the run; `None` if there are too many events to look at all of them now.
    """
    if not matching.open_wait(connection, run.run_id, timer):
        return []
    assert timer.key is not None
    events = matching.earlier_events(
        connection, run.run_id, timer.key, since_ms, sent=sent, limit=matching.MOST_AT_ONCE + 1
    )
    found = matching.first_match(
        connection, run.run_id, timer.condition, events[: matching.MOST_AT_ONCE]
    )
    if found is not None:
        link(connection, run.run_id, found.event_id, timer.step_id, received=True)
        return [deliver(connection, run.run_id, {timer.step_id: found.body}, at)]
    if len(events) > matching.MOST_AT_ONCE:
        connection.execute(QUERIES["add_catch_up"], (run.run_id, timer.step_id, since_ms))
        return None
    return []


def _sent(op: Op) -> list[str]:
    """Return the ids of events that a step sent, from the forms of docs/protocol.md 5.2."""
    if op.op is not _STEP_RUN or not isinstance(op.data, msgspec.Raw):
        return []
    if op.name != _SEND_NAME and (not op.opts or op.opts.get("type") != _SEND):
        return []
    data = msgspec.json.decode(op.data)
    ids = data.get("ids") if isinstance(data, dict) else data
    return [id_ for id_ in (ids if isinstance(ids, list) else [ids]) if isinstance(id_, str)]


def _taken_over(connection: sqlite3.Connection, change: Change, at: Moment) -> Change:
    """Cancel a run that the engine drives from now on, if that was asked for."""
    run_id = change.run.run_id
    if change.run.status is not RunStatus.ASYNC or not _is_cancelled(connection, run_id, at):
        return change
    return replace(change, others=(*change.others, cancel(connection, run_id, at)))


def _is_cancelled(connection: sqlite3.Connection, run_id: str, at: Moment) -> bool:
    conditions = connection.execute(QUERIES["cancellations_for"], (run_id,)).fetchall()
    return any(started_by(connection, run_id, condition, at.now_ms) for (condition,) in conditions)


def started_by(
    connection: sqlite3.Connection, run_id: str, condition: str | None, now_ms: int
) -> bool:
    """Say whether the event that started a run fulfils the condition of a cancellation."""
    if condition is None:
        return True
    _, event = run_triggers.load_trigger(connection, run_id)
    return expressions.matches(condition, {expressions.TRIGGER: event}, now_ms)
