"""How runs of functions start. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw

from stephttp.engine.model.change import Change
from stephttp.engine.model.function_start import Start, StartingEvent
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import NewRun, Run, RunStatus
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id, new_ulid
from stephttp.engine.rules.event_sessions import read_meta
from stephttp.engine.rules.functions.run_timers import run_timers
from stephttp.engine.rules.nesting import DEEPEST, is_deep

INVOKED = "inngest/function.invoked"
"""The name of the event with which one run starts another."""
_EMPTY = Raw(b"{}")


def begin(start: Start, at: Moment, events: Sequence[StartingEvent] = ()) -> tuple[NewRun, Change]:
    """Return a new run of a function, with its first change: like a run that waits, it is called.

    Args:
        events: all that start it, if that is more than one.
    """
    function, event = start.function, start.event
    run_id = start.run_id or new_ulid(at.now_ms, at.rng)
    new = NewRun(
        run_id=run_id,
        app_id=function.app_id,
        slug=function.slug,
        # No SDK reports the start of this run; this digest only has to differ from all others.
        digest=sha256(run_id.encode()).digest(),
        event_id=event.event_id,
        event_name=event.name,
        event_ts=event.ts,
        fn=function.fn,
        domain=function.domain,
        method=function.method,
        path=function.path,
        query=function.query or "",
        content_type="application/json",
        ip="",
        sdk=function.sdk,
        created_ms=at.now_ms,
        began_ms=at.now_ms,
        events=b"[" + b",".join(_with_user(one.body) for one in events or [event]) + b"]",
    )
    run = Run(
        run_id=run_id,
        status=RunStatus.ASYNC,
        retries=function.retries,
        request_version=-1,  # each run learns what its SDK speaks
        job_id=new_job_id(at.rng),
        invoked_by=start.invoked_by,
        fn_id=function.fn_id,
        is_of_function=True,
    )
    timers = run_timers(start.options, event.body, at)
    return new, Change(run, timers=(Timer(RESUME, TimerKind.RESUME, at.now_ms), *timers))


def first_event(new: NewRun) -> tuple[StartingEvent, Any]:
    """Return the event that began the run of a function, and the same decoded."""
    body = msgspec.json.decode(new.events or b"[{}]", type=list[Raw])[0]
    event = StartingEvent(new.event_id, new.event_name, new.event_ts, bytes(body))
    return event, msgspec.json.decode(body)


def invoked_event(
    function: Endpoint, payload: dict[str, Any], at: Moment, invoked_by: str | None, due_ms: int
) -> StartingEvent:
    """Return the event with which a function is invoked.

    Args:
        function: which one.
        payload: what it is invoked with: `data`, and perhaps `user`, `v` and `meta`.
        invoked_by: as `Run.invoked_by`.
        due_ms: when the step that invokes it stops waiting.

    Raises:
        Refused: its sessions are not acceptable, or it is nested too deeply for an event.
    """
    for name in ("data", "user"):
        if is_deep(payload.get(name)):
            raise Refused(f"payload.{name}: nested more than {DEEPEST} levels deep")
    event_id = new_ulid(at.now_ms, at.rng)
    data = payload.get("data")
    own = {"fn_id": function.slug, "correlation_id": invoked_by, "expire": due_ms}
    body: dict[str, Any] = {
        "data": (data if isinstance(data, dict) else {}) | {"_inngest": own},
        "id": event_id,
        "name": INVOKED,
        "ts": at.now_ms,
    }
    for name, kind in (("user", dict), ("v", str)):
        if isinstance(payload.get(name), kind):
            body[name] = payload[name]
    meta = read_meta(payload.get("meta"), "payload.meta")
    if meta is not None:
        body["meta"] = meta
    return StartingEvent(event_id, INVOKED, at.now_ms, msgspec.json.encode(body))


def _with_user(event: bytes) -> bytes:
    """Return an event as functions get it: with a `user`, if that is an empty one."""
    fields = msgspec.json.decode(event, type=dict[str, Raw])
    return event if "user" in fields else msgspec.json.encode(fields | {"user": _EMPTY})
