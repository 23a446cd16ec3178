"""`setup(background=False)`, for serverless hosts: runs are delivered before their response
ends, because the process stops between requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from stephttp._client.flow import Flow, Until
from stephttp._client.outbox import Item

logger = logging.getLogger("stephttp")

DELIVERY_TIMEOUT = 10.0
"""Seconds for which a response is held back; a server that refuses connections takes less."""


def deliver_first(item: Item, put: Callable[[], object], run_id: str) -> Flow[None]:
    """Put an item into the outbox, and wait until its delivery was tried.

    What could not be delivered stays in the outbox, and is tried again with the next request.

    Args:
        put: puts it there.
    """
    tried: Future[bool] = Future()
    item.awaited, item.tried = True, tried
    put()
    if not item.held and not tried.done():
        return  # The outbox is full, and has said so; or the item was delivered at this moment.
    if item.held:
        yield Until(tried, DELIVERY_TIMEOUT)
    if item.held or not tried.done() or not tried.result():
        logger.warning(
            "stephttp: run %s is not delivered yet, because the server gives no answer; a later "
            "request of this process tries again", run_id,
        )  # fmt: skip
