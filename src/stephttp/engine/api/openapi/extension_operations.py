"""What people can look at and do: the part of `operations` that Inngest has no path for."""

from __future__ import annotations

from stephttp.engine.api.manage.actions import RerunRequest, ResumeRequest
from stephttp.engine.api.manage.probing import ProbeRequest
from stephttp.engine.api.openapi import extension_shapes as own
from stephttp.engine.api.openapi import shapes
from stephttp.engine.api.openapi.describing import (
    Json,
    data,
    operation,
    pages,
    parameter,
    schema_of,
    stream,
    takes,
)
from stephttp.engine.api.openapi.parameters import (
    CURSOR,
    DIRECTION,
    EVENT,
    LIMIT,
    RUN,
    time_parameter,
)
from stephttp.engine.bulk import MOST_RUNS
from stephttp.engine.reading import RunState
from stephttp.engine.rules.event_message import EventMessage

SHAPES = (
    RerunRequest, ResumeRequest, own.Bulk, own.Endpoint, own.EventId,
    own.EventInFull, own.EventItem, own.NewRunId, own.Overview,
    own.ProbeView, own.RunDetail, own.Waits, ProbeRequest,
)  # fmt: skip

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

OWN_OPERATIONS: dict[tuple[str, str], Json] = {
    ("/v1/runs", "GET"): operation(
        "listRuns", "Runs, newest first.", pages(shapes.RunItem), 400,
        parameters=(LIMIT, CURSOR, DIRECTION, *_FILTERS),
    ),
    ("/v1/stephttp/runs/{run}", "GET"): operation(
        "getRunDetail", "One run in full: request, steps, history, answer.",
        data(own.RunDetail), 400, 404, parameters=(RUN,),
    ),
    ("/v1/stephttp/runs/{run}/rerun", "POST"): operation(
        "rerun", "Run the request of a run again, as a new run; from a step on, if one is named.",
        data(own.NewRunId), 400, 404, 413,
        parameters=(RUN,), body=takes(schema_of(RerunRequest)),
    ),
    ("/v1/stephttp/runs/{run}/resume", "POST"): operation(
        "resume", "Let a run that waits go on now.",
        data(own.Waits), 400, 404, 409, 413,
        parameters=(RUN,), body=takes(schema_of(ResumeRequest)),
    ),
    ("/v1/stephttp/runs/cancel", "POST"): operation(
        "cancelRuns", "End the runs that a filter finds as cancelled, the newest first.",
        data(own.Bulk), 400, parameters=(_MOST, _ALL, *_FILTERS),
    ),
    ("/v1/stephttp/runs/rerun", "POST"): operation(
        "rerunRuns", "Run the requests of the runs that a filter finds again, the newest first.",
        data(own.Bulk), 400, parameters=(_MOST, _ALL, *_FILTERS),
    ),
    ("/v1/stephttp/overview", "GET"): operation(
        "getOverview", "How it went, in total and for each endpoint.",
        data(own.Overview), 400,
        parameters=(
            parameter(
                "query", "span", "The time until now.",
                type="string", enum=["hour", "day", "week"], default="hour",
            ),
            parameter("query", "endpoint", "Function id of the only one.", type="string"),
        ),
    ),
    ("/v1/stephttp/endpoints", "GET"): operation(
        "listEndpoints", "The endpoints that have reported runs.",
        data(list[own.Endpoint]),
    ),
    ("/v1/stephttp/changes", "GET"): operation(
        "followChanges", "Follow what changes, from now on.",
        stream(
            "Server-sent events. `changes` has as data {\"run_ids\", \"events\", \"lost\"}: runs "
            "that are new or have changed, whether events have come, and whether there was more "
            "than that; `over` ends the stream."
        ),
    ),
    ("/v1/stephttp/probe", "POST"): operation(
        "probe", "Call an application, as far as the engine may, and tell what came of it.",
        data(own.ProbeView), 400, 413, body=takes(schema_of(ProbeRequest)),
    ),
    ("/v1/stephttp/events", "GET"): operation(
        "searchEvents", "Events that were sent, newest first.", pages(own.EventItem), 400,
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
    ("/v1/stephttp/events/{event}", "GET"): operation(
        "getEventInFull", "One event, with the runs that had to do with it.",
        data(own.EventInFull), 404, parameters=(EVENT,),
    ),
    ("/v1/stephttp/events", "POST"): operation(
        "sendEvent", "Send an event, with a signing key instead of an event key.",
        data(own.EventId), 400, 413, body=takes(schema_of(EventMessage)),
    ),
}  # fmt: skip
