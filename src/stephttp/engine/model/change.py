"""The decision of a transition, as one value, which is stored whole or not at all."""

from __future__ import annotations

from enum import StrEnum

from stephttp.engine.model.function_start import Start
from stephttp.engine.model.run import NewRun, Run, Step
from stephttp.engine.model.timer import Timer
from stephttp.engine.model.values import Value


class Past(StrEnum):
    """The kind of an entry in a run's history.

    `CALL`: a call of the endpoint that was answered. `UNREACHED`: one that did not reach the
    handler; those in a row are one entry. `ATTEMPT`: an attempt of a step that failed, and was
    repeated. `REQUEST`: the handler's own failure in the first request.
    """

    CALL = "call"
    UNREACHED = "unreached"
    ATTEMPT = "attempt"
    REQUEST = "request"


class Entry(Value, frozen=True, gc=False):
    """An entry in the history of a run, for people.

    Attributes:
        step_id: the step; `RESUME` if it concerns the handler as a whole.
        attempt: how many attempts had failed before.
        error: why it failed, as JSON.
    """

    kind: Past
    step_id: str
    job_id: str
    attempt: int
    started_ms: int
    ended_ms: int
    error: bytes | None = None


class RunWarning(Value, frozen=True, gc=False):
    """A warning of an SDK about a run, for people.

    Attributes:
        kind: what it is about, in the SDK's words.
        step_id: the step that it is about; empty for the run as a whole.
        at_ms: when it was reported.
    """

    kind: str
    step_id: str
    at_ms: int
    message: str


class Change(Value, frozen=True, gc=False):
    """The decision of a transition. It is stored as a whole, or not at all.

    Attributes:
        steps: new or changed steps.
        resolved: memos of known steps whose wait is over.
        seen: steps whose wait ended during a call, which is over now. Only the next call knows of
            them, so they come after all that this one has reported.
        timers: new or moved timers.
        dropped: timers that are no longer open.
        ended: the run ended just now: its timers are deleted, and waiting readers are woken.
        call: the endpoint must be called now.
        invoked: new runs of endpoints that this one has started, each with its first change.
        starts: functions that it starts.
        displaced: waits (run id, step id) that another step took over; now only their timeout
            can end them.
        others: changes of other runs that followed from this one.
        history: entries for people.
        warnings: likewise.
        began: the run, if it is new.
        looks_back: a wait has more events before it than could be looked at at once.
        held_ms: when events are due that are held for functions which this one has invoked.
        announced: an event about the end of the run was stored, which may start functions and end
            waits.
    """

    run: Run
    steps: tuple[Step, ...] = ()
    resolved: tuple[tuple[str, bytes], ...] = ()
    seen: tuple[str, ...] = ()
    timers: tuple[Timer, ...] = ()
    dropped: tuple[str, ...] = ()
    ended: bool = False
    call: bool = False
    invoked: tuple[tuple[NewRun, Change], ...] = ()
    starts: tuple[Start, ...] = ()
    displaced: tuple[tuple[str, str], ...] = ()
    others: tuple[Change, ...] = ()
    history: tuple[Entry, ...] = ()
    warnings: tuple[RunWarning, ...] = ()
    began: NewRun | None = None
    looks_back: bool = False
    held_ms: int | None = None
    announced: bool = False
