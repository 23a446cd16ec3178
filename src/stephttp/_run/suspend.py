"""The end of a first request whose run must wait: the server gets it, and the caller an answer."""

from __future__ import annotations

import logging
from urllib.parse import urlencode

from stephttp._client import api_calls
from stephttp._client.flow import Call, Flow, Invoke, send
from stephttp._core import replies
from stephttp._core.endpoint_options import AsyncRequest, AsyncResponseCustom, AsyncResponseToken
from stephttp._core.replies import read_prefer
from stephttp._core.run import Run
from stephttp._run import result_path
from stephttp._run.checkpoints import RETRY_SOON, Checkpoints
from stephttp._run.journal import Journal
from stephttp._wire.http import Request, Response
from stephttp._wire.ids import ulid_ms
from stephttp._wire.limits import MAX_CHECKPOINT_BYTES
from stephttp.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from stephttp.options import Settings

logger = logging.getLogger("stephttp")


def suspend(
    checkpoints: Checkpoints, run: Run, request: Request, journal: Journal | None = None
) -> Flow[Response]:
    """Hand a run that must wait to the server. Returns what its caller gets."""
    if not request.path.startswith("/"):
        # A server appends the path to the origin, which must not become another one by that.
        return replies.error_answer(400, "a request that must wait needs a path")
    if journal is not None:
        yield from journal.hand_over()
    ops = [*(journal.unconfirmed if journal else ()), *run.take_ops()]
    if _cannot_hide_body(checkpoints, run, request):
        logger.error(
            "stephttp: run %s cannot wait: omit_request_body keeps the request's body from the "
            "server, so it has to be encrypted for the re-entry: set INNGEST_SIGNING_KEY, and "
            "pip install 'stephttp[crypto]'", run.run_id,
        )  # fmt: skip
        return replies.error_answer(500, "this request cannot continue in the background")
    remember = checkpoints.remember(run, request, ops)
    # With a lease, our engine takes a first checkpoint of a run that it knows for an update.
    lease = journal.lease_ms if journal else None
    later = [[remember, *ops]]
    token = journal.token if journal else ""
    try:
        if journal is None or not journal.opened or lease is not None:
            checkpoint = checkpoints.first_checkpoint(run, request, [remember, *ops], lease)
            later = []
            if len(checkpoint) > MAX_CHECKPOINT_BYTES:
                smallest = len(checkpoints.first_checkpoint(run, request, [remember]))
                now, *later = api_calls.portions(ops, already=smallest)
                first = [remember, *now]
                checkpoint = checkpoints.first_checkpoint(run, request, first, lease)
            call = api_calls.post_new_run(checkpoint)
            answer = yield from send(call, checkpoints.keys, checkpoints.rng)
            token = api_calls.read_new_run(answer).token
        for portions in later:
            for portion in api_calls.portions(portions):
                yield from checkpoints.post_steps(run, portion)
    except APIError as error:
        logger.error("stephttp: run %s must wait, but the server did not take it: %s",
                     run.run_id, error)  # fmt: skip
        return _not_taken(error)
    return (yield from _answer_caller(checkpoints, run, request, token))


def result_url(settings: Settings, run_id: str, token: str) -> str:
    """Return where the caller of a run waits for its result."""
    if settings.result_path:
        return f"{settings.result_path}?{urlencode({'run_id': run_id, 'token': token})}"
    return settings.base_url + api_calls.output_path(run_id, token)


def _answer_caller(
    checkpoints: Checkpoints, run: Run, request: Request, token: str
) -> Flow[Response]:
    """Return what the caller of a run gets that the server has taken."""
    kind = run.opts.async_response or checkpoints.settings.default_async_response
    location = result_url(checkpoints.settings, run.run_id, token)
    if isinstance(kind, AsyncResponseToken):
        return replies.token_answer(run.run_id, token)
    if isinstance(kind, AsyncResponseCustom):
        asked = AsyncRequest(
            request.method, request.path, request.query, request.headers, request.client,
            request.scheme, request.body, request.route, run.run_id, token, location,
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
        result = yield from _wait_for_result(checkpoints, run.run_id, token, prefer.wait)
        if result is not None:
            return result
    elif not prefer.respond_async:
        return replies.redirect(location)
    return replies.accepted(run.run_id, token, location, prefer.applied)


def _wait_for_result(
    checkpoints: Checkpoints, run_id: str, token: str, seconds: int
) -> Flow[Response | None]:
    """Return the result, if there is one `seconds` after the request came in."""
    began_ms = ulid_ms(run_id)
    left = seconds - (checkpoints.now_ns() / 1_000_000 - began_ms) / 1_000
    if left <= 0:
        return None
    try:
        answer = yield Call("GET", api_calls.output_path(run_id, token), timeout=left)
    except APIConnectionError:
        return None
    if result_path.still_running(answer.status, answer.body):
        return None
    return result_path.relayed(answer)


def _cannot_hide_body(checkpoints: Checkpoints, run: Run, request: Request) -> bool:
    """Whether a body that must stay hidden from the server could only travel in the clear."""
    if checkpoints.settings.dev or not run.opts.omit_request_body or not request.body:
        return False
    return checkpoints.sealer.seal(run.run_id) is None


def _not_taken(error: APIError) -> Response:
    if isinstance(error, APIStatusError) and error.status == 413:
        return replies.error_answer(413, "the request and its steps are too large to be kept")
    if isinstance(error, APIStatusError) and 400 <= error.status < 500:
        return replies.error_answer(500, "this request cannot continue in the background")
    message = "this request has to continue in the background, which is not possible now"
    return replies.error_answer(503, message, headers=RETRY_SOON)
