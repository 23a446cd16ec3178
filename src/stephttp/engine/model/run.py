"""What the engine remembers: runs, steps, timers. Plain values, no behaviour beyond reading."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import asdict

from stephttp.errors import StephttpError

RESUME = ""
"""The `step_id` of the timer that stands for calling the endpoint again."""

LEASE = "@lease"
"""The `step_id` of the timer that a sync-phase run has while a process holds a lease of it."""

Topic = tuple[str, str]
"""The name of a channel, and of a topic in it: what listeners of a stream listen to."""


class Value(Struct, frozen=True, gc=False):
    """What cannot be part of a reference cycle. Its `repr` leaves out bytes: people sent them."""

    def __repr__(self) -> str:
        shown = (f"{k}={v!r}" for k, v in asdict(self).items() if not isinstance(v, bytes))
        return f"{type(self).__name__}({', '.join(shown)})"


class Refused(StephttpError):
    """What was asked for cannot be done; the text names the field.

    Attributes:
        status: the HTTP status that an API caller gets.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class RunStatus(StrEnum):
    """Where a run stands.

    `SYNC`: its handler still answers the first request; the engine only takes notes.
    `ASYNC`: the engine drives it, so it always has at least one open timer.
    """

    SYNC = "sync"
    ASYNC = "async"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the run any more."""
        return self not in (RunStatus.SYNC, RunStatus.ASYNC)

    @property
    def wire(self) -> str:
        """The protocol's name for it."""
        return self.value.capitalize() if self.ended else "Running"


class TimerKind(StrEnum):
    """Why something is due.

    `SLEEP`: a sleep step ends. `RETRY`: a failed step may be tried again. `RESUME`: the endpoint
    must be called. `EVENT`, `SIGNAL`, `INVOKE`: the run has waited long enough for an event, a
    signal, or the end of a run that it invoked. `PLANNED`: the endpoint must be called for one
    step. `RACING`: the same, and its end is told to the endpoint although others that were planned
    with it still run. `GATEWAY`: the engine has an HTTP request to make for the step. `WAKE`:
    something that the run waited for came while its endpoint was being called, so it must be
    called once more. `LEASE`: the process that answers the first request has not
    been heard of for too long. `ORPHAN`: nor after that was noticed; the run is taken over.
    """

    SLEEP = "sleep"
    RETRY = "retry"
    RESUME = "resume"
    LEASE = "lease"
    ORPHAN = "orphan"
    EVENT = "event"
    SIGNAL = "signal"
    INVOKE = "invoke"
    PLANNED = "planned"
    RACING = "racing"
    GATEWAY = "gateway"
    WAKE = "wake"


TARGETED = frozenset({TimerKind.PLANNED, TimerKind.RACING})
"""Timers that stand for calls of the endpoint for one step."""

SEPARATE = TARGETED | {TimerKind.GATEWAY}
"""Timers that are worked on one by one, beside the run's own call."""

WAITS = frozenset({TimerKind.EVENT, TimerKind.SIGNAL, TimerKind.INVOKE, TimerKind.GATEWAY})
"""Timers that something from outside can end."""


class Timer(Value, frozen=True, gc=False):
    """One piece of due work. The key within a run is `step_id` (`RESUME` for the endpoint).

    Attributes:
        key: what ends the wait before it is due: the name of an event or of a signal, or the id
            of the invoked run. `None`: nothing.
        condition: CEL that an event must fulfil as well.
        job_id, attempt, unreached: of a `TARGETED` timer, what a `Run` has for its own call.
        payload: of a `GATEWAY` timer, the request to make, as JSON.
    """

    step_id: str
    kind: TimerKind
    due_ms: int
    key: str | None = None
    condition: str | None = None
    job_id: str = ""
    attempt: int = 0
    unreached: int = 0
    payload: bytes | None = None


class Run(Value, frozen=True, gc=False):
    """The part of a run that transitions read and change.

    Attributes:
        retries: further attempts that a failed step or handler gets.
        request_version: what the SDK speaks; -1 while unknown.
        job_id: names the present resume; constant over its repetitions.
        attempt: counted failures of the present resume.
        unreached: uncounted failures of the present resume.
        idle: answers in a row that brought the run no further.
        step_count: how many steps are known.
        output: the result as it arrived: `RunComplete`'s data, or a body (then `head` is set).
            Not loaded with a snapshot.
        took_ns: how long the handler says it took; only if that ends the run in its first phase.
            Not loaded.
        head: status and headers of a result that was a plain answer, as JSON. Not loaded.
        error: why the run failed, as JSON `{"name", "message"}`. Not loaded.
        invoked_by: `<run id>.<step id>` of the step that waits for the result of this run.
        fn_id: the endpoint that it is a run of.
        began_ms: when its request came in; 0 of a run that was not loaded. Never changed.
    """

    run_id: str
    status: RunStatus
    retries: int = 0
    request_version: int = -1
    job_id: str = ""
    attempt: int = 0
    unreached: int = 0
    idle: int = 0
    step_count: int = 0
    last_error: str | None = None
    ended_ms: int | None = None
    took_ns: int | None = None
    output: bytes | None = None
    head: bytes | None = None
    error: bytes | None = None
    invoked_by: str | None = None
    fn_id: str = ""
    began_ms: int = 0


class Endpoint(Value, frozen=True, gc=False):
    """The latest that is known of an endpoint; enough to begin a run of it."""

    app_id: str
    fn_id: str
    slug: str
    event_name: str
    fn: str
    domain: str
    method: str
    path: str
    sdk: str
    retries: int
    request_version: int
    reads_state: bool = False


