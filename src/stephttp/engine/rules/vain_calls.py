"""Calls that no handler answered (broken connections, foreign answers), counted: when the run fails
of them. Pure.

Pure. Two kinds of such calls do not repeat without end:

    failure   what happened                             the run fails
    BROKEN    the connection was accepted, then broke,  after max(retries, 4) + 1 in a row
    FOREIGN   something else answered                   `Settings.foreign_answer_timeout` after the
                                                        first such answer; that is the reason

An answer of the handler's starts the count again, and so does a step that was recorded. A refused
connection or a proxy's 503 does neither: between two deaths, a process is often away for a while.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from stephttp.engine.model.inputs import CallFailure, FailureKind, Moment
from stephttp.engine.model.timer import Timer

_FEWEST_BROKEN = 4
"""Retries that calls which break have at least: a process may well die for another reason."""


class VainCalls(Struct, omit_defaults=True):
    """The calls in a row that got no answer of the handler's; stored as a timer's `payload`.

    Attributes:
        broken: how many of them broke.
        since_ms: when something else answered for the first time.
        name, message: what that answer was, as an error.
    """

    broken: int = 0
    since_ms: int | None = None
    name: str = ""
    message: str = ""


def count(
    timer: Timer, failure: CallFailure, retries: int, at: Moment
) -> tuple[bytes | None, CallFailure | None]:
    """Count a call that failed.

    Args:
        timer: that of the call.
        retries: of the run.

    Returns:
        The new payload of the timer, and why the run fails; `None` if it does not.
    """
    if failure.kind not in (FailureKind.BROKEN, FailureKind.FOREIGN):
        return timer.payload, None
    known = msgspec.json.decode(timer.payload or b"{}", type=VainCalls)
    reason = None
    if failure.kind is FailureKind.BROKEN:
        known.broken += failure.times
        if known.broken > max(retries, _FEWEST_BROKEN):
            message = (
                f"{known.broken} calls in a row broke after their connection had been accepted, or "
                "their answers were lost, and no step was recorded between them; it seems that "
                "this run ends the process that works on it, or that something in front of the "
                f"application answers in its place. The last one: {failure.name}: {failure.message}"
            )
            reason = CallFailure(FailureKind.FINAL, "BrokenCallError", message)
    elif known.since_ms is None:
        known.since_ms, known.name, known.message = at.now_ms, failure.name, failure.message
    elif at.now_ms - known.since_ms >= at.settings.foreign_answer_timeout * 1000:
        reason = CallFailure(FailureKind.FINAL, known.name, known.message)
    return msgspec.json.encode(known), reason
