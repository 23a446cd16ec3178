"""Types that tools take and return: `Event`, `ReceivedEvent`, `Signal`, `FetchResponse`,
`EndpointResult`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

MatchValue = str | int | float | bool | None
"""A value of an event that a wait asks for."""


class Event(Struct, omit_defaults=True, kw_only=True):
    """An event, as it is sent and as a waiting step receives it (docs/protocol.md 1.5).

    Attributes:
        name: what happened, for example `order/packed`.
        data: plain JSON.
        id: deduplicates: of two events with the same id the second starts nothing.
        ts: when it happened, milliseconds since the epoch; 0 leaves it to the server.
    """

    name: str
    data: dict[str, Any] = {}
    id: str = ""
    ts: int = 0


@runtime_checkable
class EventLike(Protocol):
    """An event that can be sent: an `Event`, or an `inngest.Event`."""

    @property
    def name(self) -> str: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def id(self) -> str: ...
    @property
    def ts(self) -> int: ...


class ReceivedEvent(Struct):
    """An event on the wire, where `data` may be null."""

    name: str
    data: dict[str, Any] | None = None
    id: str = ""
    ts: int = 0

    def event(self) -> Event:
        """Return it as the handler gets it."""
        return Event(name=self.name, data=self.data or {}, id=self.id, ts=self.ts)


class Signal(Struct, kw_only=True):
    """A signal that a waiting step received.

    Attributes:
        signal: its name.
        data: what was sent with it, plain JSON.
    """

    signal: str
    data: Any = None


class FetchResponse(Struct, kw_only=True):
    """The answer to `step.fetch`; any status is an answer.

    Attributes:
        url: the address that answered.
        status_code: HTTP status.
        headers: one value a name; those of a repeated header are joined by a comma.
        body: text.
    """

    url: str = ""
    status_code: int = 0
    headers: dict[str, str] = {}
    body: str = ""

    def json(self, type: Any = Any) -> Any:
        """Decode the body as JSON.

        Args:
            type: the type to decode it into; plain JSON without one.

        Returns:
            The decoded body.

        Raises:
            msgspec.DecodeError: it is not JSON.
            msgspec.ValidationError: it does not fit `type`.
        """
        return msgspec.json.decode(self.body, type=type)


class EndpointResult(Struct):
    """What invoking a durable endpoint gives: the HTTP response that it ended with."""

    status: int
    headers: dict[str, str] = {}
    body: str = ""
    encoding: str = ""
    """`base64` for a body that is not text; only the stephttp engine sends such."""
