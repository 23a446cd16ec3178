"""The table of routes, fourth part: what people and the command line use, and metrics."""

from __future__ import annotations

from stephttp.engine.api.manage import actions, browsing, probing, scrape
from stephttp.engine.api.manage.actions import (
    EndedWaits,
    NewRunId,
    RerunRequest,
    ResumeRequest,
    SentEventId,
)
from stephttp.engine.api.manage.event_views import EventInFull, EventItem
from stephttp.engine.api.manage.overview_views import EndpointItem, OverviewAnswer
from stephttp.engine.api.manage.probing import ProbeRequest
from stephttp.engine.api.manage.run_views import RunInFull, RunItem
from stephttp.engine.api.manage.scrape import OPENMETRICS, scraping
from stephttp.engine.api.openapi.operation import (
    Security,
    data,
    event_stream,
    operation,
    pages,
    takes,
)
from stephttp.engine.api.openapi.parameters import (
    CURSOR,
    DIRECTION,
    EVENT,
    LIMIT,
    RUN,
    parameter,
    time_parameter,
)
from stephttp.engine.api.openapi.schema import Json, SchemaOf
from stephttp.engine.bulk import MOST_RUNS, Bulk
from stephttp.engine.probe import ProbeFinding
from stephttp.engine.reading import RunState
from stephttp.engine.web.event_message import EventMessage

_SCRAPING = Security(("signingKey",), scraping)
"""A signing key, or the token for metrics."""

_FILTERS = (
    parameter(
        "query", "endpoint", "Only runs of these, named by slug or function id.",
        type="array", items={"type": "string"},
    ),
    parameter(
        "query", "status", "Only runs in one of these states. `waiting`: for a time, an event, or "
        "the repetition of something that failed.",
        type="array", items={"type": "string", "enum": [state.value for state in RunState]},
    ),
    time_parameter("after"),
    time_parameter("before"),
    parameter(
        "query", "text", "Only runs that have this text in their path, query or body, in their "
        "result, in an error, or in the result or the options of a step.",
        type="string", maxLength=1000,
    ),
    parameter("query", "run_id", "Only runs whose id begins so.", type="string"),
    parameter("query", "rerun_of", "Only runs that repeat this one.", type="string"),
)  # fmt: skip
_ALL = parameter(
    "query", "all", "Needed if there is no filter.", type="string", enum=["true", "false"]
)
_MOST = parameter(
    "query", "limit", "How many runs at most.",
    type="integer", minimum=1, maximum=MOST_RUNS, default=MOST_RUNS,
)  # fmt: skip
_TEXT: Json = {"schema": {"type": "string"}}


MANAGE_OPERATIONS = (
    operation(
        "GET", "/v1/runs", browsing.runs,
        "listRuns", "Runs, newest first.", pages(RunItem), 400,
        parameters=(LIMIT, CURSOR, DIRECTION, *_FILTERS),
    ),
    operation(
        "GET", "/v1/stephttp/runs/{run}", browsing.run,
        "getRunDetail", "One run in full: request, steps, history, answer.",
        data(RunInFull), 400, 404, parameters=(RUN,),
    ),
    operation(
        "POST", "/v1/stephttp/runs/{run}/rerun", actions.rerun,
        "rerun", "Run the request of a run again, as a new run; from a step on, if one is named.",
        data(NewRunId), 400, 404, 413,
        parameters=(RUN,), body=takes(SchemaOf(RerunRequest)),
    ),
    operation(
        "POST", "/v1/stephttp/runs/{run}/resume", actions.resume,
        "resume", "Resume a run that waits, now.",
        data(EndedWaits), 400, 404, 409, 413,
        parameters=(RUN,), body=takes(SchemaOf(ResumeRequest)),
    ),
    operation(
        "POST", "/v1/stephttp/runs/cancel", actions.cancel_many,
        "cancelRuns", "End the runs that a filter finds as cancelled, the newest first.",
        data(Bulk), 400, parameters=(_MOST, _ALL, *_FILTERS),
    ),
    operation(
        "POST", "/v1/stephttp/runs/rerun", actions.rerun_many,
        "rerunRuns", "Run the requests of the runs that a filter finds again, the newest first.",
        data(Bulk), 400, parameters=(_MOST, _ALL, *_FILTERS),
    ),
    operation(
        "GET", "/v1/stephttp/overview", browsing.overview,
        "getOverview", "How all endpoints have done, in total and each.",
        data(OverviewAnswer), 400,
        parameters=(
            parameter(
                "query", "span", "The time until now.",
                type="string", enum=["hour", "day", "week"], default="hour",
            ),
            parameter("query", "endpoint", "Function id of the only one.", type="string"),
        ),
    ),
    operation(
        "GET", "/v1/stephttp/endpoints", browsing.endpoints,
        "listEndpoints", "The endpoints that have reported runs.",
        data(list[EndpointItem]),
    ),
    operation(
        "GET", "/v1/stephttp/changes", browsing.changes,
        "followChanges", "Follow what changes, from now on.",
        event_stream(
            "Server-sent events. `changes` has as data {\"run_ids\", \"events\", \"lost\"}: runs "
            "that are new or have changed, whether events have come, and whether there was more "
            "than is named; `over` ends the stream."
        ),
    ),
    operation(
        "POST", "/v1/stephttp/probe", probing.probe,
        "probe", "Call an application, as far as the engine may, and report what came of it.",
        data(ProbeFinding), 400, 413, body=takes(SchemaOf(ProbeRequest)),
    ),
    operation(
        "GET", "/v1/stephttp/events", browsing.events,
        "searchEvents", "Events that were sent, newest first.", pages(EventItem), 400,
        parameters=(
            LIMIT, CURSOR, DIRECTION,
            parameter("query", "name", "Only those of this name.", type="string"),
            time_parameter("after"), time_parameter("before"),
            parameter(
                "query", "text", "Only those that have this text in their JSON.",
                type="string", maxLength=1000,
            ),
        ),
    ),
    operation(
        "GET", "/v1/stephttp/events/{event}", browsing.event,
        "getEventInFull", "One event, with the runs that sent it or waited for it.",
        data(EventInFull), 404, parameters=(EVENT,),
    ),
    operation(
        "POST", "/v1/stephttp/events", actions.send_event,
        "sendEvent", "Send an event, with a signing key instead of an event key.",
        data(SentEventId), 400, 413, body=takes(SchemaOf(EventMessage)),
    ),
    operation(
        "GET", "/metrics", scrape.metrics,
        "getMetrics",
        "What Prometheus reads; also with the token of `--metrics-token` instead of a signing key.",
        {
            "description": "Metrics, in the format that `Accept` asks for",
            "content": {"text/plain": _TEXT, OPENMETRICS: _TEXT},
        },
        security=_SCRAPING,
    ),
)  # fmt: skip
"""Operations on runs, events and endpoints, and metrics. Inngest has no path for those below
`/v1/stephttp`."""