class Event(Value, frozen=True, gc=False):
    """An event that somebody sent.

    Attributes:
        event_id: the engine's own id for it, a ULID.
        dedupe: the sender's id; a later event with the same one is not acted upon.
        body: the event as JSON, just as runs get it.
    """

    event_id: str
    name: str
    dedupe: str | None
    received_ms: int
    ts: int
    body: bytes


class Cancellation(Value, frozen=True, gc=False):
    """An order to cancel the runs of a function that began in a span of time.

    Attributes:
        app, function: as the caller named them: by id, or by origin and slug.
        condition: CEL over the event that began the run.
    """

    cancellation_id: str
    app: str
    function: str
    started_after_ms: int | None
    started_before_ms: int
    condition: str | None
    created_ms: int


class Known(Value, frozen=True, gc=False):
    """What a transition must know of a step that was reported before."""

    attempts: int
    resolved: bool


class Step(Value, frozen=True, gc=False):
    """A step to be written; one that is known keeps its place, its name and its ids.

    Attributes:
        opts: what was asked for, as JSON.
        edited: input that it is to be run with, as JSON, whatever the handler says.
        memo: the exact JSON that `/actions` returns; `None` while the step is not over.
    """

    step_id: str
    seq: int
    userland_id: str | None
    userland_index: int
    name: str | None
    op: str
    memo: bytes | None
    attempts: int
    started_ns: int
    duration_ns: int
    error: bytes | None = None
    opts: bytes | None = None
    edited: bytes | None = None


class Past(StrEnum):
    """What an entry of a run's history tells of.

    `CALL`: a call of the endpoint that was answered. `UNREACHED`: one that did not reach the
    handler; those in a row are one entry. `ATTEMPT`: an attempt of a step that failed, and was
    repeated. `REQUEST`: the handler's own failure in the first request.
    """

    CALL = "call"
    UNREACHED = "unreached"
    ATTEMPT = "attempt"
    REQUEST = "request"


class Entry(Value, frozen=True, gc=False):
    """Something in the past of a run.

    Attributes:
        step_id: `RESUME`: it concerns the handler as a whole.
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


class Snapshot(Value, frozen=True, gc=False):
    """A run as a transition sees it: only what the happening mentions of the rest.

    Attributes:
        endpoints: what is known of the functions that are to be invoked.
        signals: who waits for the signals mentioned, as run id and step id.
    """

    run: Run
    steps: dict[str, Known] = {}
    timers: dict[str, Timer] = {}
    endpoints: dict[str, Endpoint] = {}
    signals: dict[str, tuple[str, str]] = {}


class Change(Value, frozen=True, gc=False):
    """What a transition decided. Everything in it is stored together, or not at all.

    Attributes:
        steps: new or changed steps.
        resolved: memos of known steps whose wait is over.
        timers: new or moved timers.
        dropped: timers that are no longer open.
        ended: the run ended just now: every timer goes, and waiting readers must be woken.
        call: the endpoint must be called now.
        invoked: new runs that this one has started, each with its first change.
        displaced: waits (run id, step id) of any run that only their timeout can end now.
        others: changes of other runs that followed from this one.
        history: what is to be remembered for people.
        began: the run, if it is new.
    """

    run: Run
    steps: tuple[Step, ...] = ()
    resolved: tuple[tuple[str, bytes], ...] = ()
    timers: tuple[Timer, ...] = ()
    dropped: tuple[str, ...] = ()
    ended: bool = False
    call: bool = False
    invoked: tuple[tuple[NewRun, Change], ...] = ()
    displaced: tuple[tuple[str, str], ...] = ()
    others: tuple[Change, ...] = ()
    history: tuple[Entry, ...] = ()
    began: NewRun | None = None


class NewRun(Value, frozen=True, gc=False):
    """The part of a run that never changes after its first checkpoint.

    Attributes:
        digest: of the first checkpoint's bytes, to tell a repeated request from a clash.
        body: the original request's body; `None` if it was not captured.
        sdk: what the `X-Inngest-SDK` header of the first checkpoint said.
        began_ms: when the request came in, or, of a run that the engine began, when that was.
        reads_state: whether its re-entries may carry its state.
        rerun_of: the run whose request this one repeats.
    """

    run_id: str
    app_id: str
    slug: str
    digest: bytes
    event_id: str
    event_name: str
    event_ts: int
    fn: str
    domain: str
    method: str
    path: str
    query: str
    content_type: str
    ip: str
    sdk: str
    created_ms: int
    began_ms: int
    body: bytes | None = None
    reads_state: bool = False
    rerun_of: str | None = None


class State(Value, frozen=True, gc=False):
    """What an SDK needs to know of a run that it goes on with.

    Attributes:
        memos: as JSON, by step id.
        failures: how often steps that are not done have failed, as the value of a header.
    """

    memos: bytes
    failures: str = ""


class Call(Value, frozen=True, gc=False):
    """One call of an endpoint: what to ask, and as which attempt.

    Attributes:
        step_id: the one step that is to be run; `RESUME`: whatever comes next.
        plan: steps that are met must be reported as planned, not run.
        fn_id: the endpoint, as `Run.fn_id`.
        reads_state: whether its SDK reads the state that comes along.
        state: what comes along.
    """

    run_id: str
    job_id: str
    attempt: int
    request_version: int
    event_name: str
    sdk: str
    domain: str
    method: str
    path: str
    query: str
    content_type: str
    body: bytes = b""
    step_id: str = RESUME
    plan: bool = False
    fn_id: str = ""
    reads_state: bool = False
    state: State | None = None


class Errand(Value, frozen=True, gc=False):
    """An HTTP request to make for a step; `spec` is what `gateway_request.read_gateway` made."""

    run_id: str
    step_id: str
    spec: bytes
