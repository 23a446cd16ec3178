"""What the API can do: one entry for each path and method, in the words of OpenAPI."""

from __future__ import annotations

from stephttp.engine.api.manage.scrape import OPENMETRICS
from stephttp.engine.api.openapi import shapes
from stephttp.engine.api.openapi.describing import (
    EMPTY,
    ERROR,
    OPEN,
    REASONS,
    Json,
    answer,
    data,
    operation,
    parameter,
    schema_of,
    stream,
    takes,
)
from stephttp.engine.api.openapi.extension_operations import OWN_OPERATIONS
from stephttp.engine.api.openapi.extension_operations import SHAPES as OWN_SHAPES
from stephttp.engine.api.openapi.parameters import EVENT, LIMIT, RUN, cursor_of, time_parameter
from stephttp.engine.api.sdk.cancellations import CancellationRequest
from stephttp.engine.api.sdk.ingest import SignalMessage
from stephttp.engine.api.sdk.realtime import TopicName
from stephttp.engine.api.sdk.traces import JSON, PROTOBUF
from stephttp.engine.rules.event_message import EventMessage
from stephttp.engine.web.requests import (
    ApiResult,
    AsyncStepsRequest,
    NewRunRequest,
    RenewRequest,
    StepsRequest,
)

_OUTCOME = shapes.StillSync | shapes.NowAsync | shapes.Ended
_EVENTS = EventMessage | list[EventMessage]

SHAPES = (
    ApiResult, AsyncStepsRequest, CancellationRequest, EventMessage, NewRunRequest, RenewRequest,
    SignalMessage, StepsRequest, shapes.BatchAnswer, shapes.CancellationView, shapes.DevServer,
    shapes.Ended, shapes.ErrorAnswer, shapes.EventRun, shapes.EventView, shapes.Health, shapes.Job,
    shapes.KeyProblem, shapes.Lost, shapes.Metadata, shapes.Names, shapes.NewCancellation,
    shapes.NewToken, shapes.NotReceived, shapes.NowAsync, shapes.PagedMetadata, shapes.Received,
    shapes.RunItem, shapes.RunView, shapes.SignalAnswer, shapes.SpanView, shapes.Step,
    shapes.StillSync, shapes.Trigger, TopicName, *OWN_SHAPES,
)  # fmt: skip
"""The types whose schemas, and those of what they consist of, are the document's components."""


_SDK = parameter(
    "header", "x-inngest-sdk", "Name and version of the sender; kept with the run.", type="string"
)
_SEED = parameter(
    "header", "x-inngest-event-id-seed",
    "Time (milliseconds) and entropy (10 bytes, base64) for the ids of the events.",
    type="string", pattern="^[0-9]{1,14},[A-Za-z0-9+/]{14}==$",
)  # fmt: skip
_PENDING = parameter(
    "header", "x-stephttp-accept",
    "`pending`: also name steps that are not done, and, in `x-stephttp-failures`, their failures.",
    type="string",
)  # fmt: skip
_WAIT = parameter(
    "query", "wait", "Seconds to wait for it, at most 20; what is more counts as 20.",
    type="integer", minimum=0, maximum=999_999_999, default=0,
)  # fmt: skip
_CHANNEL = {**parameter("query", "channel", "Id of the run.", type="string", minLength=1)}
_CHANNEL["required"] = True
_KEY = parameter("path", "key", "An event key of the engine; without any, anything.", type="string",
           minLength=1)  # fmt: skip


_BATCH = {
    "type": "array",
    "maxItems": 1000,
    "items": {"anyOf": [schema_of(NewRunRequest), schema_of(StepsRequest)]},
}
_OUTPUT: Json = {
    "default": {
        "description": "What the handler answered: its status, its headers, its body. While the "
        'run goes on the engine waits, and in the end answers 200 with {"status": "running"}. '
        "Without a good token it answers 401, to too many requests 429, and while it stops 503, "
        "as it does elsewhere.",
        "content": {"*/*": {"schema": {}}},
    }
}
_TEXT: Json = {"schema": {"type": "string"}}
_NOT_RECEIVED = schema_of(shapes.NotReceived)
_EVENT_ERROR = {"anyOf": [_NOT_RECEIVED, schema_of(shapes.KeyProblem), ERROR]}


