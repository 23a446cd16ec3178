"""Reads one event as people send it (name, data, id, time), and stores it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from stephttp.engine.model.inputs import EventArrival
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.rules.event_sessions import read_meta
from stephttp.engine.rules.nesting import DEEPEST, is_deep_json
from stephttp.engine.web.requests import decode

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_EARLIEST_MS = 315_532_800_000  # 1980
_LATEST_MS = 4_102_444_800_000  # 2100
_RESERVED = "inngest/"

_Object = Annotated[Raw, Meta(extra_json_schema={"type": ["object", "null"]})]


class EventMessage(Struct):
    """An event as it is sent (docs/protocol.md 1.5)."""

    name: str = ""
    data: _Object | UnsetType = UNSET
    id: str | None = None
    ts: int | float | None = None
    user: _Object | UnsetType = UNSET
    meta: _Object | UnsetType = UNSET
    v: str | None = None


_EVENT = msgspec.json.Decoder(EventMessage)
_ANY = msgspec.json.Decoder()


def parse_event(raw: bytes, limit: int, event_id: str, now_ms: int) -> EventArrival:
    """Check an event, and make it into the value that is stored.

    Args:
        raw: the event as JSON, as senders send it.
        limit: bytes that it may have.
        event_id: its internal id.

    Raises:
        Refused: it is not acceptable; the text names the field.
    """
    if len(raw) > limit:
        raise Refused(f"Event is over the max size: Max {limit} bytes / Size {len(raw)} bytes")
    message = decode(_EVENT, raw)
    if not message.name:
        raise Refused("event name is empty")
    if message.name.startswith(_RESERVED):
        raise Refused(
            f"event name {message.name[:200]!r}: names beginning {_RESERVED!r} are reserved"
        )
    ts = _ts(message.ts, now_ms)
    body: dict[str, Any] = {
        "data": _object("data", message.data),
        "id": message.id or event_id,
        "name": message.name,
        "ts": ts,
    }
    if not isinstance(message.user, UnsetType):
        body["user"] = _object("user", message.user)
    if not isinstance(message.meta, UnsetType):
        meta = read_meta(decode(_ANY, bytes(message.meta)), "meta")
        if meta is not None:
            body["meta"] = meta
    if message.v:
        body["v"] = message.v
    return EventArrival(
        event_id=event_id,
        name=message.name,
        dedupe=message.id or None,
        received_ms=now_ms,
        ts=ts,
        body=msgspec.json.encode(body),
    )


async def store_event(engine: Engine, raw: bytes) -> str:
    """Store one event, given as JSON, as if it had been sent, and return its internal id.

    Raises:
        Refused: it is not acceptable.
    """
    now_ms = engine.clock.now_ms()
    event_id = new_ulid(now_ms, engine.rng)
    await engine.receive([parse_event(raw, engine.settings.max_event, event_id, now_ms)])
    return event_id


def _object(field: str, raw: Raw | UnsetType) -> Raw:
    """A field that must be an object, or null, or absent, as it came."""
    if isinstance(raw, UnsetType):
        return Raw(b"{}")
    value = decode(_ANY, bytes(raw))  # Raw parts are not checked yet.
    if value is None:
        return Raw(b"{}")
    if not isinstance(value, dict):
        raise Refused(f"{field}: expected an object, got {type(value).__name__}")
    if is_deep_json(bytes(raw)):
        raise Refused(f"{field}: nested more than {DEEPEST} levels deep")
    return raw


def _ts(ts: float | None, now_ms: int) -> int:
    if not ts:
        return now_ms
    if ts != int(ts) or not _EARLIEST_MS <= ts <= _LATEST_MS:
        raise Refused(
            f"ts: {ts} is not a whole number of milliseconds since the epoch, from 1980 to 2100"
        )
    return int(ts)
