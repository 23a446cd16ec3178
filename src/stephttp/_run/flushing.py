"""Finished steps of a re-entry that are sent before its answer, or apart from it."""

from __future__ import annotations

from contextlib import suppress

from stephttp._client.flow import Flow
from stephttp._core.run import Run
from stephttp._run.checkpoints import Checkpoints
from stephttp._wire.stored_state import CallId
from stephttp.errors import APIStatusError


def flush(checkpoints: Checkpoints, run: Run, call_id: CallId | None) -> Flow[bool]:
    """Send the finished steps of a resumed run while its handler runs.

    However it ends, steps that are not known to be stored are back with the run.

    Returns:
        Whether there were any.

    Raises:
        APIError: not all could be stored.
    """
    any_sent = False
    while ops := run.take_finished():
        for portion in checkpoints.portions(ops):
            try:
                yield from checkpoints.post_steps(run, portion, call_id)
            except BaseException:
                run.unreported.requeue(ops[ops.index(portion[0]) :])
                raise
        any_sent = True
    return any_sent


def save_the_others(checkpoints: Checkpoints, run: Run, call_id: CallId | None) -> Flow[None]:
    """Send finished steps one by one, since the server refuses one of those that came together."""
    for op in run.take_finished():
        with suppress(APIStatusError):
            yield from checkpoints.post_steps(run, [op], call_id)
