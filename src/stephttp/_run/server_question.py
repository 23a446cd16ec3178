"""The question what a server is: asked where something would go wrong with the other one."""

from __future__ import annotations

from stephttp._client import api_calls
from stephttp._client.flow import Flow, send
from stephttp._client.server_marks import is_inngest, is_marked
from stephttp._run.checkpoints import Checkpoints
from stephttp.errors import APIConnectionError, APIStatusError
from stephttp.options import CLOUD_URL


def is_ours(checkpoints: Checkpoints) -> Flow[bool]:
    """Return whether the server is the stephttp engine. It is asked, if that is not known yet.

    Nothing is learned from an answer that a proxy might have given; see `server_marks`.

    Raises:
        APIConnectionError: it gives no answer, or one that does not say what it is.
    """
    keys, why = checkpoints.keys, ""
    if keys.features is None and checkpoints.settings.base_url == CLOUD_URL:
        keys.learn(frozenset())
    if keys.features is None:
        try:
            answer = yield from send(api_calls.get_health(), keys, checkpoints.rng)
        except APIStatusError as error:
            why = f": {error}"
        else:
            if not is_marked(answer.headers) and is_inngest(answer.status, answer.body):
                keys.learn(frozenset())
    if keys.features is None:  # a marked answer has said it, whatever its status
        raise APIConnectionError(f"what answers does not say which server it is{why}")
    return bool(keys.features)
