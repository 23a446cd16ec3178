"""Idempotency keys (`Idempotency-Key`, `idempotency_key=`), SDK side: the first request claims the
key, the others get its stored answer, or 503.

The claim of a key opens the run, with a lease: should the process die, the engine takes the run
over, and those who wait for the answer get it all the same (docs/design.md 3.7).
"""

from __future__ import annotations

import logging
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from stephttp._client import api_calls
from stephttp._client.api_calls import FirstCallOutcome
from stephttp._client.flow import Flow, send
from stephttp._client.new_run import IdempotencyClaim
from stephttp._core import replies
from stephttp._core.run import Run
from stephttp._run.callers import (
    CallerOf,
    caller_of,
    host_of,
    later_caller,
    said_by,
    scope_of,
)
from stephttp._run.checkpoints import Checkpoints
from stephttp._run.suspend import begun, result_url
from stephttp._wire.http import PLAIN_TEXT, SAFE_METHODS, Body, Request, Response
from stephttp.errors import APIError, APIStatusError
from stephttp.options import Settings

logger = logging.getLogger("stephttp")

MAX_KEY = 1024
"""Characters of a key."""
POLL = 10
"""Seconds that one request for the outcome of the first waits."""
FURTHER_KEYS = "further-keys"
"""What the engine announces that stores them (docs/protocol.md 14)."""
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


class Key(Struct, frozen=True):
    """An idempotency key, as one request carries it."""

    text: str
    scope: str
    """See `callers.scope_of`."""
    personal: bool
    """Whether the scope says who its caller is, by a secret or by what the application says."""


def key_of_request(settings: Settings, request: Request, known: str) -> Key | None:
    """Return the idempotency key that a request carries; `None` if it has none.

    Args:
        known: what the server itself knows of the caller; see `callers.caller_of`.
    """
    if settings.idempotency is not None:
        key = settings.idempotency(request)
        return key_of(settings, key, request) if key else None
    key, host = key_in_header(settings, request), host_of(request)
    if not key:
        return None
    if settings.idempotency_scope is not None:
        return key_of(settings, key, request, host=host)
    caller = caller_of(request, known, settings.idempotency_header or "")
    return Key(key, scope_of(settings.domain, "", caller.text, host), caller.proven)


def key_of(
    settings: Settings,
    key: str,
    request: Request,
    endpoint: str = "",
    scope: CallerOf | None = None,
    host: str = "",
) -> Key:
    """Return a key whose caller only the application knows.

    Args:
        endpoint: whose key it is.
        scope: says who the caller is; `None`: as configured.
        host: see `callers.host_of`; empty: the key is the same for all.
    """
    scope = scope or settings.idempotency_scope
    whose = "" if scope is None else said_by(scope, request)
    return Key(key, scope_of(settings.domain, endpoint, whose, host), bool(whose))


def claim(
    checkpoints: Checkpoints, run: Run, request: Request, key: Key, lease: int
) -> Flow[Claimed]:
    """Claim `key` for `run`, whose handler has not run a step yet.

    Args:
        lease: milliseconds.
    """
    if len(key.text) > MAX_KEY:
        message = f"the idempotency key has {len(key.text)} characters; it may have {MAX_KEY}"
        return Claimed(False, replies.error_answer(400, message))
    keys, rng = checkpoints.keys, checkpoints.rng
    try:
        if keys.features is None:
            from stephttp._run.server_question import is_ours  # once in a process

            yield from is_ours(checkpoints)
        if not keys.supports("idempotency"):
            _warn_once(checkpoints)
            return Claimed(False)
        wish = IdempotencyClaim(key.scope, key.text, _digest(request))
        ops = [checkpoints.remember(run, request)]
        body = checkpoints.first_checkpoint(run, request, ops, lease, wish)
        taken = api_calls.read_new_run((yield from send(api_calls.post_new_run(body), keys, rng)))
        if taken.run_id == run.run_id:
            return Claimed(True)
        answer = yield from _answer_of(checkpoints, taken.run_id, cookies=key.personal)
        return Claimed(False, answer, taken.run_id)
    except APIStatusError as error:
        if error.status == 422:
            message = "this idempotency key was used with another request; use a new key"
            return Claimed(False, replies.error_answer(422, message))
        return Claimed(False, _unavailable(run, error))
    except APIError as error:
        return Claimed(False, _unavailable(run, error))


