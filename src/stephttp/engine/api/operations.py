"""What the API can do: one entry for each path and method, in the words of OpenAPI."""

from __future__ import annotations

from typing import Any

import msgspec

from stephttp.engine.api import shapes
from stephttp.engine.api.cancellations import CancellationRequest
from stephttp.engine.api.ingest import EventMessage, SignalMessage
from stephttp.engine.api.messages import (
    ApiResult,
    AsyncStepsRequest,
    NewRunRequest,
    RenewRequest,
    StepsRequest,
)

Json = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"

_OUTCOME = shapes.StillSync | shapes.NowAsync | shapes.Ended
_EVENTS = EventMessage | list[EventMessage]

SHAPES = (
    ApiResult, AsyncStepsRequest, CancellationRequest, EventMessage, NewRunRequest, RenewRequest,
    SignalMessage, StepsRequest, shapes.BatchAnswer, shapes.CancellationView, shapes.DevServer,
    shapes.Ended, shapes.ErrorAnswer, shapes.EventRun, shapes.EventView, shapes.Health, shapes.Job,
    shapes.KeyProblem, shapes.Lost, shapes.Metadata, shapes.Names, shapes.NewCancellation,
    shapes.NotReceived, shapes.NowAsync, shapes.Received, shapes.RunItem, shapes.RunView,
    shapes.SignalAnswer, shapes.Step, shapes.StillSync, shapes.Trigger,
)  # fmt: skip
"""The types whose schemas, and those of what they consist of, are the document's components."""


def _schema(shape: Any) -> Json:
    (schema,), _ = msgspec.json.schema_components([shape], ref_template=REFERENCE)
    return schema


def _json(schema: Json, about: str = "Done") -> Json:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _data(shape: Any) -> Json:
    """The answer 200 of the v1 API with such data."""
    return _wrapped(_schema(shape))


def _wrapped(data: Json) -> Json:
    return _json(
        {
            "type": "object",
            "properties": {"data": data, "metadata": _schema(shapes.Metadata)},
            "required": ["data", "metadata"],
            "additionalProperties": False,
        }
    )


