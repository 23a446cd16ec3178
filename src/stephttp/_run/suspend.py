"""The end of a first call whose run must wait: the steps go to the server, and the caller
gets a redirect (303), a token, or an answer of your own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from stephttp._client import api_calls
from stephttp._client.flow import RETRIED_STATUSES, Flow, Invoke, send
from stephttp._core import replies
from stephttp._core.endpoint_options import (
    AsyncRequest,
    AsyncResponseCustom,
    AsyncResponseToken,
)
from stephttp._core.run import Run
from stephttp._run.checkpoints import NEVER_ACCEPTED, Checkpoints
from stephttp._wire.http import (
    Request,
    Response,
    json_response,
    read_prefer,
    reads_any_events,
    wants_events,
)
from stephttp._wire.json import UNREADABLE, encode_struct
from stephttp._wire.limits import MAX_CHECKPOINT_BYTES
from stephttp._wire.opcodes import Op
from stephttp._wire.result_address import Pending
from stephttp.errors import APIError, APIStatusError, ConfigurationError
from stephttp.options import Settings

if TYPE_CHECKING:
    from stephttp._run.journal import Journal

logger = logging.getLogger("stephttp")

_TAKEN_OVER = 409
"""Status by which our engine says that a run is in the hands of another call by now."""

Room = Callable[[float], AbstractContextManager[float]]
"""Holds a caller while a block runs; provides for how many seconds, of those that are wished."""


class _ErrorBody(msgspec.Struct):
    error: str


_error_body = msgspec.json.Decoder(_ErrorBody)


class CannotContinueError(Exception):
    """A run has to wait, and the server does not take it.

    Attributes:
        answer: what its caller gets.
        ops: reports that have not reached the server.
        known: whether the server has the run.
        temporary: whether the server may take it later.
    """

    def __init__(
        self,
        answer: Response,
        reason: str,
        ops: Sequence[Op] = (),
        known: bool = False,
        *,
        temporary: bool = False,
    ) -> None:
        super().__init__(reason)
        self.answer = answer
        self.ops = ops
        self.known = known
        self.temporary = temporary


def suspend(
    checkpoints: Checkpoints,
    run: Run,
    request: Request,
    journal: Journal | None = None,
    *,
    streams: bool = False,
    room: Room = nullcontext,
) -> Flow[Response]:
    """Hand a run that must wait to the server. Returns what its caller gets.

    Args:
        streams: the caller gets events already.
        room: provides for how many seconds the caller may be held, of those that it wishes.

    Raises:
        CannotContinueError: the server does not take it.
    """
    if not request.path.startswith("/"):
        # A server appends the path to the origin, which must not become another one by that.
        message = "a request that must wait needs a path"
        raise CannotContinueError(replies.error_answer(400, message), message)
    if journal is not None:
        yield from journal.hand_over()
    ops = [*(journal.unconfirmed if journal else ()), *run.unreported.take_all()]
    known = journal is not None and journal.opened
    remember = checkpoints.remember(run, request, ops)
    token = journal.token if journal else ""
    stream_token = ""
    try:
        begins, apart = ops, list[Op]()
        if not checkpoints.keys.features:
            from stephttp._run import plain_calls

            begins, apart = yield from plain_calls.opening(checkpoints, ops)
            if run.limits is not None:  # the server could not be asked before the handler began
                from stephttp._run import limited_runs

                if why := limited_runs.refusal(checkpoints):
                    raise CannotContinueError(replies.error_answer(500, why), why, ops, known)
        # With a lease, our engine takes a first checkpoint of a run that it knows for an update.
        lease = journal.lease.to_ask_ms if journal else None
        later = [[remember, *begins], apart]
        if journal is None or not journal.opened or lease is not None:
            checkpoint = checkpoints.first_checkpoint(run, request, [remember, *begins], lease)
            later = [apart]
            many = checkpoints.is_plain and len(begins) > api_calls.MOST_OPS
            if many or len(checkpoint) > MAX_CHECKPOINT_BYTES:
                smallest = len(checkpoints.first_checkpoint(run, request, [remember]))
                if smallest > MAX_CHECKPOINT_BYTES:
                    _check_size(checkpoints, request, ops)
                now, *rest = checkpoints.portions(begins, already=smallest)
                later = [*rest, apart]
                first = [remember, *now]
                checkpoint = checkpoints.first_checkpoint(run, request, first, lease)
            try:
                call = api_calls.post_new_run(checkpoint)
                answer = yield from send(call, checkpoints.keys, checkpoints.rng)
            except APIStatusError as error:
                if error.status != _TAKEN_OVER or lease is None:
                    raise
                # What is new was kept, and the caller still has to learn where the result is.
                later = []
                call = api_calls.post_new_run(checkpoints.first_checkpoint(run, request, [], lease))
                answer = yield from send(call, checkpoints.keys, checkpoints.rng)
            made = api_calls.read_new_run(answer)
            token, stream_token = made.token, made.realtime_token
            known = True
        for portions in later:
            for portion in checkpoints.portions(portions):
                if portion:
                    yield from checkpoints.post_steps(run, portion)
    except APIError as error:
        logger.error("stephttp: run %s must wait, but the server did not take it: %s",
                     run.run_id, error)  # fmt: skip
        if isinstance(error, APIStatusError) and error.status in NEVER_ACCEPTED:
            reason = f"the engine refused the run: {_reason_of(error)}"
            status = 413 if error.status == 413 else 500
            raise CannotContinueError(
                replies.error_answer(status, reason), reason, ops, known
            ) from error
        if journal is not None:
            yield from journal.settle()
            known = known or journal.opened
        reason = f"the engine did not take the run: {error}"
        raise CannotContinueError(_not_taken(error), reason, ops, known, temporary=True) from error
    if streams or (wants_events(request) and not reads_any_events(request)):
        from stephttp._run import event_answers

        follow = event_answers.follow(checkpoints, run, request, token, stream_token, begun=streams)
        end = yield from follow
        if end is not None:
            return end
    return (yield from _answer_caller(checkpoints, run, request, token, room))


def begun(run_id: str, location: str) -> Response:
    """Send the caller of a run that must wait to its address: 303, so that the method becomes GET.
    Clients that do not follow have the same in the body."""
    response = json_response(303, encode_struct(Pending(run_id, "running", location)))
    response.headers.append((b"location", location.encode()))
    return response


def result_url(settings: Settings, run_id: str, token: str) -> str:
    """Return where the caller of a run waits for its result."""
    if settings.result_path:
        return f"{settings.result_path}?{urlencode({'run_id': run_id, 'token': token})}"
    return settings.base_url + api_calls.output_path(run_id, token)


def _answer_caller(
    checkpoints: Checkpoints, run: Run, request: Request, token: str, room: Room
) -> Flow[Response]:
    """Return what the caller of a run gets that the server has taken."""
    kind = run.opts.async_response or checkpoints.settings.default_async_response
    location = result_url(checkpoints.settings, run.run_id, token)
    if isinstance(kind, AsyncResponseToken):
        return replies.token_answer(run.run_id, token, location)
    if isinstance(kind, AsyncResponseCustom):
        asked = AsyncRequest(
            request.method, request.path, request.query, request.headers, request.client,
            request.scheme, request.body, request.route, request.root_path,
            run_id=run.run_id, token=token, result_url=location,
        )  # fmt: skip
        answer = yield Invoke(kind.handler, asked)
        if not isinstance(answer, Response):
            raise ConfigurationError(
                f"AsyncResponseCustom: the function must return a stephttp.Response, "
                f"not {type(answer).__name__}"
            )
        return answer
    if kind.url is not None:
        location = kind.url(run.run_id, token)
    prefer = read_prefer(request.headers)
    if prefer.wait is not None:
        from stephttp._run import prefer_wait

        result = yield from prefer_wait.wait(checkpoints, run.run_id, token, prefer.wait, room)
        if result is not None:
            return result
    elif not prefer.respond_async:
        answer, path = begun(run.run_id, location), checkpoints.settings.result_path
        if path and request.header(b"sec-fetch-site"):
            from stephttp._run import foreign_links  # few callers need it

            answer.headers += foreign_links.remembered(request, run.run_id, path)
        return answer
    return replies.accepted(run.run_id, token, location, prefer.applied)


def _check_size(checkpoints: Checkpoints, request: Request, ops: Sequence[Op]) -> None:
    """Send no more than a plain server reads of one request.

    Raises:
        CannotContinueError: the request's body alone is more.
    """
    if checkpoints.is_plain:
        message = (
            f"the request's body has {len(request.body)} bytes, which is more than the Inngest "
            "server reads"
        )
        raise CannotContinueError(replies.error_answer(413, message), message, ops)


def _reason_of(error: APIStatusError) -> str:
    """Return what a server says about a request that it refuses."""
    try:
        return str(_error_body.decode(error.body).error)
    except UNREADABLE:  # a proxy's page
        return f"status {error.status}"


def _not_taken(error: APIError) -> Response:
    status = error.status if isinstance(error, APIStatusError) else 503
    if 400 <= status < 500 and status not in RETRIED_STATUSES:
        message = "this request cannot continue in the background: the engine answered "
        return replies.error_answer(500, f"{message}{status}")
    message = "this request has to continue in the background, which is not possible now"
    return replies.error_answer(503, message, headers=replies.RETRY_SOON)
