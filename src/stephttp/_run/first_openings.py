"""The opening of a run whose endpoint refuses requests over its limits (docs/protocol.md 14,
`run-limits`).

It has a lease: should the process die, the engine takes the run over, and its place is free.
"""

from __future__ import annotations

import logging

from stephttp._client import api_calls
from stephttp._client.flow import Flow, send
from stephttp._core import replies
from stephttp._core.run import Run
from stephttp._run.checkpoints import Checkpoints
from stephttp._wire.http import Request, Response
from stephttp.errors import APIError

logger = logging.getLogger("stephttp")


def open_run(
    checkpoints: Checkpoints, run: Run, request: Request, lease: int
) -> Flow[Response | None]:
    """Open a run, unless its limits have no room.

    Args:
        lease: milliseconds.

    Returns:
        What the caller gets whose request is refused; `None`: the run is open.
    """
    keys = checkpoints.keys
    if keys.features is None:  # it may be another server, which would open every run
        return _unavailable(run, "the server could not be asked what it is")
    ops = [checkpoints.remember(run, request)]
    body = checkpoints.first_checkpoint(run, request, ops, lease, within_limits=True)
    call = api_calls.post_new_run(body)
    try:
        opened = api_calls.read_new_run((yield from send(call, keys, checkpoints.rng)))
    except APIError as error:
        return _unavailable(run, error)
    if not opened.retry_after:
        return None
    logger.info("stephttp: a request is refused: the limits of %s have no room",
                run.opts.id or request.endpoint)  # fmt: skip
    seconds = str(opened.retry_after).encode()
    message = "this endpoint is at its limit; repeat the request after the seconds of Retry-After"
    return replies.error_answer(429, message, headers=[(b"retry-after", seconds)])


def _unavailable(run: Run, why: object) -> Response:
    logger.error("stephttp: run %s: its limits cannot be checked: %s", run.run_id, why)
    # To continue could be more than the application can bear.
    message = "the limits of this endpoint cannot be checked now"
    return replies.error_answer(503, message, headers=replies.RETRY_SOON)