def further_keys(
    checkpoints: Checkpoints, request: Request, answer: Response, known: str | None = None
) -> dict[str, Any] | None:
    """Return the `opts` of the op that ends a run, if its answer changes by what its caller is
    known: one who logged in, or whose session was renewed, repeats the request as another.

    Args:
        request: the first one, with its body.
        known: what the server itself knows of its caller; see `callers.caller_of`. `None`: the
            request is what is restored of the first one.
    """
    settings = checkpoints.settings
    by_default = settings.idempotency is None and settings.idempotency_scope is None
    if not by_default or not checkpoints.keys.supports(FURTHER_KEYS):
        return None
    key = key_in_header(settings, request)
    if not key or not any(name.lower() == b"set-cookie" for name, _ in answer.headers):
        return None
    header, whole = settings.idempotency_header or "", known is not None
    later = later_caller(request, answer.headers, known or "", header, whole=whole)
    if not later:
        return None
    scope = scope_of(settings.domain, "", later, host_of(request))
    claim = IdempotencyClaim(scope, key, _digest(request))
    return {"keys": [msgspec.structs.asdict(claim)]}


def key_in_header(settings: Settings, request: Request) -> str:
    """Return the key that a request carries in the header that is configured for it, if any."""
    if not settings.idempotency_header or request.method in SAFE_METHODS:
        return ""
    return request.header(settings.idempotency_header.encode())


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
    return replies.error_answer(503, message, headers=replies.RETRY_SOON)


def _answer_of(checkpoints: Checkpoints, run_id: str, *, cookies: bool) -> Flow[Response]:
    """Wait for what the first request with the key is answered, and return it.

    Args:
        cookies: with those that the answer sets: they may open a session, so only the caller who
            sent the first request gets them.
    """
    keys = checkpoints.keys
    for _ in range(POLLS):
        call = api_calls.get_outcome(run_id, POLL, cookies=cookies)
        answer = yield from send(call, keys, checkpoints.rng)
        outcome = api_calls.read_outcome(answer)
        if outcome.state == "ended":
            return _replay(outcome, cookies=cookies)
        if outcome.state == "async" and (cookies or keys.supports("outputs-without-cookies")):
            url = result_url(checkpoints.settings, run_id, outcome.token)
            return begun(run_id, url)
    return replies.error_answer(
        409,
        "the first request with this idempotency key is still being answered",
        headers=replies.RETRY_SOON,
    )


def _replay(outcome: FirstCallOutcome, *, cookies: bool) -> Response:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in outcome.headers
        if cookies or name.lower() != "set-cookie"
    ]
    headers.append((b"content-length", str(len(outcome.body)).encode()))
    return Response(outcome.status, headers, outcome.body)


def _digest(request: Request) -> str:
    head = f"{request.method}\n{request.path}\n{request.query}\n"
    return sha256(head.encode("latin-1", "replace") + request.body).hexdigest()


def _unavailable(run: Run, error: APIError) -> Response:
    logger.error("stephttp: run %s: its idempotency key cannot be claimed: %s", run.run_id, error)
    # To continue could do twice what the key is there to do once.
    message = "the idempotency key of this request cannot be checked now"
    return replies.error_answer(503, message, headers=replies.RETRY_SOON)


def _warn_once(checkpoints: Checkpoints) -> None:
    if not checkpoints.keys.warned:
        checkpoints.keys.warned = True
        logger.error(
            "stephttp: idempotency keys are configured, but the server at %s does not support "
            "them; requests with such keys run without that protection. Use the stephttp engine, "
            "or take `idempotency` out of the configuration", checkpoints.settings.base_url,
        )  # fmt: skip
