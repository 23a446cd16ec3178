"""What people see of the engine: runs, events, endpoints, and how it all went.

Pure reading: functions take a connection (`Store.browse` hands them one that keeps nobody waiting)
and return plain values. `Reader`, found as `engine.reader`, is the same for async code:

    await engine.reader.runs(RunFilter(...), PageRequest(...)) -> Page[RunRow]
    await engine.reader.run(run_id) -> RunDetail                 # Refused, 404
    await engine.reader.events(EventFilter(...), PageRequest(...)) -> Page[EventRow]
    await engine.reader.event(event_id) -> EventDetail           # Refused, 404
    await engine.reader.overview(Span.HOUR) -> Overview
    await engine.reader.endpoints() -> tuple[EndpointRow, ...]
    await engine.reader.slugs(limit) -> set[str]

    with engine.changes.listening() as listener:                    # what has changed since
        changes = await listener.next()                          # Changes(run_ids, events, lost)

What can be done to runs is in `Engine` itself:

    await engine.rerun(run_id, Edit(body, step_id, output, input)) -> str   # the new run
    await engine.resume(run_id, step_id=None) -> int     # how many waits have ended
    await engine.cancel_matching(RunFilter(...)) -> Bulk
    await engine.rerun_matching(RunFilter(...)) -> Bulk
    await engine.cancel(run_id) -> bool
    await engine.signal(name, data) -> str                       # the run that waited
    await engine.send_event(event_as_json) -> str                # internal id

Times end in `_ms` (milliseconds since the epoch); JSON is `bytes`, as it arrived. Headers that hold
secrets never leave this package.
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
from stephttp.engine.reading.list_filter import (
    MOST_LISTED,
    Page,
    PageRequest,
    RunFilter,
    State,
)
from stephttp.engine.reading.overview import (
    Durations,
    EndpointFigures,
    Figures,
    Overview,
    Point,
    Span,
    overview,
)
from stephttp.engine.reading.reader import Reader
from stephttp.engine.reading.run_detail import (
    Header,
    Result,
    RunDetail,
    SentEvent,
    SourceRequest,
    run_detail,
)
from stephttp.engine.reading.run_list import RunRow, Wait, list_runs
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
    "Header",
    "LinkedRun",
    "Overview",
    "Page",
    "PageRequest",
    "Point",
    "Reader",
    "Result",
    "RunDetail",
    "RunFilter",
    "RunRow",
    "SentEvent",
    "SourceRequest",
    "Span",
    "SpanKind",
    "State",
    "StepDetail",
    "Wait",
    "WaterfallSpan",
    "event_detail",
    "latest_endpoints",
    "list_endpoints",
    "list_events",
    "list_runs",
    "overview",
    "run_detail",
]
