"""Calls by an Inngest server, as flows: what is asked and stored before the handler runs;
`_core.plain_server` has the rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Raw

from stephttp._client.flow import Flow
from stephttp._core import plain_opening, plain_server, reports
from stephttp._core.plain_opening import Opening
from stephttp._core.plain_server import Mode, PlainCall
from stephttp._core.run import Run
from stephttp._core.waits import IsEndpoint
from stephttp._run.all_runtimes import is_endpoint
from stephttp._run.checkpoints import NEVER_ACCEPTED, Checkpoints
from stephttp._run.final_failures import failures_of
from stephttp._run.reentry_failures import refused
from stephttp._run.reentry_guard import target_of
from stephttp._run.server_question import is_ours
from stephttp._wire.http import Request, Response
from stephttp._wire.ids import CAPSULE
from stephttp._wire.opcodes import Op, OpCode
from stephttp.errors import APIError, APIStatusError, UsageError

if TYPE_CHECKING:
    from stephttp._run.resumed_run import Resumed
    from stephttp._run.scope import RunScope

logger = logging.getLogger("stephttp")

_VERSION = b"x-inngest-req-version"
_RACING_VERSION = "2"


def read_call(
    checkpoints: Checkpoints, request: Request, memos: dict[str, Raw]
) -> PlainCall | Response:
    """Return what a call is to do, or the answer, if that is to call no handler. Takes what is the
    SDK's own out of `memos`, but for the capsule."""
    if CAPSULE not in memos:  # the run is over, and its state half gone (P13)
        return nothing(checkpoints)
    races = request.header(_VERSION) == _RACING_VERSION
    call = plain_server.call_of(memos, target_of(request), races=races)
    at_once = plain_server.answer_at_once(call, _unique(checkpoints))
    return call if at_once is None else reports.ops_answer(at_once)


def nothing(checkpoints: Checkpoints) -> Response:
    """Answer that there is nothing to do."""
    return reports.ops_answer([plain_server.nothing(_unique(checkpoints))])


def next_steps(
    checkpoints: Checkpoints, resumed: Resumed, call: PlainCall, *, parked: bool
) -> Flow[Response]:
    """Answer a call whose handler cannot progress.

    Args:
        parked: whether all branches of the handler are known to stand still at steps.

    Raises:
        APIError: finished steps could not be stored, so the server must call again.
    """
    run = resumed.run
    said = plain_server.report(call, run, _unique(checkpoints), parked=parked)
    if said is None:
        message = (
            "a step that was planned is not in the handler of the processes that are asked for it: "
            "do several releases of the application take the calls of this run?"
        )
        logger.error("stephttp: run %s fails: %s", run.run_id, message)
        resumed.ended = True
        return refused(False, 500, message)
    if call.mode is Mode.TARGET and call.step not in {op.id for op in said.answer}:
        logger.info(
            "stephttp: run %s: a step that was planned is not in the handler of this process, or "
            "was cut off; it is looked for again", run.run_id,
        )  # fmt: skip
    try:
        yield from _store(checkpoints, run, said.stored)
    except APIError as problem:
        never = isinstance(problem, APIStatusError) and problem.status in NEVER_ACCEPTED
        if never or call.mode is not Mode.TARGET or said.answer[0].op is not OpCode.STEP_RUN:
            raise
        # The answer has the result all the same.
    return reports.ops_answer(said.answer)


def _store(checkpoints: Checkpoints, run: Run, ops: Sequence[Op]) -> Flow[None]:
    """Send finished steps in their order."""
    for portion in checkpoints.portions(list(ops)):
        if portion:
            yield from checkpoints.post_steps(run, portion)


def opening(checkpoints: Checkpoints, ops: list[Op]) -> Flow[Opening]:
    """Return the ops with which a run leaves its first request, and those that follow them. The
    server is asked what it is, if that is not known yet.

    Raises:
        APIError: it gives no answer, or one that does not say what it is.
    """
    ours = yield from is_ours(checkpoints)
    return Opening(ops, []) if ours else plain_opening.opening(ops)


def refusal(
    scope: RunScope, step_id: str, only_ours: Callable[[IsEndpoint], str]
) -> Flow[None] | None:
    """Return what refuses a step that only our engine can do right, on another server; `None`: any
    server can do it, or it is done, by an earlier release of the SDK.

    Args:
        only_ours: see `Wait`.
    """
    why = only_ours(is_endpoint)
    if not why:
        return None
    with scope.lock:
        done = scope.run.remembers(step_id)
    return None if done else _refuse(scope, f"step {step_id!r}: {why}")


def _refuse(scope: RunScope, why: str) -> Flow[None]:
    """Refuse a step, unless the server turns out to be our engine.

    Raises:
        UsageError: it is another server. No further call would change that.
    """
    try:
        ours = yield from is_ours(scope.runtime.checkpoints)
    except APIError:
        return  # so the run does not begin to wait, and its caller comes again
    if not ours:
        error = UsageError(why)
        failures = failures_of(scope)
        if failures is not None:
            failures.note(error)
        raise error


def _unique(checkpoints: Checkpoints) -> str:
    return f"{checkpoints.now_ns()}:{checkpoints.rng.getrandbits(64):x}"
