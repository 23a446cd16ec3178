"""Reads runs for SDKs: memos on re-entry (`/v0/runs/{run}/actions`), and `GET /v1/runs/{run}`."""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from stephttp._wire import stored_state
from stephttp._wire.stored_state import CallId
from stephttp.engine.api.run_parts import (
    EventRun,
    MetadataItem,
    ReportedError,
    WaitItem,
    metadata_item,
    stored,
    wait_item,
)
from stephttp.engine.model import tokens
from stephttp.engine.model.call import ResumeState
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.refused import SUPERSEDED, TAKEN, Refused
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.timer import TimerKind
from stephttp.engine.outbound.under_way import Heard
from stephttp.engine.reading.run_rows import load_waits
from stephttp.engine.rules.answers import is_current
from stephttp.engine.store import due_requests, metadata_rows, runs
from stephttp.engine.store.run_triggers import load_triggers
from stephttp.engine.store.runs import unknown
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.web.fields import AnswerBody, Base64, Time, one_of
from stephttp.engine.web.requests import call_of, engine_of, parse_run_id
from stephttp.engine.web.responses import json_response, wrapped


class RunTrigger(AnswerBody):
    """An event that began a run."""

    data: dict[str, Any] | None
    id: str
    name: str
    ts: int
    meta: Any | UnsetType = UNSET
    user: Any | UnsetType = UNSET
    v: str | UnsetType = UNSET


class RunView(EventRun):
    """A run. `output` is set once it has ended."""

    function: str
    attempt: int
    last_error: str | None
    error: ReportedError | None
    invoked_by: str | None
    waiting_for: list[WaitItem]
    metadata: list[MetadataItem]
    output: Base64 | UnsetType = UNSET


class StepView(AnswerBody):
    """A step of a run. `step_id` is the hash of `id` and `index`, which the user's code chose."""

    step_id: str
    id: str | None
    index: int | None
    name: str | None
    op: str | None
    status: Annotated[str, one_of("Waiting", "Completed", "Failed")]
    attempts: int
    started_at: Time | None
    duration_ms: float | None
    due_at: Time | None
    error: ReportedError | None


class JobView(AnswerBody):
    """What the engine will do for a run, and when."""

    at: Time
    kind: str
    position: int
    attempt: int
    step_id: str | None


async def actions(request: Request) -> Response:
    """Return the memoised steps of a run that has not ended, or, where that is accepted, of any."""
    run_id = parse_run_id(request.path_params["run"])
    accepted = request.headers.get("x-stephttp-accept", "")
    engine, call = engine_of(request), call_of(request)
    unit = partial(
        _actions,
        run_id=run_id,
        pending="pending" in accepted,
        names="step-names" in accepted,
        ended="ended" in accepted,
        call=call,
    )
    if call is not None:
        heard = await engine.caller.admit(run_id, call)
        if heard is Heard.TAKEN:
            raise Refused(TAKEN, HTTPStatus.LOCKED)
    loaded = await engine.store.read(unit)
    # Once more: another call may have superseded it meanwhile, whose steps were acknowledged.
    if call is not None and engine.caller.hear(run_id, call) is not Heard.CURRENT:
        raise Refused(SUPERSEDED, 409)
    headers = {stored_state.FAILURES: loaded.failures} if loaded.failures else {}
    return Response(loaded.memos, media_type="application/json", headers=headers)


async def batch(request: Request) -> Response:
    """Return the events that began a run that has not ended."""
    run_id = parse_run_id(request.path_params["run"])
    return json_response(await engine_of(request).store.read(partial(_events, run_id=run_id)))


async def run(request: Request) -> Response:
    """Return one run."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    data = await engine.store.read(partial(_run, run_id=run_id))
    return wrapped(data, engine.clock.now_ms())


async def steps(request: Request) -> Response:
    """List the steps of a run, in the order in which they were first reported."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    unit = partial(_steps, run_id=run_id)
    return wrapped(await engine.store.read(unit), engine.clock.now_ms())


