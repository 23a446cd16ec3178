"""What the server is answered when the handler of a re-entry has ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from stephttp._client import api_calls
from stephttp._client.flow import Flow
from stephttp._core import replies
from stephttp._core.failures import retry_after
from stephttp._core.run import Run
from stephttp._core.steps import discovery_request
from stephttp._run.checkpoints import Checkpoints
from stephttp._run.resume import Resumed
from stephttp._wire.http import Response
from stephttp._wire.limits import MAX_ANSWER_BYTES, MAX_CHECKPOINT_BYTES
from stephttp._wire.opcodes import Op
from stephttp.errors import APIError, APIStatusError, NonRetriableError

logger = logging.getLogger("stephttp")

_RUN_IS_OVER = frozenset({404, 409, 410})
_NEVER_ACCEPTED = frozenset({400, 413, 422})


def flush(checkpoints: Checkpoints, run: Run) -> Flow[None]:
    """Send the finished steps of a resumed run while its handler runs.

    However it ends, steps that are not known to be stored are back with the run.

    Raises:
        APIError: not all could be stored.
    """
    while ops := run.take_finished():
        for portion in api_calls.portions(ops):
            try:
                yield from checkpoints.post_steps(run, portion)
            except BaseException:
                run.requeue(ops[ops.index(portion[0]) :])
                raise


def conclude(
    checkpoints: Checkpoints,
    resumed: Resumed,
    response: Response,
    error: str | None = None,
    raised: BaseException | None = None,
) -> Flow[Response]:
    """Answer a re-entry whose handler has ended.

    Args:
        response: what the handler sent; ignored when the run waits again.
        error: the exception that ended it, as text.
        raised: that exception itself; it may say whether and when to try again.

    Raises:
        APIError: finished steps could not be stored, so the server must call again.
    """
    run = resumed.run
    if run.suspended:
        return (yield from _next_steps(checkpoints, resumed))
    # Only the handler says how many retries there are; our engine knows it from the first call.
    again = resumed.attempt < run.retries or (run.unreached and resumed.ours)
    again = again and response.status >= 500 and not isinstance(raised, NonRetriableError)
    later = retry_after(raised, checkpoints.now_ns()) if again else None
    if not resumed.raw_allowed:
        _warn_of_lost_cookies(run, response)

    def result(response: Response, steps: Sequence[Op] = ()) -> Response:
        complete = replies.run_complete(
            response,
            duration_ns=max(0, checkpoints.now_ns() - resumed.started_ns),
            error=error,
            raw_allowed=resumed.raw_allowed,
        )
        return replies.result_answer(complete, steps, again=again, retry_after=later)

    if resumed.with_result and resumed.heard:
        steps = run.take_finished()
        reply = result(response, steps)
        if len(reply.body) <= MAX_CHECKPOINT_BYTES:
            resumed.ended = not again
            return reply
        run.requeue(steps)
    try:
        yield from flush(checkpoints, run)
    except APIStatusError as problem:
        if problem.status in _RUN_IS_OVER:
            return replies.ops_answer([])
        if problem.status not in _NEVER_ACCEPTED:
            raise
        logger.error("stephttp: run %s fails: %s", run.run_id, problem)
        response, again = replies.error_answer(500, f"a step was refused: {problem}"), False
    reply = result(response)
    if len(reply.body) > MAX_ANSWER_BYTES:
        message = (
            f"the response of a resumed handler has {len(reply.body)} bytes as JSON; "
            f"at most {MAX_ANSWER_BYTES} can be delivered"
        )
        reply = result(replies.error_answer(500, message))
    resumed.ended = not again
    return reply


def _next_steps(checkpoints: Checkpoints, resumed: Resumed) -> Flow[Response]:
    run = resumed.run
    if resumed.with_result and not resumed.heard:
        with suppress(
            APIError
        ):  # what could not be sent goes into the answer, which may still be read
            yield from flush(checkpoints, run)
    finished, waits = run.take_finished(), run.take_ops()
    if not finished and not waits and run.targets_unknown:
        return replies.unknown_step(run, again=resumed.attempt < run.retries)
    if not finished and not waits and not run.pending:
        # Nothing is scheduled after an empty answer: the run would hang (docs/protocol.md 6.3).
        waits = [discovery_request(str(checkpoints.now_ns()))]
    reply = replies.ops_answer([*finished, *waits])
    if len(reply.body) > MAX_CHECKPOINT_BYTES:
        run.requeue(finished)
        yield from flush(checkpoints, run)
        reply = replies.ops_answer(waits)
    return reply


def _warn_of_lost_cookies(run: Run, response: Response) -> None:
    cookies = sum(name == b"set-cookie" for name, _ in response.headers)
    if cookies > 1:
        logger.warning(
            "stephttp: run %s sets %d cookies, of which this server can carry one",
            run.run_id, cookies,
        )  # fmt: skip
