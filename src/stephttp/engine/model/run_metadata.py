"""What the code of a run has to say of it: values of several kinds, among them scores."""

from __future__ import annotations

from stephttp.engine.model.values import Value

NO_ATTEMPT = -1
"""Stands for all attempts of a step."""
SCORE = "inngest.score"
"""The kind of scores: numbers and verdicts, each under its name."""


class MetadataTarget(Value, frozen=True, gc=False):
    """What of a run metadata is about.

    Attributes:
        step_id: the hash of a step; empty: the run as a whole.
        attempt: of the step, from 0.
        span_id: of OpenTelemetry; empty: it is not about a span.
    """

    step_id: str = ""
    attempt: int = NO_ATTEMPT
    span_id: str = ""


class MetadataUpdate(Value, frozen=True, gc=False):
    """New values of one kind.

    Attributes:
        merges: values under other names stay.
        values: JSON by name.
    """

    target: MetadataTarget
    kind: str
    merges: bool
    values: dict[str, bytes]


class RunMetadata(Value, frozen=True, gc=False):
    """The present values of one kind.

    Attributes:
        step: the id of the step, as the user wrote it, if the step was reported.
        at_ms: when they were set last.
        values: a JSON object.
    """

    target: MetadataTarget
    step: str | None
    kind: str
    at_ms: int
    values: bytes
