"""Asks whether the server is the stephttp engine or an Inngest server, where something would
go wrong with the other one.
"""

from __future__ import annotations

from stephttp._client import api_calls
from stephttp._client.flow import APICall, Flow, ForeignAnswerError, send
from stephttp._client.server_marks import SERVER_KIND, is_inngest, is_marked
from stephttp._run.checkpoints import Checkpoints
from stephttp._wire.ids import random_ulid
from stephttp._wire.stored_state import FEATURES
from stephttp.errors import APIConnectionError, APIStatusError
from stephttp.options import CLOUD_URL


def is_ours(checkpoints: Checkpoints) -> Flow[bool]:
    """Return whether the server is the stephttp engine. It is asked, if that is not known yet.

    Nothing is learned from an answer that a proxy might have given; see `server_marks`. Where a
    proxy hides the server's health, the server is asked for a run that it does not have.

    Raises:
        APIConnectionError: it gives no answer, or none that says what it is.
    """
    keys, settings = checkpoints.keys, checkpoints.settings
    if keys.features is None and settings.base_url == CLOUD_URL:
        keys.learn(frozenset())
    if keys.features is None:
        why = yield from _ask(checkpoints, api_calls.get_health())
        if keys.features is None:
            unknown = random_ulid(checkpoints.now_ns() // 1_000_000, checkpoints.rng.randbytes(16))
            yield from _ask(checkpoints, api_calls.get_actions(unknown))
        if keys.features is None:
            raise APIConnectionError(
                f"what answers at {settings.base_url} does not say which server it is{why}. Let "
                f"the proxy in front of the server pass on /health and /v0/runs, and the header "
                f"{FEATURES} or {SERVER_KIND} of the answers"
            )
    return bool(keys.features)


def _ask(checkpoints: Checkpoints, call: APICall) -> Flow[str]:
    """Make a call whose answer says what the server is, if that is its own. A marked answer does,
    whatever its status. Returns what is to be said of another one.

    Raises:
        APIConnectionError: there is no answer.
    """
    keys = checkpoints.keys
    try:
        answer = yield from send(call, keys, checkpoints.rng)
    except (APIStatusError, ForeignAnswerError) as error:
        return f" ({error})"
    if not is_marked(answer.headers) and is_inngest(answer.status, answer.body):
        keys.learn(frozenset())
    return f" ({call}: it answered {answer.status} without the header that says it)"
