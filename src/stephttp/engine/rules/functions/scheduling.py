"""When time starts functions. Pure.

| what happened | what follows |
|---|---|
| a trigger is new, or has changed | its next time is the first from now on |
| a time has come | one start, and the next time after it |
| several times have passed | one start, for the first of them; the next time from now on |
| the clock was set back a little | times that were there already do not come again |
| the clock was set back by more than an hour | it had been wrong: the next time from now on |

Several times pass while the engine is stopped, or when its clock is set ahead.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from stephttp.engine.model.function import Trigger
from stephttp.engine.model.function_schedule import FunctionSchedule
from stephttp.engine.model.function_start import StartingEvent
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.rules.functions import cron_times

TIMER = "inngest/scheduled.timer"
"""The name of the event with which time starts a function."""


def first(fn_id: str, place: int, trigger: Trigger, at: Moment) -> FunctionSchedule:
    """Return the first start of a function by a trigger.

    Raises:
        ValueError: its expression has no further time.
    """
    assert trigger.cron is not None
    schedule = FunctionSchedule(fn_id, place, trigger.cron, trigger.jitter_ms, 0, 0, 0)
    return _after(schedule, at.now_ms, at)


def following(schedule: FunctionSchedule, at: Moment) -> FunctionSchedule:
    """Return what comes after a start that is due.

    Raises:
        ValueError: its expression has no further time.
    """
    after = _after(schedule, schedule.time_ms, at)
    if after.time_ms + after.jitter_ms < at.now_ms:
        return _after(schedule, at.now_ms, at)
    return after


def corrected(schedule: FunctionSchedule, at: Moment) -> FunctionSchedule:
    """Return the next start from now on; what it was before was worked out with a wrong clock.

    Raises:
        ValueError: its expression has no further time.
    """
    return _after(schedule, at.now_ms, at)


def event(schedule: FunctionSchedule, at: Moment) -> StartingEvent:
    """Return the event of a start; its time is the one for which that is."""
    event_id = new_ulid(at.now_ms, at.rng)
    body = {
        "data": {"cron": schedule.cron},
        "id": event_id,
        "name": TIMER,
        "ts": schedule.time_ms,
    }
    return StartingEvent(event_id, TIMER, schedule.time_ms, msgspec.json.encode(body))


def _after(schedule: FunctionSchedule, after_ms: int, at: Moment) -> FunctionSchedule:
    time_ms = cron_times.next_ms(schedule.cron, after_ms)
    due_ms = time_ms + (at.rng.randint(0, schedule.jitter_ms) if schedule.jitter_ms else 0)
    return replace(schedule, time_ms=time_ms, due_ms=due_ms, set_ms=at.now_ms)
