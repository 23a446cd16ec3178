"""Timers and their kinds: due work of a run, and what it waits for."""

from __future__ import annotations

from enum import StrEnum

from stephttp.engine.model.values import Value

RESUME = ""
"""The `step_id` of the timer that stands for calling the endpoint again."""


LEASE = "@lease"
"""The `step_id` of the timer that a sync-phase run has while a process holds a lease of it."""


CANCEL_ON = "@cancel."
"""The beginning of the `step_id` of a timer for an event that cancels the run; a number follows."""


START_TIMEOUT, FINISH_TIMEOUT = "@start", "@finish"
"""The `step_id` of the timers for the timeouts of a run."""


class TimerKind(StrEnum):
    """Why something is due.

    `SLEEP`: a sleep step ends. `RETRY`: a failed step may be tried again. `RESUME`: the endpoint
    must be called. `EVENT`, `SIGNAL`, `INVOKE`: a wait for an event, a signal, or the end of an
    invoked run times out. `PLANNED`: the endpoint must be called for one step. `RACING`: the same,
    but the endpoint is called again when it ends, although others that were planned with it still
    run. `GATEWAY`: the engine has an HTTP request to make for the step. `WAKE`: something that the
    run waited for came while its endpoint was being called, so it must be called once more.
    `LEASE`: the process that answers the first request did not renew its lease. `ORPHAN`: nor in
    the time that it got afterwards; the run is taken over. Three are of the run as a whole, and no
    transition sees them: `CANCEL`: it can no longer be cancelled by an event. `START`: it was not
    called in time. `FINISH`: nor did it end in time.
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
    CANCEL = "cancel"
    START = "start"
    FINISH = "finish"


TARGETED = frozenset({TimerKind.PLANNED, TimerKind.RACING})
"""Timers that stand for calls of the endpoint for one step."""


SEPARATE = TARGETED | {TimerKind.GATEWAY}
"""Timers that are worked on one by one, beside the run's own call."""


WAITS = frozenset({TimerKind.EVENT, TimerKind.SIGNAL, TimerKind.INVOKE, TimerKind.GATEWAY})
"""Timers of waits that an event, a signal, a run or an answer can end before they are due."""


OF_RUN = frozenset({TimerKind.CANCEL, TimerKind.START, TimerKind.FINISH})
"""Timers of a run as a whole: they are kept beside it, and do not keep it going."""


class Timer(Value, frozen=True, gc=False):
    """A piece of work that is due at some time. Within a run, `step_id` identifies it.

    Attributes:
        key: what ends the wait before it is due: the name of an event or of a signal, or the id
            of the invoked run; `None` if nothing does.
        condition: CEL that an event must fulfil in addition.
        match_keys, match_values: the part of the condition by which an event finds the wait; see
            `rules.conditions.equalities`.
        job_id, attempt, unreached: of a `TARGETED` timer, what a `Run` has for its own call;
            `attempt` also of a `GATEWAY` timer: requests that failed; `unreached` also of a lease:
            starts of the engine since it was renewed.
        lookback_ms: of a new wait for an event: it also sees those that arrived this long before;
            not stored.
        payload: of a `GATEWAY` timer, the request to make, as JSON; of a timer for a call of the
            endpoint, what its earlier tries met (`rules.vain_calls`); of a `FINISH` timer of a run
            that was not called yet, how many milliseconds after that call it is due.
    """

    step_id: str
    kind: TimerKind
    due_ms: int
    key: str | None = None
    condition: str | None = None
    match_keys: str | None = None
    match_values: str | None = None
    job_id: str = ""
    attempt: int = 0
    unreached: int = 0
    payload: bytes | None = None
    lookback_ms: int = 0
