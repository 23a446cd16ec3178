"""Runs and their steps, as the engine remembers them; the statuses of a run."""

from __future__ import annotations

from enum import StrEnum

from msgspec import field

from stephttp.engine.model.function import Function
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.timer import Timer
from stephttp.engine.model.values import Value


class RunStatus(StrEnum):
    """Where a run stands.

    `SYNC`: its handler still answers the first request; the engine only records.
    `ASYNC`: the engine drives it, so it always has at least one open timer.
    """

    SYNC = "sync"
    ASYNC = "async"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    ended: bool
    """Whether the run is over, so that it cannot change any more."""
    wire: str
    """The protocol's name for it."""

    def __init__(self, name: str) -> None:
        self.ended = name not in ("sync", "async")
        self.wire = name.capitalize() if self.ended else "Running"


class Run(Value, frozen=True, gc=False):
    """The part of a run that transitions read and change.

    Attributes:
        retries: further attempts that a failed step or handler gets.
        request_version: what the SDK speaks; -1 while unknown.
        job_id: names the present resume; constant over its repetitions.
        attempt: counted failures of the present resume.
        unreached: uncounted failures of the present resume.
        idle: answers in a row that brought the run no further.
        step_count: how many steps are known, without the SDK's own.
        state_size: bytes of all memos.
        output: the result as it arrived: the data of `RunComplete`, or a body (then `head` is set).
            Not loaded with a snapshot.
        took_ns: how long the handler says it took; only if that ends the run in its first phase.
            Not loaded.
        head: status and headers of a result that was a plain answer, as JSON. Not loaded.
        error: why the run failed, as JSON `{"name", "message"}`. Not loaded.
        cause: how the call failed that was the last one. Neither stored nor loaded.
        invoked_by: `<run id>.<step id>` of the step that waits for the result of this run.
        fn_id: the endpoint that it is a run of.
        began_ms: when its request came in; 0 of a run that was not loaded. Never changed.
        is_of_function: whether it is a run of a function. Never changed.
        has_turn: whether its calls have to pass gates, or have a priority. Not set in a run that
            was not loaded.
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
    state_size: int = 0
    last_error: str | None = None
    ended_ms: int | None = None
    took_ns: int | None = None
    output: bytes | None = None
    head: bytes | None = None
    error: bytes | None = None
    cause: str | None = None
    invoked_by: str | None = None
    fn_id: str = ""
    began_ms: int = 0
    is_of_function: bool = False
    has_turn: bool = False


class NewRun(Value, frozen=True, gc=False):
    """The part of a run that never changes after its first checkpoint.

    Attributes:
        digest: of the first checkpoint's bytes; it differs if another run has the same id.
        body: the original request's body; `None` if it was not captured.
        sdk: what the `X-Inngest-SDK` header of the first checkpoint said.
        began_ms: when the request came in, or when the engine itself started the run.
        reads_state: whether its re-entries may carry its state.
        rerun_of: the run whose request this one repeats.
        events: the events that started it, as a JSON array, if it is a run of a function.
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
    events: bytes | None = None


class Known(Value, frozen=True, gc=False):
    """The part of a step that was reported before which a transition needs."""

    attempts: int
    resolved: bool


HIDDEN = 0
"""The number of steps that are the SDK's own, which are neither counted nor shown."""


class Step(Value, frozen=True, gc=False):
    """A step to be written; one that is known keeps its place, its name and its ids.

    Attributes:
        seq: its place among the run's steps, from 1; or `HIDDEN`.
        opts: the options that the handler gave, as JSON.
        edited: input as JSON that replaces the handler's.
        branch: the branch of the handler that came to it, where the SDK says so.
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
    branch: str = ""


class Snapshot(Value, frozen=True, gc=False):
    """A run as a transition sees it: of its steps only those that the input names.

    Attributes:
        endpoints: the endpoints that the input invokes, by name.
        functions: those that are functions.
        signals: the steps that wait for its signals, as run id and step id, by name.
    """

    run: Run
    steps: dict[str, Known] = field(default_factory=dict)
    timers: dict[str, Timer] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    signals: dict[str, tuple[str, str]] = field(default_factory=dict)

    def is_superseded(self, job_id: str, generation: int) -> bool:
        """Say whether the run has started a later generation of a job, counted from 1."""
        jobs = {self.run.job_id: self.run.attempt}
        jobs |= {timer.job_id: timer.attempt for timer in self.timers.values() if timer.job_id}
        return generation < jobs.get(job_id, 0) + 1
