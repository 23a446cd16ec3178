"""The requests that continue runs, and the memos that go with them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from stephttp._wire import stored_state
from stephttp._wire.ids import is_own
from stephttp._wire.opcodes import OpCode
from stephttp._wire.stored_state import PENDING
from stephttp.engine.model.call import EndpointCall, FunctionState, GatewayRequest, ResumeState
from stephttp.engine.model.timer import RESUME, TARGETED, Timer, TimerKind
from stephttp.engine.store import function_rows
from stephttp.engine.store.many_rows import json_array
from stephttp.engine.store.runs import load_timers
from stephttp.engine.store.sql import QUERIES

_BUSY = TARGETED | {TimerKind.RETRY}
_HASH = re.compile("[0-9a-f]{40}")
_MOST_FAILURES = 100
"""Failed steps that a header names."""

_Row = tuple[str, bytes | None, bytes | None, str, int, bool, str | None, int, str]
"""Step id, memo, edited input, op, attempts, whether it has a timer; the user's id of it, which use
of that it is, its branch."""


class DueCall(NamedTuple):
    """A call to make: of a run, as its own or for a planned step, with the run's open timers."""

    run_id: str
    step_id: str
    timers: Mapping[str, Timer]


def load_calls(connection: sqlite3.Connection, due: Sequence[DueCall]) -> list[EndpointCall]:
    """Load what to send to the endpoints, in the same order."""
    if not due:
        return []
    run_ids = json_array([one.run_id for one in due])
    rows = {row[0]: row for row in connection.execute(QUERIES["run_calls"], (run_ids,))}
    return [_call(connection, one, rows[one.run_id]) for one in due]


def _call(connection: sqlite3.Connection, due: DueCall, row: tuple[Any, ...]) -> EndpointCall:
    run_id, job_id, attempt, *request, fn_id, reads_state, unreached, retries, events = row
    timers = due.timers
    if due.step_id == RESUME:
        # A step that is being called for, or in its back-off, must not be run beside that.
        plan = any(timer.kind in _BUSY for timer in timers.values())
    else:
        timer = timers[due.step_id]
        job_id, attempt, unreached, plan = timer.job_id, timer.attempt, timer.unreached, True
    call = replace(
        EndpointCall(run_id, job_id, attempt, *request),
        step_id=due.step_id,
        plan=plan,
        fn_id=fn_id,
        # Only a first attempt carries state. A repetition may overlap with the call that it
        # repeats, and it has to work where a proxy on the way did not accept the state.
        reads_state=bool(reads_state) and not (attempt or unreached),
        # Each sending may cost a process; after one that was in vain, each is counted.
        unanswered=unreached,
    )
    if events is None:
        return call
    return function_rows.completed(connection, call, FunctionState(events, retries), timers)


def load_gateway_request(
    connection: sqlite3.Connection, run_id: str, step_id: str
) -> GatewayRequest:
    """Load the HTTP request that the engine has to make for a step."""
    (origin,) = connection.execute(QUERIES["run_origin"], (run_id,)).fetchone()
    spec = load_timers(connection, run_id)[step_id].payload or b"null"
    return GatewayRequest(run_id, step_id, spec, origin)


def load_state(
    connection: sqlite3.Connection, run_id: str, *, pending: bool, names: bool = False
) -> ResumeState:
    """Load the state of a run.

    Args:
        pending: name unfinished steps, too, and how often they have failed.
        names: say what steps they are, under a key of its own.
    """
    return _render(_rows(connection, [run_id]).get(run_id, []), pending=pending, names=names)


def attach_state(
    connection: sqlite3.Connection, calls: Sequence[EndpointCall]
) -> list[EndpointCall]:
    """Attach the state of its run to each call whose SDK reads it, unless it is too large."""
    run_ids = {
        call.run_id for call in calls if call.reads_state and call.method in stored_state.METHODS
    }
    if not run_ids:
        return list(calls)
    values = {"run_ids": json_array(run_ids), "most": stored_state.LARGEST}
    run_ids.difference_update(row[0] for row in connection.execute(QUERIES["large_states"], values))
    rows = _rows(connection, run_ids)
    states = {run_id: _render(rows.get(run_id, []), pending=True, names=True) for run_id in run_ids}
    return [
        replace(call, state=state)
        if call.reads_state
        and (state := states.get(call.run_id)) is not None
        and len(state.memos) <= stored_state.LARGEST
        else call
        for call in calls
    ]


def _rows(connection: sqlite3.Connection, run_ids: Collection[str]) -> dict[str, list[_Row]]:
    rows: dict[str, list[_Row]] = {}
    for run_id, *row in connection.execute(QUERIES["states"], (json_array(run_ids),)):
        rows.setdefault(run_id, []).append(tuple(row))
    return rows


def _render(rows: Sequence[_Row], *, pending: bool, names: bool) -> ResumeState:
    # Memos are JSON already; joining them costs less than decoding and encoding.
    pairs: list[tuple[str, bytes]] = []
    failures: list[str] = []
    for step_id, memo, edited, op, attempts, waits, *_ in rows:
        if memo is not None:
            pairs.append((step_id, memo))
            continue
        # Callers choose ids, so only those of the usual form may enter a header.
        if op == OpCode.STEP_ERROR and _HASH.fullmatch(step_id):
            failures.append(f"{step_id}={attempts}")
        if edited is not None:
            pairs.append((step_id, b'{"input":' + edited + b"}"))
        elif waits and pending:
            pairs.append((step_id, PENDING))
    if names:
        named = {
            step_id: (op, userland_id or "", index, branch)
            for step_id, _, _, op, _, _, userland_id, index, branch in rows
            if not is_own(step_id, userland_id)
        }
        pairs.append((stored_state.STEPS, msgspec.json.encode(named)))
    memos = b",".join(msgspec.json.encode(step_id) + b":" + memo for step_id, memo in pairs)
    shown = ", ".join(failures[:_MOST_FAILURES]) if pending else ""
    return ResumeState(b"{" + memos + b"}\n", shown)
