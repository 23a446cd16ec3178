"""A function and what starts it, as values that are decided before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stephttp.engine.model.function_options import NO_OPTIONS, FunctionOptions
from stephttp.engine.model.gate import Gate
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.values import Value


class StartingEvent(Value, frozen=True, gc=False):
    """An event that starts a run.

    Attributes:
        event_id: the engine's own id for it.
        body: the event as JSON.
    """

    event_id: str
    name: str
    ts: int
    body: bytes


class Start(Value, frozen=True, gc=False):
    """One function that one event starts, unless its options say otherwise.

    What options make of the event is decided here, before the transaction that starts the run,
    because expressions take time.

    Attributes:
        idempotency, rate_limit, debounce, batch, singleton: the keys of these options for this
            event; `None`: the function does not have the option, or it is not for this event.
        gates: what calls of the run have to pass.
        priority: seconds by which the run goes before its turn.
        run_id: the id that the run gets; empty: a new one.
        invoked_by: as `Run.invoked_by`.
    """

    function: Endpoint
    event: StartingEvent
    options: FunctionOptions = NO_OPTIONS
    idempotency: str | None = None
    rate_limit: str | None = None
    debounce: str | None = None
    batch: str | None = None
    singleton: str | None = None
    gates: tuple[Gate, ...] = ()
    priority: int = 0
    run_id: str = ""
    invoked_by: str | None = None


class PlannedStarts(Value, frozen=True, gc=False):
    """The functions that some events start.

    Attributes:
        starts: by the id of an event.
        later: ids of events for which that is not decided yet, because those before them start
            as many runs as may start at once.
    """

    starts: Mapping[str, Sequence[Start]] = {}
    later: frozenset[str] = frozenset()


NO_STARTS = PlannedStarts()
