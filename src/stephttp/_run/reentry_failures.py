"""The answer of a re-entry where the server is away or refuses a report: 503, the failure of
the run, or an answer that is too large.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stephttp._client.flow import Flow
from stephttp._core import replies, reports
from stephttp._core.run import Run
from stephttp._run.checkpoints import Checkpoints
from stephttp._run.flushing import save_the_others
from stephttp._wire.http import Response
from stephttp._wire.ids import hash_step_id
from stephttp._wire.limits import MAX_ANSWER_BYTES
from stephttp.errors import APIError, APIStatusError

if TYPE_CHECKING:
    from stephttp._run.resumed_run import Resumed

logger = logging.getLogger("stephttp")


def unavailable(checkpoints: Checkpoints, comes: bool, what: str, error: APIError) -> Response:
    """The answer to a re-entry that cannot continue, because the server's API does not work.

    Our engine takes a 503 for what it is. A real server would count it as an attempt, and
    after the last one leave the run hanging, so it is asked to come again; but a call of one step
    has to come again as that, because the step is planned only once.

    Args:
        comes: whether the same call comes again after an error.
    """
    logger.error("stephttp: %s: %s", what, error)
    if comes:
        return replies.error_answer(503, f"{what}: {error}", headers=replies.RETRY_SOON)
    op_id = hash_step_id(f"stephttp:again:{checkpoints.now_ns()}")
    return replies.call_again(503, what, replies.RETRY_SOON, op_id)


def refused(ours: bool, status: int, message: str) -> Response:
    """End a run that cannot continue. A real server gives such an answer to the caller as a
    success, unless it is in the form of a result (docs/protocol.md 13.6)."""
    if ours:
        return replies.refused(status, message)
    answer = replies.error_answer(status, message)
    complete = reports.run_complete(answer, duration_ns=0, error=message)
    return reports.result_answer(complete, plain=True)


def fail_refused(
    checkpoints: Checkpoints, resumed: Resumed, problem: APIStatusError
) -> Flow[Response]:
    """End a run with a step that the server would never take. Returns the answer."""
    run = resumed.run
    logger.error("stephttp: run %s fails: %s", run.run_id, problem)
    yield from save_the_others(checkpoints, run, resumed.call_id)
    message = f"a step was refused: {problem}"
    complete = reports.run_complete(
        replies.error_answer(500, message),
        duration_ns=max(0, checkpoints.now_ns() - resumed.started_ns),
        error=message,
    )
    resumed.ended = True
    return reports.result_answer(complete, plain=not resumed.ours)


def warn_of_lost_cookies(run: Run, response: Response) -> None:
    """Log that a real server carries one cookie only, where the answer sets several."""
    cookies = sum(name == b"set-cookie" for name, _ in response.headers)
    if cookies > 1:
        logger.warning(
            "stephttp: run %s sets %d cookies, of which this server can carry one",
            run.run_id, cookies,
        )  # fmt: skip


def misdirected(run: Run, response: Response) -> Response:
    """Report that an application has no such route, so that the engine calls again."""
    logger.warning(
        "stephttp: run %s: the application answered %d and came to none of its steps; the "
        "engine will call again", run.run_id, response.status,
    )  # fmt: skip
    return replies.misdirected(response)


def answer_too_large(size: int) -> Response:
    """Return what stands for a handler's response that has so many bytes as JSON."""
    return replies.error_answer(
        500,
        f"the response of a resumed handler has {size} bytes as JSON; "
        f"at most {MAX_ANSWER_BYTES} can be delivered",
    )