def _checkpoints(prefix: str, suffix: str) -> dict[tuple[str, str], Json]:
    """The routes that are there under two prefixes."""
    run = f"{prefix}/{{run}}"
    result = {
        (prefix, "POST"): operation(
            f"createRun{suffix}", "Make a run, with the steps that it has done so far.",
            data(shapes.Names), 400, 403, 404, 409, 413, 422,
            parameters=(_SDK,), body=takes(schema_of(NewRunRequest)),
        ),
        (f"{run}/steps", "POST"): operation(
            f"reportSteps{suffix}", "Take more steps of a run.", EMPTY, 400, 404, 409, 413,
            parameters=(RUN,), body=takes(schema_of(StepsRequest)),
        ),
        (f"{run}/async", "POST"): operation(
            f"reportAsyncSteps{suffix}", "Take steps of a call that is still open.",
            EMPTY, 400, 404, 409, 413,
            parameters=(RUN,), body=takes(schema_of(AsyncStepsRequest)),
        ),
        (f"{run}/response", "POST"): operation(
            f"reportResponse{suffix}", "End a run with the answer of its endpoint.",
            EMPTY, 400, 404, 409, 413,
            parameters=(RUN,), body=takes(schema_of(ApiResult)),
        ),
        (f"{run}/output", "OPTIONS"): operation(
            f"preflightOutput{suffix}", "Pages of any origin may read outputs.", {}, 404, 429,
            access=OPEN, parameters=(RUN,),
            more={"204": {"description": "What pages may do"}},
        ),
    }  # fmt: skip
    for method in ("GET", "HEAD", "POST"):
        result[f"{run}/output", method] = {
            "operationId": f"{method.lower()}Output{suffix}",
            "summary": "Wait for the end of a run, and answer as its handler did.",
            "security": [{"runToken": []}],
            "parameters": [RUN],
            "responses": _OUTPUT,
        }
    return result