_EMPTY: Json = {"description": "Done; the answer has no body"}
_ERROR = _schema(shapes.ErrorAnswer)
_REASONS = {
    400: "The request is not acceptable",
    401: "No token, or not one for this",
    403: "The engine may not call that endpoint",
    404: "There is no such thing",
    409: "Too late, or taken",
    410: "The run has ended",
    413: "Larger than the engine takes",
    422: "The idempotency key was used with another request",
    429: "Too many requests; `Retry-After` tells when to come back",
    500: "A fault of the engine",
    503: "Nothing can be stored now, or the engine is stopping; nothing was done, come back later",
}
_KEYLESS: Json = {
    "description": "No signing key, or a wrong one",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
_SECURED: Json = {"security": [{"signingKey": []}]}
_OPEN: Json = {"security": []}


def _operation(
    name: str,
    summary: str,
    good: Json,
    *errors: int,
    access: Json = _SECURED,
    parameters: tuple[Json, ...] = (),
    body: Json | None = None,
    more: Json | None = None,
) -> Json:
    """An operation.

    Args:
        name: its id.
        summary: what it does.
        good: the answer 200.
        errors: statuses of the errors that it may answer with, beside 500 and 503.
        access: who may use it.
        parameters: in path, query and headers.
        body: of the request, in the words of OpenAPI.
        more: further answers.
    """
    responses = {str(status): _json(_ERROR, _REASONS[status]) for status in (*errors, 500, 503)}
    if access is _SECURED:
        responses["401"] = _KEYLESS
    if good:
        responses["200"] = good
    responses |= more or {}
    operation = {"operationId": name, "summary": summary, **access}
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = body
    return operation | {"responses": dict(sorted(responses.items()))}


def _takes(schema: Json, media_type: str = "application/json") -> Json:
    return {"required": True, "content": {media_type: {"schema": schema}}}


def _in(place: str, name: str, about: str, **schema: Any) -> Json:
    parameter = {"in": place, "name": name, "description": about, "schema": schema}
    return parameter | ({"required": True} if place == "path" else {})


_RUN = _in(
    "path", "run", "Id of a run, a ULID.",
    type="string", pattern="^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$",
)  # fmt: skip
_EVENT_ID = _in("path", "event", "`internal_id` of an event.", type="string", minLength=1)
_LIMIT = _in(
    "query", "limit", "How many, at most 100; what is more counts as 100.",
    type="integer", minimum=1, maximum=999_999_999, default=20,
)  # fmt: skip
_SDK = _in(
    "header", "x-inngest-sdk", "Name and version of the sender; kept with the run.", type="string"
)
_SEED = _in(
    "header", "x-inngest-event-id-seed",
    "Time (milliseconds) and entropy (10 bytes, base64) for the ids of the events.",
    type="string", pattern="^[0-9]{1,14},[A-Za-z0-9+/]{14}==$",
)  # fmt: skip
_PENDING = _in(
    "header", "x-stephttp-accept", "`pending`: also name steps that are not done.", type="string"
)
_WAIT = _in(
    "query", "wait", "Seconds to wait for it, at most 20; what is more counts as 20.",
    type="integer", minimum=0, maximum=999_999_999, default=0,
)  # fmt: skip
_CHANNEL = {**_in("query", "channel", "Id of the run.", type="string", minLength=1)}
_CHANNEL["required"] = True
_KEY = _in("path", "key", "An event key of the engine; without any, anything.", type="string",
           minLength=1)  # fmt: skip


def _cursor(of: str, **schema: Any) -> Json:
    about = f"{of} of the last item of the page before."
    return _in("query", "cursor", about, type="string", **schema)


def _time(name: str) -> Json:
    return _in("query", name, "A time.", type="string", format="date-time")


_BATCH = {
    "type": "array",
    "maxItems": 1000,
    "items": {"anyOf": [_schema(NewRunRequest), _schema(StepsRequest)]},
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
_NOT_RECEIVED = _schema(shapes.NotReceived)
_EVENT_ERROR = {"anyOf": [_NOT_RECEIVED, _schema(shapes.KeyProblem), _ERROR]}


def _checkpoints(prefix: str, suffix: str) -> dict[tuple[str, str], Json]:
    """The routes that are there under two prefixes."""
    run = f"{prefix}/{{run}}"
    result = {
        (prefix, "POST"): _operation(
            f"createRun{suffix}", "Make a run, with the steps that it has done so far.",
            _data(shapes.Names), 400, 403, 404, 409, 413, 422,
            parameters=(_SDK,), body=_takes(_schema(NewRunRequest)),
        ),
        (f"{run}/steps", "POST"): _operation(
            f"reportSteps{suffix}", "Take more steps of a run.", _EMPTY, 400, 404, 409, 413,
            parameters=(_RUN,), body=_takes(_schema(StepsRequest)),
        ),
        (f"{run}/async", "POST"): _operation(
            f"reportAsyncSteps{suffix}", "Take steps of a call that is still open.",
            _EMPTY, 400, 404, 409, 413,
            parameters=(_RUN,), body=_takes(_schema(AsyncStepsRequest)),
        ),
        (f"{run}/response", "POST"): _operation(
            f"reportResponse{suffix}", "End a run with the answer of its endpoint.",
            _EMPTY, 400, 404, 409, 413,
            parameters=(_RUN,), body=_takes(_schema(ApiResult)),
        ),
        (f"{run}/output", "OPTIONS"): _operation(
            f"preflightOutput{suffix}", "Pages of any origin may read outputs.", {}, 404, 429,
            access=_OPEN, parameters=(_RUN,),
            more={"204": {"description": "What pages may do"}},
        ),
    }  # fmt: skip
    for method in ("GET", "HEAD", "POST"):
        result[f"{run}/output", method] = {
            "operationId": f"{method.lower()}Output{suffix}",
            "summary": "Wait for the end of a run, and answer as its handler did.",
            "security": [{"runToken": []}],
            "parameters": [_RUN],
            "responses": _OUTPUT,
        }
    return result


OPERATIONS: dict[tuple[str, str], Json] = {
    ("/v1/checkpoint/batch", "POST"): _operation(
        "takeBatch", "Take many checkpoints; each gets an answer of its own.",
        _data(shapes.BatchAnswer), 400, 413, parameters=(_SDK,), body=_takes(_BATCH),
    ),
    ("/v1/leases/renew", "POST"): _operation(
        "renewLeases", "Move leases ahead, all of a process at once.",
        _data(shapes.Lost), 400, 413, body=_takes(_schema(RenewRequest)),
    ),
    ("/v1/runs/{run}/outcome", "GET"): _operation(
        "getOutcome", "How the first phase of a run ended.",
        _data(_OUTCOME), 400, 404, parameters=(_RUN, _WAIT),
    ),
    **_checkpoints("/v1/checkpoint", ""),
    **_checkpoints("/v1/http/runs", "Http"),
    ("/v0/runs/{run}/actions", "GET"): _operation(
        "getActions", "Memoised steps of a run that has not ended, by their hashed ids.",
        _json({"type": "object"}), 400, 404, 410, parameters=(_RUN, _PENDING),
    ),
    ("/v0/runs/{run}/batch", "GET"): _operation(
        "getBatch", "The event that began a run that has not ended.",
        _json(_schema(list[shapes.Trigger])), 400, 404, 410, parameters=(_RUN,),
    ),
    ("/v0/runs/{run}", "DELETE"): _operation(
        "cancelRunLegacy", "End a run as cancelled; too late is an error.", {}, 400, 404, 409,
        parameters=(_RUN,), more={"204": _EMPTY},
    ),
    ("/v1/runs", "GET"): _operation(
        "listRuns", "Runs, newest first.", _data(list[shapes.RunItem]), 400,
        parameters=(_LIMIT, _cursor("`run_id`", pattern=_RUN["schema"]["pattern"])),
    ),
    ("/v1/runs/{run}", "GET"): _operation(
        "getRun", "One run.", _data(shapes.RunView), 400, 404, parameters=(_RUN,)
    ),
    ("/v1/runs/{run}", "DELETE"): _operation(
        "cancelRun", "End a run as cancelled; too late changes nothing.", _EMPTY, 400, 404,
        parameters=(_RUN,),
    ),
    ("/v1/runs/{run}/jobs", "GET"): _operation(
        "listJobs", "What the engine will do for a run, and when.",
        _data(list[shapes.Job]), 400, 404, parameters=(_RUN,),
    ),
    ("/v1/runs/{run}/steps", "GET"): _operation(
        "listSteps", "Steps of a run, in the order in which they were first reported.",
        _data(list[shapes.Step]), 400, 404, parameters=(_RUN,),
    ),
    ("/v1/realtime/sse", "GET"): _operation(
        "followRun", "Follow the live stream of a run: what is published from now on.",
        {
            "description": "Server-sent events, as the run's handler writes them; a comment now "
            "and then while it is silent",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        401, access={"security": [{"realtimeToken": []}, {"realtimeBearer": []}]},
    ),
    ("/v1/realtime/publish/tee", "POST"): _operation(
        "publish", "Hand the bytes of the body to whoever follows the run, as they come.",
        _EMPTY, 400, 413, parameters=(_CHANNEL,), body=_takes({}, "application/octet-stream"),
    ),
    ("/e/", "GET"): _operation(
        "showStartPage", "Send a browser to the start page.", {}, 429, access=_OPEN,
        more={"303": {"description": "To `/`"}},
    ),
    ("/e/", "POST"): _operation(
        "sendWithoutKey", "Tell a sender that its event key is missing.", {}, 429, access=_OPEN,
        more={"400": _json(_NOT_RECEIVED, "No event key")},
    ),
    ("/e/{key}", "POST"): _operation(
        "sendEvents", "Store events; runs that wait for them go on.",
        _json(_schema(shapes.Received)), 404, 429,
        access=_OPEN, parameters=(_KEY, _SEED),
        body={
            "required": True,
            "description": "Whatever content type but that of forms is named: JSON.",
            "content": {
                "application/json": {"schema": _schema(_EVENTS)},
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
            "400": _json(_NOT_RECEIVED, _REASONS[400]),
            "401": _json(_schema(shapes.KeyProblem), "Not an event key of this engine"),
            "413": _json(_NOT_RECEIVED, _REASONS[413]),
            "503": _json(_EVENT_ERROR, _REASONS[503] + "; or no event keys are configured"),
        },
    ),
    ("/v1/events", "GET"): _operation(
        "listEvents", "Events that were sent, newest first.", _data(list[shapes.EventView]), 400,
        parameters=(
            _LIMIT,
            _cursor("`internal_id`"),
            _in("query", "name", "Only those of this name.", type="string"),
            _time("received_after"),
            _time("received_before"),
        ),
    ),
    ("/v1/events/{event}", "GET"): _operation(
        "getEvent", "One event; also the one that began a run.",
        _data(shapes.EventView), 404, parameters=(_EVENT_ID,),
    ),
    ("/v1/events/{event}/runs", "GET"): _operation(
        "listEventRuns", "The runs that an event began.",
        _data(list[shapes.EventRun]), 404, parameters=(_EVENT_ID,),
    ),
    ("/v1/signals", "POST"): _operation(
        "sendSignal", "End the wait for a signal.",
        _data(shapes.SignalAnswer), 400, 404, 413, body=_takes(_schema(SignalMessage)),
    ),
    ("/v1/cancellations", "POST"): _operation(
        "createCancellation", "Cancel the runs of a function that began in a span of time.",
        _data(shapes.NewCancellation), 400, 404, 413, body=_takes(_schema(CancellationRequest)),
    ),
    ("/v1/cancellations", "GET"): _operation(
        "listCancellations", "All cancellations that are kept, newest first.",
        _data(list[shapes.CancellationView]),
    ),
    ("/v1/cancellations/{id}", "DELETE"): _operation(
        "deleteCancellation", "Forget a cancellation; what was cancelled stays so.", {}, 404,
        parameters=(_in("path", "id", "Its `id`.", type="string", minLength=1),),
        more={"204": _EMPTY},
    ),
    ("/dev", "GET"): _operation(
        "getDevServer", "What SDKs look for; only in development.",
        _json(_schema(shapes.DevServer)), 404,
    ),
    ("/health", "GET"): _operation(
        "getHealth", "The engine is up, and its store answers.",
        _json(_schema(shapes.Health)), access=_OPEN,
    ),
    ("/openapi.json", "GET"): _operation(
        "getOpenApi", "This document.", _json({"type": "object"})
    ),
}  # fmt: skip
"""By path and method, as in `ROUTES`; the methods that others imply (HEAD) are not listed."""
