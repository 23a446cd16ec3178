"""One run, in full: its request, what happened since, what it waits for, and its answer."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from stephttp._wire import capsule
from stephttp._wire.ids import CAPSULE
from stephttp.engine.model.run import RunStatus
from stephttp.engine.reading.run_list import OpenWait, RunRow, load_row
from stephttp.engine.reading.step_detail import StepDetail, output_of, step_detail
from stephttp.engine.reading.waterfall import WaterfallSpan, waterfall
from stephttp.engine.rules.results import render
from stephttp.engine.traces.otlp import Span
from stephttp.engine.traces.spans import load

MASKED = "••••••"
"""What is shown of a secret."""

_SECRET_IN_ANSWERS = frozenset({"set-cookie", "authorization", "x-api-key"})


@dataclass(frozen=True, slots=True)
class Header:
    """A header. `masked`: its value is a secret, and is not told."""

    name: str
    value: str
    masked: bool = False


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """The request that began a run.

    Attributes:
        origin: scheme, host and port of the application.
        body: `None`: it was not sent to the engine.
        headers: those that the SDK keeps for re-entries; `None` if it sent none: those of a run
            that never waited are not kept, nor those of other SDKs' runs.
        sealed: there are more, which only the application can read.
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
    """The answer that a run ended with."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event that belongs to a run: one of its steps sent it, or waited for it (`received`)."""

    event_id: str
    name: str | None
    step_id: str
    received: bool


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run in full.

    Attributes:
        row: what the list of runs tells of it.
        retries: further attempts that what fails gets.
        result: the answer; `None` while it goes on.
        steps: in the order in which they were first reported.
        spans: for a waterfall, by their begin.
        user_spans: of OpenTelemetry, made by the code in it; `step_id` says in which step.
        events: what it has sent and what it has waited for. `name` is `None` if the event is no
            longer stored.
        invoked_by: run and step that wait for its result.
        reruns: runs that repeat it.
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
    invoked_by: tuple[str, str] | None
    reruns: tuple[str, ...]

    @property
    def waiting_for(self) -> tuple[OpenWait, ...]:
        """What it waits for, what is due first coming first."""
        return self.row.waiting_for


def run_detail(connection: sqlite3.Connection, run_id: str, now_ms: int) -> RunDetail:
    """One run.

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
    shown = tuple(step_detail(step) for step in steps if step["step_id"] != CAPSULE)
    history = connection.execute(_HISTORY, values).fetchall()
    inviter, _, step_id = (found["invoked_by"] or "").partition(".")
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
        invoked_by=(inviter, step_id) if inviter else None,
        reruns=tuple(rerun for (rerun,) in connection.execute(_RERUNS, values)),
    )


_RUN = """
SELECT app_id, fn_id, sdk, event_id, retries, invoked_by, method, domain, path, query,
       content_type, ip, error, head, output, body
FROM runs WHERE run_id = ?"""

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

_RERUNS = "SELECT run_id FROM runs WHERE rerun_of = ? ORDER BY seq"


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
            *(Header(name, value) for name, value in kept.headers),
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


def _result(status: RunStatus, row: sqlite3.Row) -> FinalResponse | None:
    if not status.ended:
        return None
    answer = render(status, row["output"], row["head"], row["error"])
    headers = tuple(
        Header(name, MASKED, masked=True)
        if name.lower() in _SECRET_IN_ANSWERS
        else Header(name, value)
        for name, value in answer.headers
    )
    return FinalResponse(answer.status, headers, answer.body)
