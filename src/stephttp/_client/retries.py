"""One call of the API with its retries and its change of keys, as a flow."""

from __future__ import annotations

import random
from collections.abc import Generator

from msgspec.structs import replace

from stephttp._client.flow import Answer, Call, Pause
from stephttp._client.keys import Keys
from stephttp.errors import APIConnectionError, APIError, APIStatusError

ATTEMPTS = 5
FIRST_PAUSE = 0.1
MAX_PAUSE = 5.0
RETRIED_STATUSES = frozenset({408, 425, 429})


def backoff(attempt: int, rng: random.Random) -> float:
    """Return the pause before `attempt` (from 1) in seconds: doubling, capped, jitter to half."""
    ceiling = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
    return ceiling * rng.uniform(0.5, 1)


def send(
    call: Call, keys: Keys, rng: random.Random
) -> Generator[Call | Pause, Answer | None, Answer]:
    """Make `call`, five times at the most.

    Raises:
        APIConnectionError: no attempt was answered.
        APIStatusError: refused (4xx, at once), or the last attempt failed (5xx, 408, 425, 429).
    """
    error: APIError = APIConnectionError("not attempted")
    for attempt in range(ATTEMPTS):
        if attempt:
            yield Pause(backoff(attempt, rng))
        try:
            bearer = keys.bearer
            answer = yield _with_bearer(call, bearer)
            if answer is not None and answer.status == 401 and keys.reject(bearer):
                answer = yield _with_bearer(call, keys.bearer)
        except APIConnectionError as problem:
            error = problem
            continue
        assert answer is not None, "a Call is answered by an Answer"
        keys.learn(answer)
        if 200 <= answer.status < 300:
            return answer
        error = APIStatusError(
            f"{call}: the server answered {answer.status}: "
            f"{answer.body[:500].decode(errors='replace')}",
            answer.status,
            answer.body,
        )
        if answer.status < 500 and answer.status not in RETRIED_STATUSES:
            break
    raise error


def _with_bearer(call: Call, bearer: str | None) -> Call:
    if bearer is None:
        return call
    return replace(call, headers={**call.headers, "authorization": f"Bearer {bearer}"})
