"""Inputs of transitions beside the run, as values: the moment, hints, failed calls, events,
cancellations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from stephttp._wire.opcodes import Op
from stephttp.engine.model.settings import Settings
from stephttp.engine.model.values import Value


@dataclass(frozen=True, slots=True)
class Moment:
    """The time, randomness and settings: the same moment for all that one unit of work does."""

    now_ms: int
    rng: Random
    settings: Settings


class Origin(Enum):
    """Where ops came from; see the table in `rules.transitions`."""

    CHECKPOINT = "checkpoint"
    ANSWER = "answer"


class Hints(Value, frozen=True, gc=False):
    """Retries and the SDK, from headers.

    Attributes:
        leaves: see `rules.answers.leaves_failed_steps`.
    """

    retry_after_ms: int | None = None
    no_retry: bool = False
    request_version: int | None = None
    leaves: bool = False


class FailureKind(Enum):
    """How a failed call counts.

    `COUNTED`: an attempt was used up. `TRANSIENT`: the handler was not reached, or could not
    start; tried again without end. `BROKEN`: the connection was accepted, and broke before the
    answer was complete. `FOREIGN`: what answered, or accepted the connection and closed it, is not
    the handler. Both are tried again within bounds, see `rules.vain_calls`. `FINAL`: it must not be
    tried again.
    """

    COUNTED = "counted"
    TRANSIENT = "transient"
    BROKEN = "broken"
    FOREIGN = "foreign"
    FINAL = "final"


UNANSWERED = frozenset({FailureKind.TRANSIENT, FailureKind.BROKEN, FailureKind.FOREIGN})
"""Failures in which the handler gave no answer; they use up no attempt."""


class CallFailure(Value, frozen=True, gc=False):
    """A call of the endpoint that failed.

    Attributes:
        name, message: what the run's error will say.
        retry_after_ms: the delay that the endpoint asked for.
        output: the result of the run if this was its last attempt.
        steps: the steps that were done before it failed.
        times: how often the request was sent in vain.
        error: the whole error as JSON, where it says more than name and message.
        cause: how it failed, as the event about the end of a run has it.
    """

    kind: FailureKind
    name: str
    message: str
    retry_after_ms: int | None = None
    output: bytes | None = None
    steps: Sequence[Op] = ()
    times: int = 1
    error: bytes | None = None
    cause: str | None = None


class EventArrival(Value, frozen=True, gc=False):
    """An event as it is stored.

    Attributes:
        event_id: the engine's own id for it, a ULID.
        dedupe: the sender's id; a later event with the same id ends no waits.
        body: the event as JSON, as runs get it.
    """

    event_id: str
    name: str
    dedupe: str | None
    received_ms: int
    ts: int
    body: bytes


class Cancellation(Value, frozen=True, gc=False):
    """A request to cancel the runs of a function that started in a span of time.

    Attributes:
        app, function: as the caller named them: by id, or by origin and slug.
        condition: CEL over the event that started the run.
    """

    cancellation_id: str
    app: str
    function: str
    started_after_ms: int | None
    started_before_ms: int
    condition: str | None
    created_ms: int