async def jobs(request: Request) -> Response:
    """List what the engine will do for a run, and when."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    unit = partial(_jobs, run_id=run_id)
    return wrapped(await engine.store.read(unit), engine.clock.now_ms())


def _jobs(connection: sqlite3.Connection, run_id: str) -> list[JobView]:
    _one(connection, "run_status", run_id)
    rows: list[tuple[int, str, str, int]]
    rows = connection.execute(QUERIES["run_jobs"], (run_id,)).fetchall()
    return [
        JobView(
            at=rfc3339(due_ms),
            kind=kind,
            position=position,
            attempt=attempt if kind == TimerKind.RESUME else 0,
            step_id=step_id or None,
        )
        for position, (due_ms, kind, step_id, attempt) in enumerate(rows)
    ]


def _one(connection: sqlite3.Connection, query: str, run_id: str) -> Any:
    row = connection.execute(QUERIES[query], (run_id,)).fetchone()
    if row is None:
        raise unknown(run_id)
    return row


def _check_open(status: str, run_id: str) -> None:
    if RunStatus(status).ended:
        raise Refused(f"run_id: run {run_id} has ended, its state is no longer available", 410)


def _actions(
    connection: sqlite3.Connection,
    run_id: str,
    *,
    pending: bool,
    names: bool,
    ended: bool,
    call: CallId | None,
) -> ResumeState:
    status = _one(connection, "run_status", run_id)[0]
    if not ended:
        _check_open(status, run_id)
    if call is not None:
        current = is_current(runs.load(connection, run_id), call.step, call.job, call.attempt)
        if not current:
            raise Refused(SUPERSEDED, 409)
    return due_requests.load_state(connection, run_id, pending=pending, names=names)


def _events(connection: sqlite3.Connection, run_id: str) -> list[RunTrigger]:
    status, events = load_triggers(connection, run_id)
    _check_open(status, run_id)
    return [RunTrigger(**event) for event in events]


def _run(connection: sqlite3.Connection, run_id: str) -> RunView:
    row = _one(connection, "run_view", run_id)
    created_ms: int
    _, created_ms, fn_id, event_id, status, ended_ms, output, slug, *more = row
    attempt, last_error, error, invoked_by = more
    return RunView(
        run_id=run_id,
        run_started_at=rfc3339(created_ms),
        function_id=fn_id,
        function_version=0,
        environment_id=tokens.ENVIRONMENT_ID,
        event_id=event_id,
        status=RunStatus(status).wire,
        ended_at=rfc3339(ended_ms),
        function=slug,
        attempt=attempt,
        last_error=last_error,
        error=stored(error),
        invoked_by=invoked_by,
        waiting_for=[wait_item(wait) for wait in load_waits(connection, [run_id])[run_id]],
        metadata=[metadata_item(one) for one in metadata_rows.load(connection, run_id)],
        output=UNSET if ended_ms is None else b64encode(output or b"").decode(),
    )


def _steps(connection: sqlite3.Connection, run_id: str) -> list[StepView]:
    _one(connection, "run_status", run_id)
    return [
        StepView(
            step_id=step_id,
            id=userland_id,
            index=index,
            name=name,
            op=op,
            status=_step_status(done=bool(done), failed=bool(failed)),
            attempts=attempts,
            started_at=rfc3339(started_ns // 1_000_000) if started_ns else None,
            duration_ms=duration_ns / 1_000_000 if done else None,
            due_at=rfc3339(due_ms),
            error=stored(error),
        )
        for (
            step_id,
            userland_id,
            index,
            name,
            op,
            attempts,
            started_ns,
            duration_ns,
            error,
            done,
            failed,
            due_ms,
        ) in connection.execute(QUERIES["step_list"], (run_id,))
    ]


def _step_status(*, done: bool, failed: bool) -> str:
    if not done:
        return "Waiting"
    return "Failed" if failed else "Completed"
