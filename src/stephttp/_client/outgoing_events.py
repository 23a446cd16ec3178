"""Events that are sent (docs/protocol.md 4.7), SDK side: their checks, ids, and the request
to `/e/{key}`.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable
from hashlib import sha1
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from stephttp._client.api_calls import JSON_HEADERS
from stephttp._client.flow import Answer, APICall, Flow, Keys, send
from stephttp._core.encoding import encode_argument
from stephttp._core.tool_types import Event, EventLike
from stephttp._wire.json import UNREADABLE
from stephttp.errors import APIStatusError

_MAX_EVENTS = 5000
"""The most that a server accepts in one request (docs/protocol.md 10)."""


class _Ids(Struct):
    ids: list[str]


_ids = msgspec.json.Decoder(_Ids)


class Outgoing(Struct, frozen=True):
    """Events of one step, ready to be sent as often as it takes.

    Args:
        events: each with an id of its own.
        seed: value of the header that makes the server give the same internal ids again.
    """

    events: list[Event]
    body: bytes
    seed: str


def check(step_id: str, events: EventLike | Iterable[EventLike]) -> list[Event]:
    """Return the events that a step was given, as a list.

    Raises:
        TypeError: something in it is not an event.
        ValueError: no event or too many, or one without a name, with a reserved one, or without a
            JSON form.
    """
    if not isinstance(events, EventLike | Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"step {step_id!r}: events must be a stephttp.Event, or several, not {events!r}"
        )
    given = [events] if isinstance(events, EventLike) else list(events)
    found = [_event(event, f"step {step_id!r}: events[{n}]") for n, event in enumerate(given)]
    if not 0 < len(found) <= _MAX_EVENTS:
        raise ValueError(f"step {step_id!r}: {len(found)} events; 1 to {_MAX_EVENTS} can be sent")
    for index, event in enumerate(found):
        where = f"step {step_id!r}: events[{index}]"
        if not event.name:
            raise ValueError(f"{where}.name must not be empty")
        if event.name.startswith("inngest/"):
            raise ValueError(f"{where}.name: {event.name!r}: 'inngest/' is for the server's own")
        encode_argument(event.data, step_id, f"events[{index}].data", None)
    return found


def _event(event: EventLike, where: str) -> Event:
    if isinstance(event, Event):
        return event
    if not isinstance(event, EventLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{where} must be a stephttp.Event, not {event!r}")
    return Event(name=event.name, data=dict(event.data), id=event.id, ts=event.ts)


def prepare(
    step_id: str, events: list[Event], run_id: str, step_hash: str, now_ms: int
) -> Outgoing:
    """Give the events ids and a seed, so that sending them again is harmless.

    A repeated request carries the same seed, so that it makes no second event. A repeated step,
    whose first execution was lost, sends the same ids, by which its receivers deduplicate. The
    seed's time is the present and not the run's: servers take it for the time of arrival.
    """
    named = [
        replace(event, id=event.id or f"{run_id}-{step_hash[:12]}-{index}")
        for index, event in enumerate(events)
    ]
    entropy = sha1(f"{run_id}:{step_hash}".encode(), usedforsecurity=False).digest()[:10]
    seed = f"{now_ms},{base64.b64encode(entropy).decode()}"
    return Outgoing(named, encode_argument(named, step_id, "events", None), seed)


def post(
    outgoing: Outgoing, origin: str, key: str, keys: Keys, rng: random.Random
) -> Flow[list[str]]:
    """Send events.

    Args:
        origin: where they go; empty for the API's own.
        key: the event key.
        keys: what is known of who takes them; without a signing key.

    Returns:
        The internal id of each, in order.

    Raises:
        APIError: they could not be sent.
    """
    headers = {**JSON_HEADERS, "x-inngest-event-id-seed": outgoing.seed}
    call = APICall(
        "POST", f"{origin}/e/{quote(key, safe='')}", outgoing.body, headers, label=f"{origin}/e/…"
    )
    answer = yield from send(call, keys, rng)
    return _read(answer, call)


def _read(answer: Answer, call: APICall) -> list[str]:
    try:
        return _ids.decode(answer.body).ids
    except UNREADABLE as error:
        raise APIStatusError(
            f"{call}: cannot read the answer: {error}", answer.status, answer.body
        ) from error
