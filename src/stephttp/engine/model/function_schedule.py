"""When time starts a function next."""

from __future__ import annotations

from stephttp.engine.model.values import Value


class FunctionSchedule(Value, frozen=True, gc=False):
    """The next start of a function by one of its triggers.

    Attributes:
        place: of the trigger among those of the function.
        cron, jitter_ms: as the trigger has them.
        time_ms: the next time of the expression.
        due_ms: when the function starts: then, or later by up to the jitter.
        set_ms: when this was worked out.
    """

    fn_id: str
    place: int
    cron: str
    jitter_ms: int
    time_ms: int
    due_ms: int
    set_ms: int
