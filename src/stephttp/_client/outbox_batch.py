"""One request of the outbox: as many reports as fit, and what is refused for good."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from stephttp._wire.limits import MAX_CHECKPOINT_BYTES
from stephttp.errors import APIError, APIStatusError

if TYPE_CHECKING:
    from stephttp._client.outbox import Item

logger = logging.getLogger("stephttp")

BATCH_ITEMS = 500
BATCH_BYTES = MAX_CHECKPOINT_BYTES


class Parcel(NamedTuple):
    """An encoded checkpoint, and where it goes when it goes alone."""

    path: str
    body: bytes


def pack(items: Sequence[Item]) -> tuple[list[tuple[Item, Parcel]], list[Item], Sequence[Item]]:
    """Ask items for what they have to say, as long as that fits into one request.

    Returns:
        The items to be sent, with their parcels; those that have nothing to say; those that no
        longer fit.
    """
    batch: list[tuple[Item, Parcel]] = []
    silent: list[Item] = []
    size = 2  # the brackets; each item adds a comma
    for number, item in enumerate(items):
        try:
            parcel = item.take()
        except Exception as error:
            logger.exception("stephttp: a finished run cannot be encoded and is dropped")
            item.delivered(APIStatusError(f"not sent: {error}", 400))
            parcel = None
        if parcel is None:
            silent.append(item)
            continue
        size += len(parcel.body) + 1
        if batch and size > BATCH_BYTES:
            return batch, silent, items[number:]
        batch.append((item, parcel))
    return batch, silent, ()


def refused_for_good(error: APIError) -> bool:
    """Return whether the same would be refused again."""
    return isinstance(error, APIStatusError) and error.status in (400, 404, 405, 409, 410, 413, 422)
