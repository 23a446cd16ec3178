"""The answer of a re-entry whose run waits again: 206, with what the server is to do next."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from stephttp._client.flow import Flow
from stephttp._core import replies, reports
from stephttp._core.remembered import Divergence
from stephttp._core.steps import discovery_request
from stephttp._run import divergences
from stephttp._run.checkpoints import Checkpoints
from stephttp._run.flushing import flush
from stephttp._run.resumed_run import Resumed
from stephttp._wire.http import Response
from stephttp._wire.limits import MAX_CHECKPOINT_BYTES
from stephttp.errors import APIError


def next_steps(
    checkpoints: Checkpoints, resumed: Resumed, found: Sequence[Divergence]
) -> Flow[Response]:
    """Answer for a handler that has come to a wait.

    Args:
        found: what is remembered and does not fit the handler.

    Raises:
        APIError: finished steps could not be stored.
    """
    run = resumed.run
    if resumed.with_result and not resumed.heard:
        # What could not be sent goes into the answer, which may still be read.
        with suppress(APIError):
            yield from flush(checkpoints, run, resumed.call_id)
    finished, waits = run.take_finished(), run.unreported.take_all()
    if not finished and not waits and run.targets_unknown:
        return replies.unknown_step(
            run.target, run.passed, again=resumed.point.attempt < run.retries
        )
    if not finished and not waits and not run.pending:
        # Nothing is scheduled after an empty answer: the run would hang (docs/protocol.md 6.3).
        waits = [discovery_request(str(checkpoints.now_ns()))]
    if found and resumed.keeps_warnings:
        waits.append(divergences.report(found, str(checkpoints.now_ns())))
    reply = reports.ops_answer([*finished, *waits])
    if len(reply.body) > MAX_CHECKPOINT_BYTES:
        run.unreported.requeue(finished)
        yield from flush(checkpoints, run, resumed.call_id)
        reply = reports.ops_answer(waits)
    return reply
