"""What transitions are told besides the run: the moment, and what happened. Plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from stephttp._wire.opcodes import Op
from stephttp.engine.model.run import Value
from stephttp.engine.model.settings import Settings


@dataclass(frozen=True, slots=True)
class Moment:
    """What a transition may know besides the run: the time, chance, and the rules."""

    now_ms: int
    rng: Random
    settings: Settings


class Origin(Enum):
    """Where ops came from; see the table on top."""

    CHECKPOINT = "checkpoint"
    ANSWER = "answer"


class Hints(Value, frozen=True, gc=False):
    """What an answer's headers said about retries and the SDK."""

    retry_after_ms: int | None = None
    no_retry: bool = False
    request_version: int | None = None


class FailureKind(Enum):
    """How a failed call counts.

    `COUNTED`: an attempt was used up. `TRANSIENT`: the handler was not reached, or could not
    begin; tried again without end. `FINAL`: nobody should try again.
    """

    COUNTED = "counted"
    TRANSIENT = "transient"
    FINAL = "final"


class Failure(Value, frozen=True, gc=False):
    """A call of the endpoint that failed.

    Attributes:
        name, message: what the run's error will say.
        retry_after_ms: the delay that the endpoint asked for.
        output: result that the run gets if this was its last attempt.
        steps: what was done before it failed.
    """

    kind: FailureKind
    name: str
    message: str
    retry_after_ms: int | None = None
    output: bytes | None = None
    steps: Sequence[Op] = ()
