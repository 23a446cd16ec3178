"""One run, in full: its request, what happened since, what it waits for, its warnings, and
its response.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from msgspec import Raw, Struct

from stephttp._wire import capsule
from stephttp._wire.cut_entries import read_entry
from stephttp._wire.ids import CAPSULE, CUT_NAME, is_own
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.run_metadata import RunMetadata
from stephttp.engine.reading.run_list import load_row
from stephttp.engine.reading.run_rows import OpenWait, RunRow, load_limits
from stephttp.engine.reading.step_detail import StepDetail, output_of, step_detail
from stephttp.engine.reading.waterfall import WaterfallSpan, waterfall
from stephttp.engine.rules.event_sessions import sessions_of
from stephttp.engine.rules.results import render
from stephttp.engine.store import metadata_rows
from stephttp.engine.traces.otlp import Span
from stephttp.engine.traces.spans import load

MASKED = "••••••"
"""Stands for a secret."""

_SECRET_IN_RESPONSES = frozenset({"set-cookie", "authorization", "x-api-key"})


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """A header. `masked`: its value is secret, and `MASKED` stands for it."""

    name: str
    value: str
    masked: bool


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """The request that began a run.

    Attributes:
        origin: scheme, host and port of the application.
        body: `None`: the SDK did not send it to the engine.
        headers: those that the SDK kept for re-entries; `None` if it kept none, as for a run that
            never waited, and as other SDKs do.
        sealed: there are more headers, which only the application can read.
        client: address of the caller.
    """

    method: str
    origin: str
    path: str
    query: str
    content_type: str
    body: bytes | None
    headers: tuple[Header, ...] | None
    sealed: bool
    client: str


@dataclass(frozen=True, slots=True)
class FinalResponse:
    """The response that a run ended with."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event that a step of a run sent, or waited for (`received`)."""

    event_id: str
    name: str | None
    step_id: str
    received: bool


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning of the SDK about a run.

    Attributes:
        step_id, step: hash and name of the step that it is about; `None`: of the run as a whole.
    """

    kind: str
    step_id: str | None
    step: str | None
    message: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run in full.

    Attributes:
        row: the run as the list of runs shows it.
        retries: further attempts that a failed step or handler gets.
        result: the response; `None` until the run ends.
        steps: in the order in which they were first reported.
        spans: for a waterfall, by start.
        user_spans: OpenTelemetry spans of the user's code; `step_id` says in which step.
        events: the events that it sent or waited for. `name` is `None` if the event is no longer
            stored.
        warnings: in the order in which they were reported.
        metadata: what was attached to it, and to its steps.
        sessions: ids of the sessions to which it belongs, by their keys.
        invoked_by: the run and the step that wait for its result.
        reruns: the runs that repeat it.
        started_by: the event that started it, as JSON, if it is a run of a function; then `result`
            has what that returned, or the error with which it failed.
        event_name: the name of that event.
        function: the name of the function.
        limits: what may cancel it: events (kind `cancel`), and timeouts (`start`, `finish`).
    """

    row: RunRow
    app_id: str
    fn_id: str
    sdk: str
    event_id: str
    retries: int
    request: SourceRequest
    result: FinalResponse | None
    steps: tuple[StepDetail, ...]
    spans: tuple[WaterfallSpan, ...]
    user_spans: tuple[Span, ...]
    events: tuple[SentEvent, ...]
    warnings: tuple[Warned, ...]
    metadata: tuple[RunMetadata, ...]
    sessions: dict[str, str]
    invoked_by: tuple[str, str] | None
    reruns: tuple[str, ...]
    started_by: bytes | None
    event_name: str
    function: str | None
    limits: tuple[OpenWait, ...]

    @property
    def waiting_for(self) -> tuple[OpenWait, ...]:
        """What the run waits for, by due time."""
        return self.row.waiting_for


