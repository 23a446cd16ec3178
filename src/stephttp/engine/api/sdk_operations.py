"""The table of routes, second part: what SDKs and senders of events use beside checkpoints."""

from __future__ import annotations

from stephttp.engine.api.graphql import query_request
from stephttp.engine.api.graphql.query_request import GraphAnswer, GraphQuery
from stephttp.engine.api.openapi.operation import (
    EMPTY,
    ERROR,
    OPEN,
    REASONS,
    Security,
    data,
    event_stream,
    json_answer,
    operation,
    takes,
)
from stephttp.engine.api.openapi.parameters import (
    EVENT,
    LIMIT,
    RUN,
    cursor_of,
    parameter,
    time_parameter,
)
from stephttp.engine.api.openapi.schema import SchemaOf
from stephttp.engine.api.run_parts import EndedRun, SpanView
from stephttp.engine.api.sdk import (
    attaching,
    cancelling,
    ingest,
    publishing,
    realtime,
    run_state,
    sent_events,
    streaming,
    system,
    user_spans,
)
from stephttp.engine.api.sdk.attaching import NewMetadata
from stephttp.engine.api.sdk.cancelling import (
    CancellationRequest,
    CancellationView,
    NewCancellation,
)
from stephttp.engine.api.sdk.ingest import (
    EventsReceived,
    EventsRefused,
    KeyRefused,
    SignalAnswer,
    SignalMessage,
)
from stephttp.engine.api.sdk.realtime import NewToken, TopicName
from stephttp.engine.api.sdk.run_state import JobView, RunView, StepView
from stephttp.engine.api.sdk.sent_events import EventView
from stephttp.engine.api.sdk.system import Health
from stephttp.engine.api.sdk.user_spans import JSON, PROTOBUF
from stephttp.engine.web.event_message import EventMessage

_REALTIME_TOKEN = Security(("realtimeToken", "realtimeBearer"))
"""The handler reads the token."""

_SEED = parameter(
    "header", "x-inngest-event-id-seed",
    "Time (milliseconds) and entropy (10 bytes, base64) for the ids of the events.",
    type="string", pattern="^[0-9]{1,14},[A-Za-z0-9+/]{14}==$",
)  # fmt: skip
_CHANNEL = {**parameter("query", "channel", "Id of the run.", type="string", minLength=1)}
_CHANNEL["required"] = True
_AFTER = parameter(
    "query", "after", "The number (`id`) of the last event that the client has.",
    type="string", pattern="^[0-9]{1,15}$",
)  # fmt: skip
_LAST_ID = parameter("header", "last-event-id", "The same, as browsers say it.", type="string")
_WRITER = parameter(
    "header", "x-stephttp-stream",
    "The call of the handler that writes, and how many events of it came before; so that one that "
    "is sent twice counts once.",
    type="string", pattern="^[A-Za-z0-9_-]{1,64} [0-9]{1,9}$",
)  # fmt: skip
_KEY = parameter("path", "key", "An event key of the engine; without any, anything.", type="string",
           minLength=1)  # fmt: skip
_EVENTS = EventMessage | list[EventMessage]
_NOT_RECEIVED = SchemaOf(EventsRefused)
_EVENT_ERROR = {"anyOf": [_NOT_RECEIVED, SchemaOf(KeyRefused), ERROR]}