OPERATIONS: dict[tuple[str, str], Json] = {
    ("/v1/checkpoint/batch", "POST"): operation(
        "takeBatch", "Take many checkpoints; each gets an answer of its own.",
        data(shapes.BatchAnswer), 400, 413, parameters=(_SDK,), body=takes(_BATCH),
    ),
    ("/v1/leases/renew", "POST"): operation(
        "renewLeases", "Move leases ahead, all of a process at once.",
        data(shapes.Lost), 400, 413, body=takes(schema_of(RenewRequest)),
    ),
    ("/v1/runs/{run}/outcome", "GET"): operation(
        "getOutcome", "How the first phase of a run ended.",
        data(_OUTCOME), 400, 404, parameters=(RUN, _WAIT),
    ),
    **_checkpoints("/v1/checkpoint", ""),
    **_checkpoints("/v1/http/runs", "Http"),
    ("/v0/runs/{run}/actions", "GET"): operation(
        "getActions", "Memoised steps of a run that has not ended, by their hashed ids.",
        answer({"type": "object"}), 400, 404, 410, parameters=(RUN, _PENDING),
    ),
    ("/v0/runs/{run}/batch", "GET"): operation(
        "getBatch", "The event that began a run that has not ended.",
        answer(schema_of(list[shapes.Trigger])), 400, 404, 410, parameters=(RUN,),
    ),
    ("/v0/runs/{run}", "DELETE"): operation(
        "cancelRunLegacy", "End a run as cancelled; too late is an error.", {}, 400, 404, 409,
        parameters=(RUN,), more={"204": EMPTY},
    ),
    ("/v1/runs/{run}", "GET"): operation(
        "getRun", "One run.", data(shapes.RunView), 400, 404, parameters=(RUN,)
    ),
    ("/v1/runs/{run}", "DELETE"): operation(
        "cancelRun", "End a run as cancelled; too late changes nothing.", EMPTY, 400, 404,
        parameters=(RUN,),
    ),
    ("/v1/runs/{run}/jobs", "GET"): operation(
        "listJobs", "What the engine will do for a run, and when.",
        data(list[shapes.Job]), 400, 404, parameters=(RUN,),
    ),
    ("/v1/runs/{run}/steps", "GET"): operation(
        "listSteps", "Steps of a run, in the order in which they were first reported.",
        data(list[shapes.Step]), 400, 404, parameters=(RUN,),
    ),
    **OWN_OPERATIONS,
    ("/v1/runs/{run}/spans", "GET"): operation(
        "listSpans", "OpenTelemetry spans of a run, by their begin.",
        data(list[shapes.SpanView]), 400, 404, parameters=(RUN,),
    ),
    ("/v1/traces/userland", "POST"): operation(
        "sendSpans",
        "Keep OpenTelemetry spans (OTLP) with the runs that their attribute `sdk.run.id` names.",
        {
            "description": "An ExportTraceServiceResponse, in the format of the request; "
            "`partialSuccess` tells what is not kept, and why",
            "content": {PROTOBUF: {"schema": {}}, JSON: {"schema": {"type": "object"}}},
        },
        400, 413, 415,
        parameters=(
            parameter("header", "content-encoding", "`gzip`, if it is.", type="string",
                      enum=["gzip", "identity"]),
        ),
        body={
            "required": True,
            "description": "An ExportTraceServiceRequest.",
            "content": {PROTOBUF: {"schema": {}}, JSON: {"schema": {"type": "object"}}},
        },
    ),
    ("/v1/realtime/sse", "GET"): operation(
        "followRun", "Follow the live stream of a run: what is published from now on.",
        stream(
            "Server-sent events, as the run's handler writes them; a comment now and then while "
            "it is silent"
        ),
        401, access={"security": [{"realtimeToken": []}, {"realtimeBearer": []}]},
    ),
    ("/v1/realtime/token", "POST"): operation(
        "createToken", "Make a token that lets its bearer listen to topics, for one minute.",
        {}, 400, 413, body=takes(schema_of(list[TopicName])),
        more={"201": answer(schema_of(shapes.NewToken))},
    ),
    ("/v1/realtime/publish", "POST"): operation(
        "publish", "Hand a message to whoever listens to the topics; text that is no JSON is sent "
        "as a string, `text/stream` piece by piece.",
        EMPTY, 400, 413,
        parameters=(
            _CHANNEL,
            parameter(
                "query", "topic", "Where in the channel.",
                type="array", items={"type": "string", "minLength": 1}, minItems=1, maxItems=100,
            ) | {"required": True},
            parameter("query", "run_id", "The run that the message is about.", type="string"),
            parameter("query", "metadata", "JSON that goes with it.", type="string"),
        ),
        body={"content": {"application/json": {"schema": {}}, "text/stream": {"schema": {}}}},
    ),
    ("/v1/realtime/publish/tee", "POST"): operation(
        "publishStream", "Hand the bytes of the body to whoever follows the run, as they come.",
        EMPTY, 400, 413, parameters=(_CHANNEL,), body=takes({}, "application/octet-stream"),
    ),
    ("/e/", "GET"): operation(
        "showStartPage", "Send a browser to the start page.", {}, 429, access=OPEN,
        more={"303": {"description": "To `/`"}},
    ),
    ("/e/", "POST"): operation(
        "sendWithoutKey", "Tell a sender that its event key is missing.", {}, 429, access=OPEN,
        more={"400": answer(_NOT_RECEIVED, "No event key")},
    ),
    ("/e/{key}", "POST"): operation(
        "sendEvents", "Store events; runs that wait for them go on.",
        answer(schema_of(shapes.Received)), 404, 429,
        access=OPEN, parameters=(_KEY, _SEED),
        body={
            "required": True,
            "description": "Whatever content type but that of forms is named: JSON.",
            "content": {
                "application/json": {"schema": schema_of(_EVENTS)},
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "description": "`name`, `id`, `ts` and `v` are the event's own, `data` is "
                        "a JSON object, into which all others are put.",
                        "properties": {"name": {"type": "string", "minLength": 1}},
                        "required": ["name"],
                    }
                },
            },
        },
        more={
            "400": answer(_NOT_RECEIVED, REASONS[400]),
            "401": answer(schema_of(shapes.KeyProblem), "Not an event key of this engine"),
            "413": answer(_NOT_RECEIVED, REASONS[413]),
            "503": answer(_EVENT_ERROR, REASONS[503] + "; or no event keys are configured"),
        },
    ),
    ("/v1/events", "GET"): operation(
        "listEvents", "Events that were sent, newest first.", data(list[shapes.EventView]), 400,
        parameters=(
            LIMIT,
            cursor_of("`internal_id`"),
            parameter("query", "name", "Only those of this name.", type="string"),
            time_parameter("received_after"),
            time_parameter("received_before"),
        ),
    ),
    ("/v1/events/{event}", "GET"): operation(
        "getEvent", "One event; also the one that began a run.",
        data(shapes.EventView), 404, parameters=(EVENT,),
    ),
    ("/v1/events/{event}/runs", "GET"): operation(
        "listEventRuns", "The runs that an event began.",
        data(list[shapes.EventRun]), 404, parameters=(EVENT,),
    ),
    ("/v1/signals", "POST"): operation(
        "sendSignal", "End the wait for a signal.",
        data(shapes.SignalAnswer), 400, 404, 413, body=takes(schema_of(SignalMessage)),
    ),
    ("/v1/cancellations", "POST"): operation(
        "createCancellation", "Cancel the runs of a function that began in a span of time.",
        data(shapes.NewCancellation), 400, 404, 413, body=takes(schema_of(CancellationRequest)),
    ),
    ("/v1/cancellations", "GET"): operation(
        "listCancellations", "All cancellations that are kept, newest first.",
        data(list[shapes.CancellationView]),
    ),
    ("/v1/cancellations/{id}", "DELETE"): operation(
        "deleteCancellation", "Forget a cancellation; what was cancelled stays so.", {}, 404,
        parameters=(parameter("path", "id", "Its `id`.", type="string", minLength=1),),
        more={"204": EMPTY},
    ),
    ("/dev", "GET"): operation(
        "getDevServer", "What SDKs look for; only in development.",
        answer(schema_of(shapes.DevServer)), 404,
    ),
    ("/fn/register", "POST"): operation(
        "registerFunctions", "Tell an SDK that functions of `serve` are not run here.", {}, 400,
    ),
    ("/health", "GET"): operation(
        "getHealth", "The engine is up, and its store answers.",
        answer(schema_of(shapes.Health)), access=OPEN,
    ),
    ("/metrics", "GET"): operation(
        "getMetrics",
        "What Prometheus reads; also with the token of `--metrics-token` instead of a signing key.",
        {
            "description": "Metrics, in the format that `Accept` asks for",
            "content": {"text/plain": _TEXT, OPENMETRICS: _TEXT},
        },
    ),
    ("/openapi.json", "GET"): operation(
        "getOpenApi", "This document.", answer({"type": "object"})
    ),
}  # fmt: skip
"""By path and method, as in `ROUTES`; the methods that others imply (HEAD) are not listed."""
