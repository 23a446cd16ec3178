"""`RecordedRun`, `RecordedStep` and so on: what a test sees of a run, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from stephttp._core.step_kinds import KINDS
from stephttp.engine.model.timer import TimerKind
from stephttp.engine.reading.event_list import EventRow
from stephttp.engine.reading.run_detail import RunDetail
from stephttp.engine.reading.run_rows import OpenWait
from stephttp.engine.reading.step_detail import StepDetail

_WAITS = {
    TimerKind.SLEEP: "sleep",
    TimerKind.EVENT: "event",
    TimerKind.SIGNAL: "signal",
    TimerKind.INVOKE: "invoke",
    TimerKind.GATEWAY: "fetch",
    TimerKind.RETRY: "retry",
}
_CALLS = frozenset({TimerKind.RESUME, TimerKind.PLANNED, TimerKind.RACING, TimerKind.WAKE})


@dataclass(frozen=True, slots=True)
class RecordedError:
    """A failure, as the engine has it.

    Attributes:
        name: the name of the exception's class.
        message: what it says.
        stack: its traceback as text; empty if it was not reported.
    """

    name: str
    message: str
    stack: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A step of a run.

    Attributes:
        id: as the handler names it.
        index: which use of this id it is, from 0.
        tool: the tool that was used, such as `run`, `sleep` or `wait_for_event`.
        state: `completed`, `failed`, `waiting` or `cancelled`: the wait was cut off, by the handler
            or with its run.
        attempts: how often it was executed.
        result: what it gave, as JSON; `None` until it ends, or if it failed.
        error: its last failure; `None` if it has not failed, or has succeeded since.
        arguments: the positional arguments that it was executed with, as JSON; `None` if it has no
            arguments, or they have no JSON form.
        started: when it began; of a step that was retried, when its last attempt did.
        duration: seconds; `None` until it ends.
    """

    id: str
    index: int
    tool: str
    state: str
    attempts: int
    result: Any
    error: RecordedError | None
    arguments: list[Any] | None
    started: datetime
    duration: float | None

    @property
    def failed(self) -> bool:
        """Whether it has failed for good."""
        return self.state == "failed"


@dataclass(frozen=True, slots=True)
class RecordedWait:
    """Something that a run waits for.

    Attributes:
        kind: `sleep`, `event`, `signal`, `invoke`, `fetch` or `retry`; `call`: the handler is about
            to be called.
        step: the step that waits; `None` if the run as a whole does.
        key: the name of the event or signal.
        until: when the wait ends at the latest.
    """

    kind: str
    step: str | None
    key: str | None
    until: datetime

    def __str__(self) -> str:
        return f"{waits_for(self)} until {self.until:%Y-%m-%d %H:%M:%S}"


@dataclass(frozen=True, slots=True, repr=False)
class RecordedRun:
    """A run, as it stands now. `str(run)` and `print(run)` show its steps over time.

    Attributes:
        id: a ULID.
        endpoint: the id of the endpoint.
        status: `running`, `waiting`, `completed`, `failed` or `cancelled`.
        steps: in the order in which they were first reported.
        waits: what it waits for, by due time.
        error: why it failed; `None` if it did not.
        status_code: the status of the response that it ended with; `None` before.
        warnings: what the SDK or the engine warn of.
        detail: everything that the engine knows of it.
    """

    id: str
    endpoint: str
    status: str
    steps: tuple[RecordedStep, ...]
    waits: tuple[RecordedWait, ...]
    error: RecordedError | None
    status_code: int | None
    warnings: tuple[str, ...]
    detail: RunDetail

    @property
    def completed(self) -> bool:
        """Whether it has ended with the answer of its handler."""
        return self.status == "completed"

    @property
    def failed(self) -> bool:
        """Whether it has failed."""
        return self.status == "failed"

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.status == "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status in ("completed", "failed", "cancelled")

    def step(self, step_id: str, index: int = 0) -> RecordedStep:
        """Return one step.

        Args:
            step_id: as the handler names it.
            index: which use of this id, from 0.

        Raises:
            LookupError: the run has none; the message lists those that it has.
        """
        for step in self.steps:
            if step.id == step_id and step.index == index:
                return step
        known = ", ".join(repr(step.id) for step in self.steps) or "(no step)"
        raise LookupError(f"run {self.id} has no step {step_id!r}; it has: {known}\n\n{self}")

    def __str__(self) -> str:
        from stephttp.testing.run_text import text_of

        return text_of(self)

    def __repr__(self) -> str:
        return f"<RecordedRun {self.endpoint} {self.status}, {len(self.steps)} steps>"


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event that the application or the test has sent. Nothing leaves the test.

    Attributes:
        name: of the event.
        data: what was sent with it.
        id: the id that its sender chose; empty if it chose no id.
        received: when it came.
    """

    name: str
    data: dict[str, Any]
    id: str
    received: datetime


def waits_for(wait: RecordedWait) -> str:
    """Return what a run waits for as text, without the time."""
    step = f" in step {wait.step!r}" if wait.step else ""
    key = f" {wait.key!r}" if wait.key else ""
    return f"{wait.kind}{key}{step}"


def recorded_event(row: EventRow) -> RecordedEvent:
    """Return an event as tests see it."""
    data = msgspec.json.decode(row.body).get("data") or {}
    return RecordedEvent(row.name, data, row.id or "", moment(row.received_ms))


def recorded(detail: RunDetail) -> RecordedRun:
    """Return a run as tests see it."""
    row = detail.row
    return RecordedRun(
        id=row.run_id,
        endpoint=row.endpoint,
        status=row.state.value,
        steps=tuple(_step(step, is_over=row.state.value == "cancelled") for step in detail.steps),
        waits=tuple(map(_wait, detail.waiting_for)),
        error=read_error(row.error),
        status_code=None if detail.result is None else detail.result.status,
        warnings=tuple(warning.message for warning in detail.warnings),
        detail=detail,
    )


def _step(step: StepDetail, *, is_over: bool) -> RecordedStep:
    opts = {} if step.opts is None else msgspec.json.decode(step.opts)
    given = opts.get("input") if isinstance(opts, dict) else None
    return RecordedStep(
        id=step.title,
        index=step.index,
        tool=KINDS.get(step.op, "run"),
        state="cancelled" if is_over and step.state == "waiting" else step.state,
        attempts=step.attempts,
        result=None if step.output is None else msgspec.json.decode(step.output),
        error=read_error(step.error),
        arguments=given if isinstance(given, list) else None,
        started=moment(step.started_ms),
        duration=None if step.duration_ms is None else step.duration_ms / 1000,
    )


def _wait(wait: OpenWait) -> RecordedWait:
    kind = "call" if wait.kind in _CALLS else _WAITS.get(wait.kind, wait.kind.value)
    return RecordedWait(kind, wait.step, wait.key, moment(wait.due_ms))


def read_error(raw: bytes | None) -> RecordedError | None:
    """Return a failure that is stored as JSON."""
    if raw is None:
        return None
    read = msgspec.json.decode(raw)
    if not isinstance(read, dict):
        return RecordedError("Error", str(read))
    names = (read.get(name) for name in ("name", "message", "stack"))
    name, message, stack = (one if isinstance(one, str) else "" for one in names)
    return RecordedError(name or "Error", message, stack)


def moment(ms: float) -> datetime:
    """Return a point in time that is given in milliseconds since the epoch."""
    return datetime.fromtimestamp(ms / 1000, UTC)
