"""The table of routes, third part: functions, and the apps that register them."""

from __future__ import annotations

from stephttp.engine.api.openapi.operation import (
    ERROR,
    REASONS,
    Security,
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
        body=takes({"type": "object", "description": "An event; its name is not looked at."}),
        more={
            "401": json_answer(SchemaOf(KeyRefused), "Not an event key of this engine"),
            "503": json_answer(
                {"anyOf": [SchemaOf(KeyRefused), ERROR]},
                REASONS[503] + "; or no event keys are configured",
            ),
        },
    ),
)  # fmt: skip
"""Operations of functions and apps."""