def run_detail(connection: sqlite3.Connection, run_id: str, now_ms: int) -> RunDetail:
    """Return one run.

    Raises:
        Refused: there is no such run.
    """
    row = load_row(connection, run_id, now_ms)
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    values = (run_id,)
    found = cursor.execute(_RUN, values).fetchone()
    steps = cursor.execute(_STEPS, values).fetchall()
    kept = next((step["memo"] for step in steps if step["step_id"] == CAPSULE), None)
    cut = _cut_off(steps)
    # A step that the end of its run left open was cut off by that.
    ended_ns = None if row.ended_ms is None else row.ended_ms * 1_000_000
    shown = tuple(
        step_detail(step, cut.get(step["step_id"], ended_ns))
        for step in steps
        if not is_own(step["step_id"], step["userland_id"])
    )
    history = connection.execute(_HISTORY, values).fetchall()
    invoker, _, step_id = (found["invoked_by"] or "").partition(".")
    events = connection.execute(_EVENTS, values)
    return RunDetail(
        row=row,
        app_id=found["app_id"],
        fn_id=found["fn_id"],
        sdk=found["sdk"],
        event_id=found["event_id"],
        retries=found["retries"],
        request=_request(found, kept),
        result=_result(row.status, found),
        steps=shown,
        spans=waterfall(row, shown, history, now_ms),
        user_spans=tuple(load(connection, run_id)),
        events=tuple(
            SentEvent(event_id, name, sender, bool(received))
            for event_id, name, sender, received in events
        ),
        warnings=tuple(Warned(*row) for row in connection.execute(_WARNINGS, values)),
        metadata=tuple(metadata_rows.load(connection, run_id)),
        sessions={} if found["events"] is None else sessions_of(found["events"]),
        invoked_by=(invoker, step_id) if invoker else None,
        reruns=tuple(rerun for (rerun,) in connection.execute(_RERUNS, values)),
        started_by=_started_by(found["events"]),
        event_name=found["event_name"],
        function=found["function"],
        limits=load_limits(connection, run_id),
    )


_RUN = """
SELECT runs.app_id, fn_id, sdk, event_id, event_name, retries, invoked_by, method, domain, path,
       runs.query, content_type, ip, error, head, output, body, events, functions.name AS function
FROM runs LEFT JOIN functions USING (fn_id) LEFT JOIN function_runs USING (run_id)
WHERE run_id = ?"""

_STEPS = """
SELECT step_id, seq, userland_id, userland_index, name, op, attempts, started_ns, duration_ns,
       due_ms, opts, edited, error, memo
FROM steps LEFT JOIN timers USING (run_id, step_id) WHERE run_id = ? ORDER BY seq"""

_HISTORY = """
SELECT kind, step_id, attempt, started_ms, ended_ms, tries, error FROM history
WHERE run_id = ? ORDER BY started_ms"""

_EVENTS = """
SELECT links.event_id, events.name, links.step_id, links.received
FROM links LEFT JOIN events USING (event_id) WHERE run_id = ? ORDER BY event_id"""

_WARNINGS = """
SELECT kind, nullif(warnings.step_id, ''), coalesce(userland_id, name), message, at_ms
FROM warnings LEFT JOIN steps USING (run_id, step_id) WHERE run_id = ?
ORDER BY at_ms, steps.seq, kind"""

_RERUNS = "SELECT run_id FROM runs WHERE rerun_of = ? ORDER BY seq"


def _cut_off(steps: Sequence[sqlite3.Row]) -> dict[str, int]:
    """Return when steps were cut off by the handler, by hash, in nanoseconds since the epoch."""
    found: dict[str, int] = {}
    for step in steps:
        if step["userland_id"] == CUT_NAME and step["memo"] is not None:
            cut = read_entry(output_of("", step["memo"]))
            if cut is not None and cut.void:
                found.pop(cut.step, None)
            elif cut is not None and not cut.late:
                found[cut.step] = step["started_ns"] + step["duration_ns"]
    return found


def _request(row: sqlite3.Row, memo: bytes | None) -> SourceRequest:
    headers, sealed = None, False
    if memo is not None:
        try:
            kept = capsule.read(output_of("", memo))
        except ValueError:
            kept = capsule.Capsule()
        sealed = kept.sealed is not None
        secrets = kept.secrets.headers if kept.secrets is not None else []
        headers = (
            *(Header(name, value, masked=False) for name, value in kept.headers),
            *(Header(name, MASKED, masked=True) for name, _ in secrets),
        )
    return SourceRequest(
        method=row["method"],
        origin=row["domain"],
        path=row["path"],
        query=row["query"],
        content_type=row["content_type"],
        body=row["body"],
        headers=headers,
        sealed=sealed,
        client=row["ip"],
    )


def _started_by(events: bytes | None) -> bytes | None:
    return None if events is None else bytes(msgspec.json.decode(events, type=list[Raw])[0])


def _result(status: RunStatus, row: sqlite3.Row) -> FinalResponse | None:
    if not status.ended:
        return None
    if row["events"] is not None and status is not RunStatus.CANCELLED:
        failed = status is RunStatus.FAILED
        body = (row["error"] if failed else row["output"]) or b"null"
        code = HTTPStatus.INTERNAL_SERVER_ERROR if failed else HTTPStatus.OK
        return FinalResponse(code, (), body)
    answer = render(status, row["output"], row["head"], row["error"])
    headers = tuple(
        Header(name, MASKED, masked=True)
        if name.lower() in _SECRET_IN_RESPONSES
        else Header(name, value, masked=False)
        for name, value in answer.headers
    )
    return FinalResponse(answer.status, headers, answer.body)
