"""`POST /e/{key}` and `/v1/signals`: events and signals that come from outside
(docs/protocol.md 4.7, 4.11), with the event key.
"""

from __future__ import annotations

import binascii
import logging
from base64 import b64decode
from hmac import compare_digest
from typing import Any, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from stephttp._wire.ids import ulid
from stephttp._wire.json import UNREADABLE
from stephttp.engine.model import tokens
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.settings import Settings
from stephttp.engine.web.event_message import parse_event
from stephttp.engine.web.fields import AnswerBody, RunId
from stephttp.engine.web.requests import decode, engine_of, media_type_of, read_body, read_json
from stephttp.engine.web.responses import json_response, log_refusal, wrapped

_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 1000
_SEED = "x-inngest-event-id-seed"
_SEED_BYTES = 10
_ULID_TIME_END = 2**48
_NO_KEY = "no event key in the path; send events to /e/{key}"


class SignalMessage(Struct):
    """A signal as it is sent."""

    signal: str
    data: Raw | UnsetType = UNSET


class SignalAnswer(AnswerBody):
    """The run that waited for the signal."""

    run_id: RunId


class EventsReceived(AnswerBody):
    """An id for each event. For an empty list of events: one empty id."""

    ids: list[str]
    status: Literal[200]


class EventsRefused(AnswerBody):
    """Why no event was stored. `ids` has one empty id, and of a list of events none."""

    ids: list[str]
    status: int
    error: str


class KeyRefused(AnswerBody):
    """Why the sender may not send events."""

    status: int
    message: str
    error: str


_MANY = msgspec.json.Decoder(list[Raw])
_ONE = msgspec.json.Decoder(Raw)
_SIGNAL = msgspec.json.Decoder(SignalMessage)
_ANY = msgspec.json.Decoder()


async def receive(request: Request) -> Response:
    """Store events; the answer holds an id for each."""
    engine = engine_of(request)
    settings = engine.settings
    problem = check_key(request, request.path_params["key"])
    if problem is not None:
        return problem
    now_ms = engine.clock.now_ms()
    is_batch = False
    try:
        body = await read_body(request, settings.max_events_body)
        is_batch = body.lstrip()[:1] == b"["
        raws = _split(request, body, settings)
        seed = _seed(request.headers.get(_SEED))
        ids = [
            tokens.new_ulid(now_ms, engine.rng) if seed is None else ulid(seed[0], seed[1] + number)
            # Counted from 1, as the real server does.
            for number in range(1, len(raws) + 1)
        ]
        events = [
            parse_event(raw, settings.max_event, event_id, now_ms)
            for raw, event_id in zip(raws, ids, strict=True)
        ]
    except Refused as error:
        log_refusal(request, error.status, str(error), logging.INFO)
        # Nothing of a batch is stored, and an empty id would count as an event that was.
        return _refused(str(error), error.status, [] if is_batch else [""])
    await engine.receive(events)
    # The real server answers an empty list with one empty id.
    return json_response(EventsReceived(ids or [""], 200))


async def without_key(request: Request) -> Response:
    """Send a browser to the start page, but refuse a sender, who must not take that for success."""
    if request.method == "POST":
        return _refused(_NO_KEY, 400, [""])
    return RedirectResponse("/", 303)


async def signal(request: Request) -> Response:
    """End the wait for a signal."""
    engine = engine_of(request)
    message = await read_json(request, _SIGNAL)
    if not message.signal:
        raise Refused("signal: must not be empty")
    data = b"null" if isinstance(message.data, UnsetType) else bytes(message.data)
    decode(_ANY, data)  # What is left raw was not looked at.
    if len(data) > engine.settings.max_step_output:
        raise Refused(f"data: more than {engine.settings.max_step_output} bytes", 413)
    run_id = await engine.signal(message.signal, data)
    return wrapped(SignalAnswer(run_id), engine.clock.now_ms())


def check_key(request: Request, key: str) -> Response | None:
    """Return the answer for a sender who may not send events, and log that."""
    problem = _refuse_key(key, engine_of(request).settings)
    if problem is not None:
        log_refusal(request, problem.status_code, "no or wrong event key", logging.WARNING)
    return problem


def _refuse_key(key: str, settings: Settings) -> Response | None:
    if not settings.event_keys:
        if not settings.signing_keys:
            return None
        message = "no event keys are configured, so no events are taken"
        return json_response(KeyRefused(503, "", message), 503)
    if any(compare_digest(key.encode(), known.encode()) for known in settings.event_keys):
        return None
    return json_response(KeyRefused(401, "", "Event key not found"), 401)


def _split(request: Request, body: bytes, settings: Settings) -> list[bytes]:
    """Return the events in a request, each as JSON."""
    text = body.lstrip()
    # curl labels all that it sends as a form, also JSON, which begins as no form does.
    if media_type_of(request) == _FORM and text[:1] not in (b"{", b"["):
        return [_form(body)]
    if not text:
        raise Refused("body: expected an event, or an array of events")
    if text[:1] != b"[":
        return [bytes(decode(_ONE, text))]
    raws = [bytes(raw) for raw in decode(_MANY, text)]
    if len(raws) > settings.max_events:
        raise Refused(f"body: {len(raws)} events, at most {settings.max_events} go at once")
    return raws


def _form(body: bytes) -> bytes:
    """Return a form as an event: `name`, `id`, `ts` and `v` are the event's own, `data` is JSON,
    and all other fields are put into the data."""
    try:
        fields = parse_qs(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except UnicodeDecodeError:
        raise Refused("body: not UTF-8") from None
    except ValueError:
        raise Refused(f"body: more than {_MOST_FIELDS} form fields") from None
    single = {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
    event: dict[str, Any] = {k: single.pop(k) for k in ("name", "id", "v") if k in single}
    if "ts" in single:
        event["ts"] = _number(single.pop("ts"))
    data = _decoded(single.pop("data")) if "data" in single else {}
    if not isinstance(data, dict):
        raise Refused("data: expected a JSON object")
    return msgspec.json.encode(event | {"data": data | single})


def _decoded(text: object) -> Any:
    if not isinstance(text, str):
        raise Refused("data: expected one JSON object")
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        raise Refused("data: expected a JSON object") from None


def _number(text: object) -> int:
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20):
        raise Refused("ts: expected milliseconds since the epoch")
    return int(text)


def _seed(text: str | None) -> tuple[int, int] | None:
    """Return the time and the entropy that the sender wants for the ids of its events."""
    if not text:
        return None
    millis, _, entropy = text.partition(",")
    try:
        raw = b64decode(entropy, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    valid = millis.isascii() and millis.isdigit() and len(millis) < 20
    if not valid or int(millis) >= _ULID_TIME_END or len(raw) != _SEED_BYTES:
        raise Refused(
            f"{_SEED}: {text[:64]!r} is not <milliseconds>,<{_SEED_BYTES} bytes as base64>"
        )
    return int(millis), int.from_bytes(raw)


def _refused(message: str, status: int, ids: list[str]) -> Response:
    return json_response(EventsRefused(ids, status, message), status)
