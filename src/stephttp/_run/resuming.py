"""The run of a re-entry: how its remembered steps are loaded, and what the server is answered
at the end (result, counted failure, retry).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from stephttp._client import api_calls
from stephttp._client.api_calls import CheckpointRun
from stephttp._client.flow import Answer, Flow, send
from stephttp._core import replies, reports
from stephttp._core.failures import describe, next_attempt
from stephttp._core.locations import ADDRESSES, absolute
from stephttp._core.plain_server import PlainCall
from stephttp._core.retry_policy import gives_up
from stephttp._core.run import Run
from stephttp._run import divergences, plain_calls
from stephttp._run.checkpoints import NEVER_ACCEPTED, Checkpoints, origin_of, path_for
from stephttp._run.flushing import RUN_IS_OVER, flush
from stephttp._run.idempotency import FURTHER_KEYS, further_keys
from stephttp._run.next_steps import next_steps
from stephttp._run.reentry_failures import (
    answer_too_large,
    fail_refused,
    misdirected,
    refused,
    unavailable,
    warn_of_lost_cookies,
)
from stephttp._run.reentry_guard import ATTEMPT, NAMES_OF_CALL, is_ours, takes_turns, target_of
from stephttp._run.resumed_run import Resumed
from stephttp._run.scope import RunScope
from stephttp._wire import capsule, stored_state
from stephttp._wire.http import Request, Response
from stephttp._wire.ids import CAPSULE
from stephttp._wire.limits import MAX_ANSWER_BYTES, MAX_CHECKPOINT_BYTES
from stephttp._wire.opcodes import Op
from stephttp._wire.stored_state import CALLS_FEATURE, CallId, MemoKind
from stephttp.errors import APIConnectionError, APIStatusError, NonRetriableError

logger = logging.getLogger("stephttp")

_UNANSWERED = stored_state.UNANSWERED.encode()
_NAMES_OF_STATE = [(name, name.encode()) for name in (stored_state.FEATURES, stored_state.FAILURES)]
_NOTHING_TO_DO = frozenset({409, 410})
"""Statuses by which a server says that this call was superseded, or that the run has ended
(docs/protocol.md 12.1)."""
_TAKEN = 423
"""Status by which our engine says that this call was delivered twice, and works already."""
_NO_SUCH_ROUTE = frozenset({404, 405})
_BAD = 400
"""From this status on, an answer may be what a framework makes of an exception, which kept the
handler from its further steps."""


def resume(
    checkpoints: Checkpoints,
    request: Request,
    state: bytes | None = None,
    doubt: Callable[[Answer], Response | None] | None = None,
) -> Flow[Resumed | Response]:
    """Load the run of a re-entry; a `Response` refuses it.

    Args:
        request: is changed into what the original caller sent.
        state: what came along, if it can be relied on.
        doubt: returns what refuses the re-entry, from an answer of the server; see `CallCheck`.
    """
    run_id = request.header(b"x-run-id")
    request_id = request.header(b"x-request-id")
    ours = is_ours(request)
    comes = ours or not takes_turns(request)  # comes again after an error
    unanswered = ours and bool(request.first_values().get(_UNANSWERED))
    call_id = _call_id(request, checkpoints.deliveries.process) if ours else None
    try:
        if state is None:
            answer = yield from send(
                api_calls.get_actions(run_id, names=True, call=call_id),
                checkpoints.keys,
                checkpoints.rng,
            )
        else:
            answer = Answer(200, _sent_along(request), state)
        refusal = None if doubt is None else doubt(answer)
        if refusal is not None:
            return refusal
        memos, names = api_calls.read_state(answer)
    except APIStatusError as error:
        refusal = None if doubt is None else doubt(Answer(error.status, {}, error.body))
        if refusal is not None:
            return refusal
        if error.status in _NOTHING_TO_DO:
            return reports.ops_answer([]) if ours else plain_calls.nothing(checkpoints)
        if error.status == _TAKEN:
            logger.info("stephttp: run %s: another process works on this call", run_id)
            return replies.error_answer(503, "another process works on this call")
        if error.status == 404:
            return replies.refused(404, f"run {run_id} is not known to the server")
        return unavailable(checkpoints, comes, f"the state of run {run_id} cannot be loaded", error)
    except APIConnectionError as error:
        return unavailable(checkpoints, comes, f"the state of run {run_id} cannot be loaded", error)
    features, target = answer.features, target_of(request)
    plain: PlainCall | None = None
    if not ours and not features:
        found = plain_calls.read_call(checkpoints, request, memos)
        if isinstance(found, Response):
            return found
        plain, target = found, found.run_target
    run = Run(run_id, memos, names=names, target=target)
    point = CheckpointRun(
        run_id, stack=list(memos), signature=request.header(b"x-inngest-signature")
    )
    stored = run.earlier.memo_of(CAPSULE)
    kept = capsule.Capsule()
    if stored is not None and stored.kind is MemoKind.VALUE:
        try:
            kept = capsule.unpack(stored.raw, run_id, checkpoints.sealer.open)
        except ValueError as error:
            return refused(plain is None, 400, f"run {run_id}: {error}")
    point.attempt = _attempt(request, run, kept.failing, plain)
    # Ours counts the failures of each step, and knows its limit.
    attempt = 0 if "step-retries" in features else point.attempt
    if checkpoints.settings.on_divergence == "fail":
        run.configure(on_divergence="fail")
    run.earlier.note_failures(attempt, api_calls.read_failures(answer))
    if stored is not None:
        capsule.restore(request, kept)
        run.carry(kept.carried)
    if ours:
        run.earlier.keep_order()
    if plain is not None and plain.first_op is not None:
        run.unreported.add(plain.first_op)
    return Resumed(
        run,
        point,
        ours=ours,
        raw_allowed="raw-response" in features,
        started_ns=checkpoints.now_ns(),
        with_result="steps-with-result" in features,
        keeps_warnings=divergences.FEATURE in features,
        takes_keys=(
            bool(checkpoints.settings.idempotency_header)
            and FURTHER_KEYS in features
            and kept.run_id is None
        ),
        keeps_streams=stored_state.STREAMS_FEATURE in features,
        unanswered=unanswered,
        request_id=request_id,
        call_id=call_id if CALLS_FEATURE in features else None,
        plain=plain,
    )


def _call_id(request: Request, process: str) -> CallId | None:
    job, attempt, step, delivery = map(request.header, NAMES_OF_CALL)
    if not job or not attempt.isdecimal():
        return None
    return CallId(job, int(attempt), step, delivery, process)


def _sent_along(request: Request) -> dict[str, str]:
    """Return the headers that the answer to `get_actions` would have had."""
    return {name: request.header(key) for name, key in _NAMES_OF_STATE}


def _attempt(request: Request, run: Run, failing: Sequence[str], plain: PlainCall | None) -> int:
    """Return how many calls for the same purpose failed before this one."""
    exact = request.header(ATTEMPT)
    if exact.isdecimal():
        return int(exact)
    text = request.header(b"x-inngest-generation-id")
    generation = max(1, int(text)) if text.isdecimal() else 1
    if plain is None:
        return generation - 1
    unsure = any(run.earlier.memo_of(step) is None for step in failing)
    return plain.failed_before(generation, failing, unsure=unsure)


def conclude(
    checkpoints: Checkpoints,
    resumed: Resumed,
    request: Request,
    response: Response,
    error: str | None = None,
    raised: BaseException | None = None,
    final: bool = False,
    scope: RunScope | None = None,
) -> Flow[Response]:
    """Answer a re-entry whose handler has ended.

    Args:
        request: what the original caller sent.
        response: what the handler sent; ignored when the run waits again.
        error: the exception that ended it, as text.
        raised: that exception itself; it may say whether and when to try again.
        final: another call would meet the same failure.
        scope: in which the handler was called.

    Raises:
        APIError: finished steps could not be stored, so the server must call again.
    """
    try:
        return (
            yield from _conclude(
                checkpoints, resumed, request, response, error, raised, final, scope
            )
        )
    except APIStatusError as problem:
        if problem.status in RUN_IS_OVER:
            if resumed.plain is not None:
                return plain_calls.nothing(checkpoints)
            return reports.ops_answer([])
        if problem.status not in NEVER_ACCEPTED:
            raise
        return (yield from fail_refused(checkpoints, resumed, problem))


def _conclude(
    checkpoints: Checkpoints,
    resumed: Resumed,
    request: Request,
    response: Response,
    error: str | None,
    raised: BaseException | None,
    final: bool,
    scope: RunScope | None,
) -> Flow[Response]:
    """Do the same, as long as the server accepts what it is sent."""
    run = resumed.run
    ended = not run.suspended and error is None and response.status < _BAD
    found, diverged = run.divergences(ended=ended), None
    if found and scope is not None and run.branched and scope.left_branches():
        found = []  # one of them might have come to what seems to be left over
    if found or run.diverged is not None:
        diverged = divergences.judge(run, request, found)
    if diverged is not None:
        final, error = True, describe(diverged)
        response = replies.error_answer(500, str(diverged))
    elif run.suspended:
        if resumed.plain is not None:
            parked = scope is not None and scope.parked
            return (
                yield from plain_calls.next_steps(
                    checkpoints, resumed, resumed.plain, parked=parked
                )
            )
        return (yield from next_steps(checkpoints, resumed, found))
    if resumed.ours and diverged is None and response.status in _NO_SUCH_ROUTE and run.met_none:
        return misdirected(run, response)
    # Only the handler says how many retries there are; our engine knows it from the first call.
    again = resumed.point.attempt < run.retries or (run.unreached and resumed.ours)
    if raised is not None:
        final = final or isinstance(raised, NonRetriableError) or gives_up(run.opts, raised)
    again = again and response.status >= 500 and not final
    if not again:  # nothing relies on steps whose writes were rolled back
        run.unreported.release_held()
    jitter, now_ns = checkpoints.rng.random, checkpoints.now_ns()
    later = next_attempt(raised, run.opts, resumed.point.attempt, now_ns, jitter) if again else None
    if any(name.lower() in ADDRESSES for name, _ in response.headers):
        origin = origin_of(request, checkpoints.settings)
        path = path_for(request, checkpoints.settings)
        headers = absolute(response.headers, origin, path, request.query)
        response = Response(response.status, headers, response.body)
    if not resumed.raw_allowed:
        warn_of_lost_cookies(run, response)

    def result(response: Response, steps: Sequence[Op] = ()) -> Response:
        complete = reports.run_complete(
            response,
            duration_ns=max(0, checkpoints.now_ns() - resumed.started_ns),
            error=error,
            raw_allowed=resumed.raw_allowed,
        )
        if found and resumed.keeps_warnings and not again:
            complete.opts = divergences.reported(found)
        if not again and resumed.takes_keys:
            keys = further_keys(checkpoints, request, response)
            complete.opts = {**(complete.opts or {}), **keys} if keys else complete.opts
        return reports.result_answer(
            complete, steps, again=again, retry_after=later, plain=not resumed.ours
        )

    if resumed.with_result and resumed.heard:
        steps = run.take_finished()
        reply = result(response, steps)
        if len(reply.body) <= MAX_CHECKPOINT_BYTES:
            resumed.ended = not again
            return reply
        run.unreported.requeue(steps)
    yield from flush(checkpoints, run, resumed.call_id)
    reply = result(response)
    if len(reply.body) > MAX_ANSWER_BYTES:
        reply = result(answer_too_large(len(reply.body)))
    resumed.ended = not again
    return reply
