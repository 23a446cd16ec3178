"""The table of routes, first part: what reports runs and what re-enters them."""

from __future__ import annotations

from collections.abc import Iterator

from stephttp.engine.api.openapi.operation import (
    EMPTY,
    OPEN,
    Operation,
    Security,
    data,
    json_answer,
    operation,
    takes,
)
from stephttp.engine.api.openapi.parameters import RUN, parameter
from stephttp.engine.api.openapi.schema import Json, SchemaOf
from stephttp.engine.api.sdk import (
    cancelling,
    checkpoint,
    extensions,
    other_checkpoints,
    output,
    run_state,
)
from stephttp.engine.api.sdk.checkpoint_messages import (
    ApiResult,
    AsyncStepsRequest,
    NewRunAnswer,
    NewRunRequest,
    RenewRequest,
    StepsRequest,
)
from stephttp.engine.api.sdk.extensions import BatchAnswer, LostLeases, Outcome
from stephttp.engine.api.sdk.run_state import RunTrigger

_RUN_TOKEN = Security(("runToken",))
"""The handler reads the token from the query."""

_SDK = parameter(
    "header", "x-inngest-sdk", "Name and version of the sender; kept with the run.", type="string"
)
_PENDING = parameter(
    "header", "x-stephttp-accept",
    "`pending`: also name steps that are not done, and, in `x-stephttp-failures`, their failures. "
    "`step-names`: say what steps they are. `ended`: answer for runs that have ended, too.",
    type="string",
)  # fmt: skip
_WAIT = parameter(
    "query", "wait", "Seconds to wait for it, at most 20; what is more counts as 20.",
    type="integer", minimum=0, maximum=999_999_999, default=0,
)  # fmt: skip

_COOKIES = parameter(
    "query", "cookies", "`no`: the token opens an output that sets no cookies.",
    type="string", enum=["yes", "no"], default="yes",
)  # fmt: skip

_BATCH = {
    "type": "array",
    "maxItems": 1000,
    "items": {"anyOf": [SchemaOf(NewRunRequest), SchemaOf(StepsRequest)]},
}
_OUTPUT: Json = {
    "default": {
        "description": "What the handler answered: its status, its headers, its body. While the "
        "run continues the engine waits, and then redirects to the same address (303), or, after "
        "some of those or with a preference, says when to come again (202). With `Accept: "
        "text/event-stream` it answers with events, and browsers that load a page get one. "
        "`x-stephttp-result` says which of these an answer is. For runs of other SDKs it waits "
        'longer, and in the end answers 200 with {"status": "running"}. Without a good token it '
        "answers 401, where the result is no longer there 410, to too many requests 429, and "
        "while it stops 503, as it does elsewhere.",
        "content": {"*/*": {"schema": {}}},
    }
}
_OUTPUT_PARAMETERS = (
    RUN,
    parameter(
        "query", "turn", "How often the address has redirected to itself.",
        type="string",
    ),
    parameter(
        "query", "events", "`inngest`: answer with the events of the run that the TypeScript "
        "SDK's client reads.", type="string",
    ),
    parameter(
        "query", "after", "With `events`: the number (`id`) of the last event that the client has.",
        type="string",
    ),
    parameter(
        "header", "last-event-id", "The same, as browsers say it, also without `events`.",
        type="string",
    ),
    parameter(
        "header", "prefer", "`wait=N`: the answer within N seconds, or a 202.", type="string"
    ),
)  # fmt: skip


def _checkpoints(prefix: str, suffix: str) -> Iterator[Operation]:
    """Where checkpoints are reported; and what their operation ids end with there."""
    run = f"{prefix}/{{run}}"
    yield operation(
        "POST", prefix, checkpoint.first,
        f"createRun{suffix}", "Make a run, with the steps that it has done so far.",
        data(NewRunAnswer), 400, 403, 404, 409, 413, 422,
        parameters=(_SDK,), body=takes(SchemaOf(NewRunRequest)),
    )  # fmt: skip
    yield operation(
        "OPTIONS", f"{run}/output", output.output,
        f"preflightOutput{suffix}", "Pages of any origin may read outputs.", {}, 404, 429,
        security=OPEN, parameters=(RUN,), more={"204": {"description": "What pages may do"}},
    )  # fmt: skip
    for method in ("GET", "HEAD", "POST"):
        yield operation(
            method, f"{run}/output", output.output,
            f"{method.lower()}Output{suffix}",
            "Wait for the end of a run, and answer as its handler did.",
            {}, security=_RUN_TOKEN, parameters=_OUTPUT_PARAMETERS, answers=_OUTPUT,
        )  # fmt: skip
    yield operation(
        "POST", f"{run}/steps", checkpoint.steps,
        f"reportSteps{suffix}", "Accept more steps of a run.", EMPTY, 400, 404, 409, 413,
        parameters=(RUN,), body=takes(SchemaOf(StepsRequest)),
    )  # fmt: skip
    yield operation(
        "POST", f"{run}/async", other_checkpoints.async_steps,
        f"reportAsyncSteps{suffix}", "Accept steps of a call that is still open.",
        EMPTY, 400, 404, 409, 413,
        parameters=(RUN,), body=takes(SchemaOf(AsyncStepsRequest)),
    )  # fmt: skip
    yield operation(
        "POST", f"{run}/response", other_checkpoints.response,
        f"reportResponse{suffix}", "End a run with the answer of its endpoint.",
        EMPTY, 400, 404, 409, 413,
        parameters=(RUN,), body=takes(SchemaOf(ApiResult)),
    )  # fmt: skip


CHECKPOINT_OPERATIONS = (
    # The order is that in which the router looks; first what SDKs call in each run.
    *_checkpoints("/v1/http/runs", "Http"),
    operation(
        "POST", "/v1/checkpoint/batch", extensions.batch,
        "takeBatch", "Accept many checkpoints; each gets an answer of its own.",
        data(BatchAnswer), 400, 413, parameters=(_SDK,), body=takes(_BATCH),
    ),
    operation(
        "POST", "/v1/leases/renew", extensions.renew,
        "renewLeases", "Move leases ahead, all of a process at once.",
        data(LostLeases), 400, 413, body=takes(SchemaOf(RenewRequest)),
    ),
    operation(
        "GET", "/v1/runs/{run}/outcome", extensions.outcome,
        "getOutcome", "How the first phase of a run ended.",
        data(Outcome), 400, 404, parameters=(RUN, _WAIT, _COOKIES),
    ),
    *_checkpoints("/v1/checkpoint", ""),
    operation(
        "GET", "/v0/runs/{run}/actions", run_state.actions,
        "getActions", "Memoised steps of a run that has not ended, by their hashed ids.",
        json_answer({"type": "object"}), 400, 404, 410, parameters=(RUN, _PENDING),
    ),
    operation(
        "GET", "/v0/runs/{run}/batch", run_state.batch,
        "getBatch", "The events that began a run that has not ended.",
        json_answer(SchemaOf(list[RunTrigger])), 400, 404, 410, parameters=(RUN,),
    ),
    operation(
        "DELETE", "/v0/runs/{run}", cancelling.cancel_legacy,
        "cancelRunLegacy", "End a run as cancelled; too late is an error.", {}, 400, 404, 409,
        parameters=(RUN,), more={"204": EMPTY},
    ),
)  # fmt: skip
"""Operations of the checkpoint API (docs/protocol.md 4), and of its extensions."""
