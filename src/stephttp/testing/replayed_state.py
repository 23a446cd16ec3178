"""The server of a replay: it answers what the history says, and takes nothing."""

from __future__ import annotations

import json

import httpx2

from stephttp._client.server_marks import SERVER_KIND
from stephttp._wire.stored_state import FEATURES

ORIGIN = "http://stephttp.replay"
_MARKS = {SERVER_KIND: "dev", FEATURES: "pending, step-names, raw-response, step-retries"}


class ReplayedState:
    """Answers an SDK in the place of a server.

    Args:
        state: what it remembers of the run.
        run_id: the run.
    """

    def __init__(self, run_id: str, state: bytes) -> None:
        self._run_id = run_id
        self._state = state

    def transport(self) -> httpx2.MockTransport:
        """Return what carries requests to it."""
        return httpx2.MockTransport(self._answer)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if request.method == "GET" and path == f"/v0/runs/{self._run_id}/actions":
            return httpx2.Response(200, headers=_MARKS | _JSON, content=self._state)
        return httpx2.Response(200, headers=_MARKS, json=_taken(request))


_JSON = {"content-type": "application/json"}


def _taken(request: httpx2.Request) -> dict[str, object]:
    """Return an answer that says that something was taken, though nothing was."""
    try:
        body = json.loads(request.content or b"null")
    except ValueError:
        body = None
    count = len(body) if isinstance(body, list) else 1
    return {"data": {}, "ids": [f"replayed-{number}" for number in range(count)], "status": 200}
