"""The table of routes, fourth part: runs in version 2 of Inngest's API, which its server has below
`/api/v2`, and its cloud below `/v2`."""

from __future__ import annotations

from stephttp.engine.api.openapi.operation import REASONS, Operation, json_answer, operation, takes
from stephttp.engine.api.openapi.parameters import EVENT, RUN, parameter
from stephttp.engine.api.openapi.schema import SchemaOf
from stephttp.engine.api.sdk import v2_runs
from stephttp.engine.api.sdk.v2_runs import (
    MOST_LISTED,
    USUALLY_LISTED,
    V2Done,
    V2Errors,
    V2Rerun,
    V2Run,
    V2Runs,
    V2Trace,
)

_OUTPUT = parameter(
    "query", "includeOutput", "Also what it ended with.", type="string", enum=["true", "false"]
)
_LIMIT = parameter(
    "query", "limit", "How many runs at most.",
    type="integer", minimum=1, maximum=MOST_LISTED, default=USUALLY_LISTED,
)  # fmt: skip
_CURSOR = parameter("query", "cursor", "The `cursor` of the page before.", type="string")


def _errors(*statuses: int) -> dict[str, object]:
    return {str(status): json_answer(SchemaOf(V2Errors), REASONS[status]) for status in statuses}


def _operations(base: str, name: str) -> tuple[Operation, ...]:
    return (
        operation(
            "GET", f"{base}/runs/{{run}}", v2_runs.run,
            f"getRun{name}", "One run.", json_answer(SchemaOf(V2Run)),
            parameters=(RUN, _OUTPUT), more=_errors(400, 404),
        ),
        operation(
            "GET", f"{base}/runs/{{run}}/trace", v2_runs.trace,
            f"getTrace{name}", "One run with its steps.", json_answer(SchemaOf(V2Trace)),
            parameters=(RUN, _OUTPUT), more=_errors(400, 404),
        ),
        operation(
            "POST", f"{base}/runs/{{run}}/cancel", v2_runs.cancel,
            f"cancelRun{name}", "End a run as cancelled; too late is an error.",
            json_answer(SchemaOf(V2Done)), parameters=(RUN,), more=_errors(400, 404, 409),
        ),
        operation(
            "POST", f"{base}/runs/{{run}}/rerun", v2_runs.rerun,
            f"rerun{name}", "Run the request of a run again, as a new run; from a step on, if one "
            "is named.",
            json_answer(SchemaOf(V2Done)), parameters=(RUN,), body=takes(SchemaOf(V2Rerun)),
            more=_errors(400, 404, 413),
        ),
        operation(
            "GET", f"{base}/events/{{event}}/runs", v2_runs.event_runs,
            f"listEventRuns{name}", "The runs that an event began, oldest first.",
            json_answer(SchemaOf(V2Runs)), parameters=(EVENT, _OUTPUT, _LIMIT, _CURSOR),
            more=_errors(400, 404),
        ),
    )  # fmt: skip


V2_OPERATIONS = (*_operations("/v2", "V2"), *_operations("/api/v2", "V2Api"))
"""Operations on runs in the words of version 2."""
