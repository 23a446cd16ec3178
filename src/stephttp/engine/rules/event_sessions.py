"""Sessions, to which events and the runs that they start belong (docs/protocol.md 1.5). Pure.

An event names them in `meta.sessions`, by key. What a run sends carries the sessions of the run in
`meta.propagated_sessions`; the event's own count before these, and one that is null cuts a session
off, or all of them.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from stephttp.engine.model.refused import Refused

MOST_SESSIONS = 5
_LONGEST = 1000
"""Characters of a key, and of an id."""


def read_meta(meta: Any, field: str) -> dict[str, Any] | None:
    """Return `meta` of an event as functions get it; `None` if that is empty.

    Args:
        meta: as it was sent, decoded.
        field: where it stands, for the error.

    Raises:
        Refused: it is not acceptable; the text names the field.
    """
    if meta is None:
        return None
    if not isinstance(meta, dict):
        raise Refused(f"{field}: expected an object, got {type(meta).__name__}")
    sessions: dict[str, str] = {}
    own = meta.get("sessions", {})
    if own is not None:
        inherited = meta.get("propagated_sessions") or {}
        sessions = _read(inherited, f"{field}.propagated_sessions")
        kept = _read(own, f"{field}.sessions")
        cut = {key for key, value in own.items() if value is None}
        sessions = {key: id_ for key, id_ in (sessions | kept).items() if key not in cut}
    if len(sessions) > MOST_SESSIONS:
        raise Refused(f"{field}.sessions: {len(sessions)}, at most {MOST_SESSIONS} are accepted")
    return {"sessions": sessions} if sessions else None


def sessions_of(events: bytes) -> dict[str, str]:
    """Return the sessions of a run: those that all the events have that started it.

    Args:
        events: a JSON array.
    """
    first, *others = (one.meta.sessions for one in _EVENTS.decode(events))
    return {key: id_ for key, id_ in first.items() if all(one.get(key) == id_ for one in others)}


class _Meta(msgspec.Struct, frozen=True):
    sessions: dict[str, str] = {}


class _Sessions(msgspec.Struct):
    meta: _Meta = _Meta()


_EVENTS = msgspec.json.Decoder(list[_Sessions])


def _read(sessions: Any, field: str) -> dict[str, str]:
    if not isinstance(sessions, dict):
        raise Refused(f"{field}: expected an object, got {type(sessions).__name__}")
    return {key: _id(key, value, field) for key, value in sessions.items() if value is not None}


def _id(key: str, value: Any, field: str) -> str:
    if not 1 <= len(key) <= _LONGEST:
        raise Refused(f"{field}: keys have 1 to {_LONGEST} characters")
    where = f"{field}.{key[:64]}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Refused(f"{where}: expected text or a number, got {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"{where}: expected a finite number")
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if not 1 <= len(text) <= _LONGEST:
        raise Refused(f"{where}: must have 1 to {_LONGEST} characters")
    return text
