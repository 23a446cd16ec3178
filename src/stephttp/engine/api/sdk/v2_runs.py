"""`/v2/runs` and `/v2/events/{id}/runs`: what version 2 of Inngest's API has for runs, with the
abilities that this engine has anyway.

Its errors have a shape of their own: `{"errors": [{"code", "message"}]}`.
"""

from __future__ import annotations

import logging
from functools import wraps
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.sdk.v2_views import RunSummary, RunTrace, is_over, run_summary, run_trace
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import RunDetail
from stephttp.engine.rules.reruns import AS_IT_WAS, Edit
from stephttp.engine.web.fields import AnswerBody, RunId, Time
from stephttp.engine.web.guard import Handler
from stephttp.engine.web.requests import engine_of, parse_run_id, read_json
from stephttp.engine.web.responses import json_response, log_refusal

MOST_LISTED, USUALLY_LISTED = 40, 20
"""Runs of an event on one page."""
_CODES = {
    HTTPStatus.BAD_REQUEST: "invalid_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.CONFLICT: "run_already_ended",
}


class V2Error(AnswerBody):
    """An error: a code for programs, and a text for people."""

    code: str
    message: str


class V2Errors(AnswerBody):
    """Why a request was refused."""

    errors: list[V2Error]


class V2Metadata(AnswerBody, rename="camel"):
    """Comes with all data."""

    fetched_at: Time


class V2Run(AnswerBody):
    """One run."""

    data: RunSummary
    metadata: V2Metadata


class V2Trace(AnswerBody):
    """One run with its steps."""

    data: RunTrace
    metadata: V2Metadata


class V2Page(AnswerBody, rename="camel", omit_defaults=True):
    """Where a page lies in its list; `cursor` leads to the next one."""

    has_more: bool
    limit: int
    cursor: str | UnsetType = UNSET


class V2Runs(AnswerBody):
    """Runs of an event."""

    data: list[RunSummary]
    metadata: V2Metadata
    page: V2Page


class V2RunId(AnswerBody, rename="camel"):
    """The run that was begun, or was cancelled."""

    run_id: RunId


class V2Done(AnswerBody):
    """What was done to a run."""

    data: V2RunId
    metadata: V2Metadata


class FromStep(Struct, rename="camel"):
    """The step from which a run is repeated: its name in the code, and what it gets instead."""

    step_id: str
    input: Raw | UnsetType = UNSET


class V2Rerun(Struct, rename="camel"):
    """How a run is to be repeated; an empty object: as it was."""

    from_step: FromStep | None = None


_RERUN = msgspec.json.Decoder(V2Rerun)
_ARRAY = msgspec.json.Decoder(list[Any])


def _with_errors(handler: Handler) -> Handler:
    @wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refused as error:
            log_refusal(request, error.status, str(error), logging.INFO)
            code = _CODES.get(HTTPStatus(error.status), "invalid_request")
            return _error(code, str(error), error.status)

    return answer


@_with_errors
async def run(request: Request) -> Response:
    """Return one run."""
    engine = engine_of(request)
    found = await engine.reader.outcome(parse_run_id(request.path_params["run"]))
    shown = run_summary(found, with_output=_wants_output(request))
    return json_response(V2Run(shown, _metadata(request)))


@_with_errors
async def trace(request: Request) -> Response:
    """Return one run with its steps."""
    detail = await engine_of(request).reader.run(parse_run_id(request.path_params["run"]))
    shown = run_trace(detail, with_output=_wants_output(request))
    return json_response(V2Trace(shown, _metadata(request)))


@_with_errors
async def event_runs(request: Request) -> Response:
    """List the runs that an event began, oldest first."""
    engine, query = engine_of(request), request.query_params
    event_id, limit = request.path_params["event"], _limit(query.get("limit"))
    after = query.get("cursor") or ""
    if after:
        after = parse_run_id(after)
    found = await engine.reader.outcomes(event_id, after, limit + 1)
    if not (found or after):
        await engine.reader.event(event_id)  # refuses one that is not there
    shown, more = found[:limit], len(found) > limit
    page = V2Page(more, limit, shown[-1].run_id if more else UNSET)
    runs = [run_summary(one, with_output=_wants_output(request)) for one in shown]
    return json_response(V2Runs(runs, _metadata(request), page))


@_with_errors
async def cancel(request: Request) -> Response:
    """End a run as cancelled; too late is an error."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    if not await engine.cancel(run_id):
        status = (await engine.reader.outcome(run_id)).status
        return _error(is_over(status), f"run {run_id} has ended already", HTTPStatus.CONFLICT)
    return json_response(V2Done(V2RunId(run_id), _metadata(request)))


@_with_errors
async def rerun(request: Request) -> Response:
    """Run the request of a run again, as a new run."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    start = (await read_json(request, _RERUN, empty=b"{}")).from_step
    edit = AS_IT_WAS if start is None else _edit(await engine.reader.run(run_id), start)
    new_id = await engine.rerun(run_id, edit)
    return json_response(V2Done(V2RunId(new_id), _metadata(request)))


def _edit(detail: RunDetail, start: FromStep) -> Edit:
    """Find the step of a name, which must be the only one, and give it its input."""
    found = [step.step_id for step in detail.steps if step.id == start.step_id]
    if len(found) != 1:
        wrong = "no step has the name" if not found else f"{len(found)} steps have the name"
        raise Refused(f"fromStep.stepId: {wrong} {start.step_id[:200]!r}")
    if isinstance(start.input, UnsetType):
        return Edit(step_id=found[0])
    try:
        _ARRAY.decode(start.input)
    except msgspec.MsgspecError:
        raise Refused("fromStep.input: expected an array, the arguments of the step") from None
    return Edit(step_id=found[0], input=bytes(start.input))


def _wants_output(request: Request) -> bool:
    query = request.query_params
    return "true" in (query.get("includeOutput"), query.get("include_output"))


def _limit(text: str | None) -> int:
    if text is None:
        return USUALLY_LISTED
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_LISTED):
        raise Refused(f"limit: {text[:64]!r} is not a number from 1 to {MOST_LISTED}")
    return int(text)


def _metadata(request: Request) -> V2Metadata:
    return V2Metadata(rfc3339(engine_of(request).clock.now_ms()))


def _error(code: str, message: str, status: int) -> Response:
    return json_response(V2Errors([V2Error(code, message)]), status)
