"""Reads what a function is invoked with, and starts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from stephttp._wire.json import UNREADABLE
from stephttp.engine.model.function_start import StartingEvent
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.rules.functions.starting import INVOKED
from stephttp.engine.web.event_message import parse_event

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Invocation:
    """A function that was invoked.

    Attributes:
        event_id: of the event that is for it alone.
        run_id: the run; `None` if the options of the function let it start later.
    """

    event_id: str
    run_id: str | None


async def invoke_function(engine: Engine, name: str, raw: bytes) -> Invocation:
    """Start one function with an event that is for it alone.

    Args:
        name: id or slug of the function.
        raw: an event as JSON, with any name or without one.

    Raises:
        Refused: the event is not acceptable, there is no such function, or it is not started.
    """
    now_ms = engine.clock.now_ms()
    event_id = new_ulid(now_ms, engine.rng)
    # Its name is the engine's to give, but all that has one must be an event.
    event = parse_event(_named(raw), engine.settings.max_event, event_id, now_ms)
    renamed = msgspec.json.decode(event.body, type=dict[str, msgspec.Raw])
    renamed["name"] = msgspec.Raw(msgspec.json.encode(INVOKED))
    first = StartingEvent(event_id, INVOKED, event.ts, msgspec.json.encode(renamed))
    return Invocation(event_id, await engine.functions.invoke(name, first))


def _named(raw: bytes) -> bytes:
    try:
        fields = msgspec.json.decode(raw or b"{}", type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise Refused("body: expected an event, an object") from None
    except UNREADABLE as error:
        raise Refused(f"body: invalid JSON: {error}") from None
    return msgspec.json.encode(fields | {"name": msgspec.Raw(b'"invoked"')})
