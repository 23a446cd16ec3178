"""The table of routes, third part: functions, and the apps that register them; what SDKs do with
them, and what people do."""

from __future__ import annotations

from stephttp.engine.api.manage import function_actions, queue_views
from stephttp.engine.api.manage.function_actions import (
    FunctionItem,
    InvokedFunction,
    PausedFunction,
)
from stephttp.engine.api.manage.queue_views import QueuesAnswer
from stephttp.engine.api.openapi.operation import (
    ERROR,
    REASONS,
    Security,
    data,
    json_answer,
    operation,
    takes,
)
from stephttp.engine.api.openapi.parameters import parameter
from stephttp.engine.api.openapi.schema import SchemaOf
from stephttp.engine.api.sdk import registering
from stephttp.engine.api.sdk.ingest import KeyRefused
from stephttp.engine.api.sdk.registering import (
    AppRegistered,
    DevServer,
    FunctionView,
    Invoked,
    Removed,
)

_EVENT_KEY = Security(("eventKey",))
"""The handler reads the key."""

_PAUSED = json_answer(ERROR, "The function is paused")
_FUNCTION = parameter("path", "function", "Id or slug of a function.", type="string", minLength=1)
_INVOCATION = takes({"type": "object", "description": "An event; its name is not looked at."})

FUNCTION_OPERATIONS = (
    operation(
        "GET", "/dev", registering.dev,
        "getDevServer", "What SDKs look for, with all functions; only in development.",
        json_answer(SchemaOf(DevServer)), 404,
    ),
    operation(
        "POST", "/fn/register", registering.register,
        "registerFunctions", "Register an app with its functions, in place of what it had.",
        json_answer(SchemaOf(AppRegistered)), 400, 403, 413,
        parameters=(
            parameter("header", "x-inngest-expected-server-kind",
                      "The kind that the app expects.", type="string", enum=["dev", "cloud"]),
            parameter("header", "x-inngest-sdk", "Name and version of its SDK.", type="string"),
        ),
        body=takes(
            {
                "type": "object",
                "description": "Keys in upper or lower case; see docs/protocol.md 9.1.",
                "properties": {
                    "appName": {"type": "string", "minLength": 1, "maxLength": 1000},
                    "url": {"type": "string", "format": "uri", "maxLength": 1000},
                    "functions": {"type": "array", "items": {"type": "object"}},
                },
                "required": ["appName", "url", "functions"],
            }
        ),
    ),
    operation(
        "DELETE", "/fn/remove", registering.remove,
        "removeApp", "Forget an app; its functions are not started any more.",
        json_answer(SchemaOf(Removed)), 404,
        parameters=(
            parameter("query", "url", "Where it serves its functions.", type="string")
            | {"required": True},
        ),
    ),
    operation(
        "GET", "/v1/apps/{name}/functions", registering.listing,
        "listFunctions", "The functions of an app.",
        json_answer(SchemaOf(list[FunctionView])), 404,
        parameters=(parameter("path", "name", "The app's name.", type="string", minLength=1),),
    ),
    operation(
        "POST", "/invoke/{slug}", registering.invoke,
        "invokeFunction", "Start one function with an event that is for it alone.",
        json_answer(SchemaOf(Invoked)), 400, 404, 413, 429,
        security=_EVENT_KEY,
        parameters=(
            parameter("path", "slug", "Id of the function.", type="string", minLength=1),
        ),
        body=_INVOCATION,
        more={
            "409": _PAUSED,
            "401": json_answer(SchemaOf(KeyRefused), "Not an event key of this engine"),
            "503": json_answer(
                {"anyOf": [SchemaOf(KeyRefused), ERROR]},
                REASONS[503] + "; or no event keys are configured",
            ),
        },
    ),
    operation(
        "GET", "/v1/stephttp/queues", queue_views.queues,
        "getQueues", "What waits behind which limit.", data(QueuesAnswer),
    ),
    operation(
        "GET", "/v1/stephttp/functions", function_actions.functions,
        "getFunctions", "The functions that all apps register.",
        data(list[FunctionItem]),
    ),
    operation(
        "POST", "/v1/stephttp/functions/{function}/pause", function_actions.pause,
        "pauseFunction", "Let nothing start a function until it is resumed; its runs continue.",
        data(PausedFunction), 404, parameters=(_FUNCTION,),
    ),
    operation(
        "POST", "/v1/stephttp/functions/{function}/resume", function_actions.resume,
        "resumeFunction", "Let a paused function be started again.",
        data(PausedFunction), 404, parameters=(_FUNCTION,),
    ),
    operation(
        "POST", "/v1/stephttp/functions/{function}/invoke", function_actions.invoke,
        "startFunction", "Start one function, with a signing key instead of an event key.",
        data(InvokedFunction), 400, 404, 413,
        parameters=(_FUNCTION,), body=_INVOCATION, more={"409": _PAUSED},
    ),
)  # fmt: skip
"""Operations of functions and apps."""
