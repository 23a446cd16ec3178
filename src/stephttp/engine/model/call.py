"""Requests that are due, as values: calls of endpoints, and the HTTP requests of steps."""

from __future__ import annotations

from stephttp.engine.model.timer import RESUME
from stephttp.engine.model.values import Value


class ResumeState(Value, frozen=True, gc=False):
    """The state of a run that an SDK needs to continue it.

    Attributes:
        memos: as JSON, by step id.
        failures: how often unfinished steps have failed, as the value of a header.
    """

    memos: bytes
    failures: str = ""


class FunctionState(Value, frozen=True, gc=False):
    """What a call of a function says of its run.

    Attributes:
        events: those that started it, as a JSON array.
        memos: as JSON, by step id; `None`: they are too large for the request.
        done: ids of the steps that are over, in the order in which they ended.
        failures: how often the step that is tried next has failed.
        retries: of the run.
    """

    events: bytes
    retries: int
    memos: bytes | None = None
    done: tuple[str, ...] = ()
    failures: int = 0


class EndpointCall(Value, frozen=True, gc=False):
    """One call of an endpoint: the request, and which attempt it is.

    Attributes:
        step_id: the one step to run; `RESUME`: whatever comes next.
        plan: the SDK must report the steps that it meets as planned, and not run them.
        fn_id: the endpoint, as `Run.fn_id`.
        reads_state: whether its SDK reads the state of the run from the request.
        state: the state that is sent with the request.
        unanswered: how many calls for the same purpose brought no answer before; if any, it is not
            sent once more where a kept connection turns out to be closed.
        gates: names of those that it has passed, and in which it counts until it is over.
        function: the part of a call that only functions have; `None` if it is not one of those.
    """

    run_id: str
    job_id: str
    attempt: int
    request_version: int
    event_name: str
    sdk: str
    domain: str
    method: str
    path: str
    query: str
    content_type: str
    body: bytes = b""
    step_id: str = RESUME
    plan: bool = False
    fn_id: str = ""
    reads_state: bool = False
    state: ResumeState | None = None
    unanswered: int = 0
    gates: tuple[str, ...] = ()
    function: FunctionState | None = None


class GatewayRequest(Value, frozen=True, gc=False):
    """An HTTP request to make for a step.

    Attributes:
        spec: a stored `gateway_request.RequestSpec`.
        origin: of the run's endpoint.
    """

    run_id: str
    step_id: str
    spec: bytes
    origin: str