SDK_OPERATIONS = (
    operation(
        "GET", "/v1/runs/{run}", run_state.run,
        "getRun", "One run.", data(RunView), 400, 404, parameters=(RUN,)
    ),
    operation(
        "DELETE", "/v1/runs/{run}", cancelling.cancel,
        "cancelRun", "End a run as cancelled; too late changes nothing.", EMPTY, 400, 404,
        parameters=(RUN,),
    ),
    operation(
        "GET", "/v1/runs/{run}/jobs", run_state.jobs,
        "listJobs", "What the engine will do for a run, and when.",
        data(list[JobView]), 400, 404, parameters=(RUN,),
    ),
    operation(
        "GET", "/v1/runs/{run}/steps", run_state.steps,
        "listSteps", "Steps of a run, in the order in which they were first reported.",
        data(list[StepView]), 400, 404, parameters=(RUN,),
    ),
    operation(
        "GET", "/v1/runs/{run}/spans", user_spans.listing,
        "listSpans", "OpenTelemetry spans of a run, in the order in which they began.",
        data(list[SpanView]), 400, 404, parameters=(RUN,),
    ),
    operation(
        "POST", "/v1/runs/{run}/metadata", attaching.attach,
        "attachMetadata", "Attach metadata and scores to a run, to one of its steps, or to a span.",
        {}, 400, 404, 413, parameters=(RUN,), body=takes(SchemaOf(NewMetadata)),
        more={"204": EMPTY},
    ),
    operation(
        "POST", "/v1/traces/userland", user_spans.receive,
        "sendSpans",
        "Keep OpenTelemetry spans (OTLP) with the runs that their attribute `sdk.run.id` names.",
        {
            "description": "An ExportTraceServiceResponse, in the format of the request; "
            "`partialSuccess` says what is not kept, and why",
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
    operation(
        "GET", "/v1/realtime/sse", realtime.sse,
        "followRun", "Follow the stream of a run from its beginning, up to the answer of the "
        "handler; or topics: what is published from now on.",
        event_stream(
            "Server-sent events, as the run's handler writes them; a comment now and then while "
            "it writes nothing"
        ),
        401, security=_REALTIME_TOKEN, parameters=(_AFTER, _LAST_ID),
    ),
    operation(
        "POST", "/v1/realtime/token", realtime.token,
        "createToken", "Make a token that lets its bearer listen to topics, for one minute.",
        {}, 400, 413, body=takes(SchemaOf(list[TopicName])),
        more={"201": json_answer(SchemaOf(NewToken))},
    ),
    operation(
        "POST", "/v1/realtime/publish", publishing.publish,
        "publish", "Send a message to all who listen to the topics; text that is not JSON is sent "
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
    operation(
        "POST", "/v1/realtime/publish/tee", streaming.tee,
        "publishStream", "Add server-sent events to the stream of a run, as they come.",
        EMPTY, 400, 409, 413, parameters=(_CHANNEL, _WRITER),
        body=takes({}, "application/octet-stream"),
    ),
    operation(
        "GET", "/e/", ingest.without_key,
        "showStartPage", "Send a browser to the start page.", {}, 429, security=OPEN,
        more={"303": {"description": "To `/`"}},
    ),
    operation(
        "POST", "/e/", ingest.without_key,
        "sendWithoutKey", "Refuse events that come without an event key.", {}, 429, security=OPEN,
        more={"400": json_answer(_NOT_RECEIVED, "No event key")},
    ),
    operation(
        "POST", "/e/{key}", ingest.receive,
        "sendEvents", "Store events; runs that wait for them continue.",
        json_answer(SchemaOf(EventsReceived)), 404, 429,
        security=OPEN, parameters=(_KEY, _SEED),
        body={
            "required": True,
            "description": "JSON, whatever content type is named, or a form.",
            "content": {
                "application/json": {"schema": SchemaOf(_EVENTS)},
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
            "400": json_answer(_NOT_RECEIVED, REASONS[400]),
            "401": json_answer(SchemaOf(KeyRefused), "Not an event key of this engine"),
            "413": json_answer(_NOT_RECEIVED, REASONS[413]),
            "503": json_answer(_EVENT_ERROR, REASONS[503] + "; or no event keys are configured"),
        },
    ),
    operation(
        "GET", "/v1/events", sent_events.listing,
        "listEvents", "Events that were sent, newest first.", data(list[EventView]), 400,
        parameters=(
            LIMIT,
            cursor_of("`internal_id`"),
            parameter("query", "name", "Only those of this name.", type="string"),
            time_parameter("received_after"),
            time_parameter("received_before"),
        ),
    ),
    operation(
        "GET", "/v1/events/{event}", sent_events.event,
        "getEvent", "One event; also the one that began a run.",
        data(EventView), 404, parameters=(EVENT,),
    ),
    operation(
        "GET", "/v1/events/{event}/runs", sent_events.runs,
        "listEventRuns", "The runs that an event began, and what they ended with.",
        data(list[EndedRun]), 404, parameters=(EVENT,),
    ),
    operation(
        "POST", "/v1/signals", ingest.signal,
        "sendSignal", "End the wait for a signal.",
        data(SignalAnswer), 400, 404, 413, body=takes(SchemaOf(SignalMessage)),
    ),
    operation(
        "POST", "/v1/cancellations", cancelling.create,
        "createCancellation", "Cancel the runs of a function that began in a period.",
        data(NewCancellation), 400, 404, 413, body=takes(SchemaOf(CancellationRequest)),
    ),
    operation(
        "GET", "/v1/cancellations", cancelling.listing,
        "listCancellations", "All cancellations that are kept, newest first.",
        data(list[CancellationView]),
    ),
    operation(
        "DELETE", "/v1/cancellations/{id}", cancelling.delete,
        "deleteCancellation", "Delete a cancellation; what was cancelled stays so.", {}, 404,
        parameters=(parameter("path", "id", "Its `id`.", type="string", minLength=1),),
        more={"204": EMPTY},
    ),
    operation(
        "POST", "/v0/gql", query_request.ask,
        "query", "Read runs and events with GraphQL, in the names of the Inngest server; needs "
        "`stephttp[graphql]`.",
        json_answer(SchemaOf(GraphAnswer)), 400, 413, 501, body=takes(SchemaOf(GraphQuery)),
        more={"422": json_answer(SchemaOf(GraphAnswer), "Not an acceptable query")},
    ),
    operation(
        "GET", "/health", system.health,
        "getHealth", "The engine is up, and its store answers.",
        json_answer(SchemaOf(Health)), security=OPEN,
    ),
)  # fmt: skip
"""Operations of runs, traces, realtime streams, events, signals and cancellations."""
