"""Sends events to the server: those of `step.send_event`, once, and those from outside of a
request.
"""

from __future__ import annotations

from stephttp._client import outgoing_events
from stephttp._client.flow import Flow, Keys
from stephttp._client.outgoing_events import Outgoing
from stephttp._core.steps import Step
from stephttp._core.tool_types import Event
from stephttp._run.checkpoints import Checkpoints
from stephttp.errors import ConfigurationError
from stephttp.options import DEV_EVENT_KEY


def send_events(
    checkpoints: Checkpoints, run_id: str, step: Step, events: list[Event]
) -> Flow[list[str]]:
    """Send the events of a step; returns the internal id of each.

    Raises:
        ConfigurationError: there is no event key.
        APIError: they could not be sent.
    """
    key = event_key(checkpoints)
    now_ms = checkpoints.now_ns() // 1_000_000
    outgoing = outgoing_events.prepare(step.step_id, events, run_id, step.hash, now_ms)
    return (yield from post(checkpoints, outgoing, key))


def event_key(checkpoints: Checkpoints) -> str:
    """Return the key with which events are sent.

    Raises:
        ConfigurationError: no key is configured.
    """
    key = checkpoints.settings.event_key or (DEV_EVENT_KEY if checkpoints.settings.dev else "")
    if not key:
        raise ConfigurationError(
            "event_key: none is configured, so no events can be sent; set INNGEST_EVENT_KEY, "
            "or INNGEST_DEV=1 for development"
        )
    return key


def post(checkpoints: Checkpoints, outgoing: Outgoing, key: str) -> Flow[list[str]]:
    """Send events that are prepared; returns the internal id of each."""
    origin = checkpoints.settings.event_origin
    keys = Keys()  # not the signing key: events have their own
    if not origin:
        keys.features = checkpoints.keys.features
    return (yield from outgoing_events.post(outgoing, origin, key, keys, checkpoints.rng))
