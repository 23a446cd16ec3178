"""Idempotency keys: the first request with a key continues, the others get its answer.

The claim of a key opens the run, with a lease: should the process die, the engine takes the run
over, and those who wait for the answer get it all the same (docs/design.md 3.7).
"""

from __future__ import annotations

import logging
from hashlib import sha256

from msgspec import Struct

from stephttp._client import api_calls
from stephttp._client.api_calls import IdempotencyClaim, Outcome
from stephttp._client.flow import Flow, send
from stephttp._core import replies
from stephttp._core.run import Run
from stephttp._run.checkpoints import RETRY_SOON, Checkpoints
from stephttp._run.suspend import result_url
from stephttp._wire.http import PLAIN_TEXT, Body, Request, Response, redirect
from stephttp.errors import APIConnectionError, APIError, APIStatusError

logger = logging.getLogger("stephttp")

MAX_KEY = 1024
"""Characters of a key."""
POLL = 10
"""Seconds that one request for the outcome of the first waits."""
POLLS = 30
"""How often the outcome is requested before the caller gets a 409, to come again."""


class Claimed(Struct, frozen=True):
    """What became of a claim."""

    held: bool
    """Whether this run has the key; if not, and without an answer, the server knows no keys."""
    answer: Response | None = None
    """The answer of the run that has the key, if that is another one."""
    run_id: str = ""
    """The run that the answer is of."""


def scope_of(domain: str, endpoint: str, authorization: str = "") -> str:
    """Return the scope of a key: the API, the endpoint if it has an id, and whose the key is.

    `Authorization` tells callers apart: two who chose the same key must not see each other's
    answers.
    """
    whose = sha256(authorization.encode()).hexdigest() if authorization else ""
    return "\n".join((domain, endpoint, whose))


def claim(
    checkpoints: Checkpoints, run: Run, request: Request, key: str, scope: str, lease: int
) -> Flow[Claimed]:
    """Claim `key` for `run`, whose handler has not run a step yet.

    Args:
        scope: see `scope_of`.
        lease: milliseconds.
    """
    if len(key) > MAX_KEY:
        message = f"the idempotency key has {len(key)} characters; it may have {MAX_KEY}"
        return Claimed(False, replies.error_answer(400, message))
    keys, rng = checkpoints.keys, checkpoints.rng
    try:
        if keys.features is None:
            yield from send(api_calls.get_health(), keys, rng)
        if keys.features is None:
            raise APIConnectionError("what answers does not say which server it is")
        if not keys.supports("idempotency"):
            _warn_once(checkpoints)
            return Claimed(False)
        wish = IdempotencyClaim(scope, key, _digest(request))
        ops = [checkpoints.remember(run, request)]
        body = checkpoints.first_checkpoint(run, request, ops, lease, wish)
        taken = api_calls.read_new_run((yield from send(api_calls.post_new_run(body), keys, rng)))
        if taken.run_id == run.run_id:
            return Claimed(True)
        return Claimed(False, (yield from _answer_of(checkpoints, taken.run_id)), taken.run_id)
    except APIStatusError as error:
        if error.status == 422:
            message = "this idempotency key was used with another request; use a new key"
            return Claimed(False, replies.error_answer(422, message))
        return Claimed(False, _unavailable(run, error))
    except APIError as error:
        return Claimed(False, _unavailable(run, error))


def repeatable(response: Response, answer: Body | None, *, raised: bool) -> Response:
    """Return what other requests with the key of a run get.

    Args:
        response: the handler's own.
        answer: its body as it passed by, with what is known of its end.
        raised: whether the handler raised before it answered.
    """
    if answer is not None and answer.overflown:
        message = f"the answer to this idempotency key has {answer.size} bytes, and was not kept"
        return replies.error_answer(500, message)
    if answer is not None and not answer.complete:
        return replies.error_answer(
            500, "the answer to this idempotency key did not come to its end"
        )
    if raised:  # the server answers for it
        return Response(500, list(PLAIN_TEXT), b"Internal Server Error")
    return response


def not_stored() -> Response:
    """Return what a caller gets whose answer could not be stored: nothing that a repetition of the
    request might contradict."""
    message = "the answer to this idempotency key cannot be stored now; use the same key again"
    return replies.error_answer(503, message, headers=RETRY_SOON)


def _answer_of(checkpoints: Checkpoints, run_id: str) -> Flow[Response]:
    """Wait for what the first request with the key is answered, and return it."""
    for _ in range(POLLS):
        call = api_calls.get_outcome(run_id, POLL)
        answer = yield from send(call, checkpoints.keys, checkpoints.rng)
        outcome = api_calls.read_outcome(answer)
        if outcome.state == "ended":
            return _replay(outcome)
        if outcome.state == "async":
            url = result_url(checkpoints.settings, run_id, outcome.token)
            return redirect(url)
    return replies.error_answer(
        409,
        "the first request with this idempotency key is still being answered",
        headers=RETRY_SOON,
    )


def _replay(outcome: Outcome) -> Response:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in outcome.headers]
    headers.append((b"content-length", str(len(outcome.body)).encode()))
    return Response(outcome.status, headers, outcome.body)


def _digest(request: Request) -> str:
    head = f"{request.method}\n{request.path}\n{request.query}\n"
    return sha256(head.encode("latin-1", "replace") + request.body).hexdigest()


def _unavailable(run: Run, error: APIError) -> Response:
    logger.error("stephttp: run %s: its idempotency key cannot be claimed: %s", run.run_id, error)
    # To continue could do twice what the key is there to do once.
    message = "the idempotency key of this request cannot be checked now"
    return replies.error_answer(503, message, headers=RETRY_SOON)


def _warn_once(checkpoints: Checkpoints) -> None:
    if not checkpoints.keys.warned:
        checkpoints.keys.warned = True
        logger.error(
            "stephttp: idempotency keys are configured, but the server at %s does not support "
            "them; requests with such keys run without that protection. Use the stephttp engine, "
            "or take `idempotency` out of the configuration", checkpoints.settings.base_url,
        )  # fmt: skip
