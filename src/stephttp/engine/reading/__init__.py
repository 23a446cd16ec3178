"""Runs, events, endpoints and figures about them, as people see them.

Code that reads the database for people belongs here. It changes nothing: functions take a
connection (`Store.browse` gives them one that keeps no writer waiting) and return plain values.
Code that reads in order to act belongs in `engine.work`; how values look belongs in `engine.api`
and `engine.dashboard`. `Reader`, found as `engine.reader`, is the same for async code:

    await engine.reader.runs(RunFilter(...), Paging(...)) -> Page[RunRow]
    await engine.reader.run(run_id) -> RunDetail                 # Refused, 404
    await engine.reader.events(EventFilter(...), Paging(...)) -> Page[EventRow]
    await engine.reader.event(event_id) -> EventDetail           # Refused, 404
    await engine.reader.outcome(run_id) -> RunOutcome            # Refused, 404
    await engine.reader.outcomes(event_id) -> tuple[RunOutcome, ...]
    await engine.reader.overview(Period.HOUR) -> Overview
    await engine.reader.endpoints() -> tuple[EndpointRow, ...]
    await engine.reader.queues() -> Queues
    await engine.reader.function(name) -> FunctionDetail         # Refused, 404
    await engine.reader.slugs(limit) -> set[str]

`engine.changes` says what has changed since; what can be done to runs are methods of `Engine`.

Times end in `_ms` (milliseconds since the epoch); JSON is `bytes`, as it arrived. Values of
headers that hold secrets never leave this package.
"""

from stephttp.engine.reading.endpoints import EndpointRow, latest_endpoints, list_endpoints
from stephttp.engine.reading.event_list import (
    EventDetail,
    EventFilter,
    EventRow,
    LinkedRun,
    event_detail,
    list_events,
)
from stephttp.engine.reading.function_detail import FunctionDetail, function_detail
from stephttp.engine.reading.list_filter import (
    MOST_LISTED,
    Page,
    Paging,
    RunFilter,
    RunState,
)
from stephttp.engine.reading.overview import (
    Durations,
    EndpointFigures,
    Figures,
    Overview,
    Period,
    Point,
    overview,
)
from stephttp.engine.reading.queues import GateRow, HeldRow, Queues, queues
from stephttp.engine.reading.reader import Reader
from stephttp.engine.reading.run_detail import (
    FinalResponse,
    Header,
    RunDetail,
    SentEvent,
    SourceRequest,
    Warned,
    run_detail,
)
from stephttp.engine.reading.run_list import list_runs
from stephttp.engine.reading.run_outcomes import RunOutcome, ending, outcomes_of
from stephttp.engine.reading.run_rows import OpenWait, RunRow
from stephttp.engine.reading.step_detail import StepDetail
from stephttp.engine.reading.waterfall import SpanKind, WaterfallSpan

__all__ = [
    "MOST_LISTED",
    "Durations",
    "EndpointFigures",
    "EndpointRow",
    "EventDetail",
    "EventFilter",
    "EventRow",
    "Figures",
    "FinalResponse",
    "FunctionDetail",
    "GateRow",
    "Header",
    "HeldRow",
    "LinkedRun",
    "OpenWait",
    "Overview",
    "Page",
    "Paging",
    "Period",
    "Point",
    "Queues",
    "Reader",
    "RunDetail",
    "RunFilter",
    "RunOutcome",
    "RunRow",
    "RunState",
    "SentEvent",
    "SourceRequest",
    "SpanKind",
    "StepDetail",
    "Warned",
    "WaterfallSpan",
    "ending",
    "event_detail",
    "function_detail",
    "latest_endpoints",
    "list_endpoints",
    "list_events",
    "list_runs",
    "outcomes_of",
    "overview",
    "queues",
    "run_detail",
]
