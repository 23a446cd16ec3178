"""Reading runs: what SDKs load on re-entry (`/v0`), and what people look at (`/v1`)."""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from functools import partial
from typing import Any

from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from stephttp._wire import inline_state
from stephttp.engine.api.manage.views import wait_view
from stephttp.engine.model import tokens
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.run import Refused, RunStatus, State, TimerKind
from stephttp.engine.reading.run_rows import load_waits
from stephttp.engine.store.runs import load_trigger, unknown
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.web.requests import engine_of, json_response, parse_run_id, wrapped
from stephttp.engine.work import resume_state


async def actions(request: Request) -> Response:
    """Memoised steps of a run that has not ended."""
    run_id = parse_run_id(request.path_params["run"])
    pending = "pending" in request.headers.get("x-stephttp-accept", "")
    unit = partial(_actions, run_id=run_id, pending=pending)
    loaded = await engine_of(request).store.read(unit)
    headers = {inline_state.FAILURES: loaded.failures} if loaded.failures else {}
    return Response(loaded.memos, media_type="application/json", headers=headers)


async def batch(request: Request) -> Response:
    """The event that began a run that has not ended."""
    run_id = parse_run_id(request.path_params["run"])
    return json_response([await engine_of(request).store.read(partial(_event, run_id=run_id))])


async def run(request: Request) -> Response:
    """One run."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    data = await engine.store.read(partial(_run, run_id=run_id))
    return wrapped(data, engine.clock.now_ms())


async def steps(request: Request) -> Response:
    """Steps of a run, in the order in which they were first reported."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    unit = partial(_steps, run_id=run_id)
    return wrapped(await engine.store.read(unit), engine.clock.now_ms())


async def jobs(request: Request) -> Response:
    """What the engine will do for a run, and when."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    unit = partial(_jobs, run_id=run_id)
    return wrapped(await engine.store.read(unit), engine.clock.now_ms())


def _jobs(connection: sqlite3.Connection, run_id: str) -> list[dict[str, Any]]:
    _one(connection, "run_state", run_id)
    return [
        {
            "at": rfc3339(due_ms),
            "kind": kind,
            "position": position,
            "attempt": attempt if kind == TimerKind.RESUME else 0,
            "step_id": step_id or None,
        }
        for position, (due_ms, kind, step_id, attempt) in enumerate(
            connection.execute(QUERIES["run_jobs"], (run_id,))
        )
    ]


def _one(connection: sqlite3.Connection, query: str, run_id: str) -> Any:
    row = connection.execute(QUERIES[query], (run_id,)).fetchone()
    if row is None:
        raise unknown(run_id)
    return row


def _check_open(status: str, run_id: str) -> None:
    if RunStatus(status).ended:
        raise Refused(f"run_id: run {run_id} has ended, its state is no longer available", 410)


def _actions(connection: sqlite3.Connection, run_id: str, *, pending: bool) -> State:
    _check_open(_one(connection, "run_state", run_id)[1], run_id)
    return resume_state.load(connection, run_id, pending=pending)


def _event(connection: sqlite3.Connection, run_id: str) -> dict[str, Any]:
    status, event = load_trigger(connection, run_id)
    _check_open(status, run_id)
    return event


def _run(connection: sqlite3.Connection, run_id: str) -> dict[str, Any]:
    row = _one(connection, "run_view", run_id)
    _, created_ms, fn_id, event_id, status, ended_ms, output, slug, *more = row
    attempt, last_error, error, invoked_by = more
    data = {
        "run_id": run_id,
        "run_started_at": rfc3339(created_ms),
        "function_id": fn_id,
        "function_version": 0,
        "environment_id": tokens.ENVIRONMENT_ID,
        "event_id": event_id,
        "status": RunStatus(status).wire,
        "ended_at": rfc3339(ended_ms),
        "function": slug,
        "attempt": attempt,
        "last_error": last_error,
        "error": _raw(error),
        "invoked_by": invoked_by,
        "waiting_for": [wait_view(wait) for wait in load_waits(connection, [run_id])[run_id]],
    }
    if ended_ms is not None:
        data["output"] = b64encode(output or b"").decode()
    return data


def _steps(connection: sqlite3.Connection, run_id: str) -> list[dict[str, Any]]:
    _one(connection, "run_state", run_id)
    return [
        {
            "step_id": step_id,
            "id": userland_id,
            "index": index,
            "name": name,
            "op": op,
            "status": _step_status(done=bool(done), failed=bool(failed)),
            "attempts": attempts,
            "started_at": rfc3339(started_ns // 1_000_000) if started_ns else None,
            "duration_ms": duration_ns / 1_000_000 if done else None,
            "due_at": rfc3339(due_ms),
            "error": _raw(error),
        }
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


def _raw(json: bytes | None) -> Raw | None:
    return None if json is None else Raw(json)
