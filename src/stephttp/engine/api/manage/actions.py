"""`/v1/stephttp/...`: what people do; rerun, cancel and resume runs, also many, and send
events by hand.
"""

from __future__ import annotations

import binascii
from base64 import b64decode

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.manage.browsing import read_filter
from stephttp.engine.bulk import MOST_RUNS
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import RunFilter
from stephttp.engine.rules.reruns import Edit
from stephttp.engine.web.event_message import store_event
from stephttp.engine.web.fields import AnswerBody, RunId
from stephttp.engine.web.requests import decode, engine_of, parse_run_id, read_body, read_json
from stephttp.engine.web.responses import wrapped


class RerunRequest(Struct):
    """How a run is to be repeated; an empty object: as it was.

    `body` (base64) is for the request. `step_id` names the first step that is run again, `output`
    is what it returns without being run, `input` what it is run with.
    """

    body: str | None = None
    step_id: str | None = None
    output: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET


class ResumeRequest(Struct):
    """Which step is to wait no longer; an empty object: all that wait for a time only."""

    step_id: str | None = None


class NewRunId(AnswerBody):
    """The run that was begun."""

    run_id: RunId


class EndedWaits(AnswerBody):
    """How many waits have ended."""

    waits: int


class SentEventId(AnswerBody):
    """The event that was sent."""

    internal_id: str


_RERUN = msgspec.json.Decoder(RerunRequest)
_RESUME = msgspec.json.Decoder(ResumeRequest)
_ANY = msgspec.json.Decoder()


async def rerun(request: Request) -> Response:
    """Run the request of a run again."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    message = await read_json(request, _RERUN, empty=b"{}")
    limit = engine.settings.max_step_output
    edit = Edit(
        body=None if message.body is None else _base64(message.body),
        step_id=message.step_id,
        output=_json(message.output, "output", limit),
        input=_json(message.input, "input", limit),
    )
    rerun_id = await engine.rerun(run_id, edit)
    return wrapped(NewRunId(rerun_id), engine.clock.now_ms())


async def resume(request: Request) -> Response:
    """Resume a run now."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    message = await read_json(request, _RESUME, empty=b"{}")
    waits = await engine.resume(run_id, message.step_id)
    return wrapped(EndedWaits(waits), engine.clock.now_ms())


async def cancel_many(request: Request) -> Response:
    """End the runs that a filter finds, as cancelled."""
    engine = engine_of(request)
    wanted, limit = _read_order(request)
    return wrapped(await engine.bulk.cancel(wanted, limit), engine.clock.now_ms())


async def rerun_many(request: Request) -> Response:
    """Run the requests of the runs that a filter finds again."""
    engine = engine_of(request)
    wanted, limit = _read_order(request)
    return wrapped(await engine.bulk.rerun(wanted, limit), engine.clock.now_ms())


async def send_event(request: Request) -> Response:
    """Send an event, with the permission that a signing key gives."""
    engine = engine_of(request)
    event_id = await store_event(engine, await read_body(request, engine.settings.max_event))
    return wrapped(SentEventId(event_id), engine.clock.now_ms())


def _read_order(request: Request) -> tuple[RunFilter, int]:
    query = request.query_params
    wanted = read_filter(query)
    if wanted == RunFilter() and query.get("all") != "true":
        raise Refused("all: an order without a filter needs all=true")
    text = query.get("limit", str(MOST_RUNS))
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MOST_RUNS):
        raise Refused(f"limit: {text[:64]!r} is not a number from 1 to {MOST_RUNS}")
    return wanted, int(text)


def _json(raw: Raw | UnsetType, field: str, limit: int) -> bytes | None:
    if isinstance(raw, UnsetType):
        return None
    decode(_ANY, bytes(raw))  # What is left raw was not looked at.
    if len(raw) > limit:
        raise Refused(f"{field}: more than {limit} bytes", 413)
    return bytes(raw)


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("body: not base64") from None
