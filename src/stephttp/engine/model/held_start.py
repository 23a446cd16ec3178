"""Runs of functions that have not started yet, because their events are held."""

from __future__ import annotations

from enum import StrEnum

from stephttp.engine.model.function import Function
from stephttp.engine.model.function_start import Start, StartingEvent
from stephttp.engine.model.values import Value


class Hold(StrEnum):
    """Why events are held: until no further one comes, or until there are enough of them."""

    DEBOUNCE = "debounce"
    BATCH = "batch"


class Candidate(Value, frozen=True, gc=False):
    """A run that may begin.

    Attributes:
        start: what is known of it, by its latest event.
        events: all that start it, in their order.
        invokers: who wait for its result, each as `Run.invoked_by`.
    """

    start: Start
    events: tuple[StartingEvent, ...]
    invokers: tuple[str, ...] = ()


class HeldStart(Value, frozen=True, gc=False):
    """A held run whose time has come.

    Attributes:
        held: its number.
        came: how many events have come for it; if there are more by now, it is another one.
        function: as it is by now; `None` if it was withdrawn.
        latest: the latest of the events.
    """

    held: int
    hold: Hold
    came: int
    function: Function | None
    latest: StartingEvent
