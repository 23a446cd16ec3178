"""What the outbox delivers: an item, and the parcels in which it is sent."""

from __future__ import annotations

import logging
from typing import NamedTuple

from stephttp.errors import APIError

logger = logging.getLogger("stephttp")


class Parcel(NamedTuple):
    """An encoded checkpoint, and where it goes when it goes alone."""

    path: str
    body: bytes


class Item:
    """Something to be delivered: here a run that has ended, encoded.

    The outbox calls its methods in any thread, and none of them while it holds its own lock.
    """

    __slots__ = ("_parcel", "accounted", "changed", "held")

    def __init__(self, parcel: Parcel | None = None) -> None:
        self._parcel = parcel
        self.held = False
        """True if the outbox has it, in its queue or under way."""
        self.accounted = 0
        self.changed = False
        """True if it was put again since it was last asked what is to be sent."""

    def size(self) -> int:
        """Return how many bytes it keeps, roughly."""
        return 0 if self._parcel is None else len(self._parcel.body)

    def take(self) -> Parcel | None:
        """Return what is to be sent, the same until `delivered` is called; `None`: nothing."""
        return self._parcel

    def answered(self, body: bytes) -> None:
        """Note the answer to an item that was sent alone."""

    def delivered(self, error: APIError | None) -> bool:
        """Note that it was accepted, or refused for good; return whether there is more."""
        if error is not None:
            logger.error("stephttp: the server refused a finished run: %s", error)
        return False
