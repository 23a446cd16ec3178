"""Whether a re-entry comes from the server: the SDK verifies its signature (401), and takes
note which server it is.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from stephttp._client.flow import Answer, Flow, Until
from stephttp._client.server_marks import SERVER_KIND
from stephttp._core import replies
from stephttp._run.checkpoints import Checkpoints
from stephttp._wire import call_signatures, signatures
from stephttp._wire.http import Request, Response
from stephttp._wire.paths import as_called

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_WRONG = (
    f"{call_signatures.SIGNATURE}: wrong or too old; the signing keys differ, or what is between "
    "engine and application changes method, path, query, body or x-stephttp- headers of a request"
)
_MISSING = (
    f"{call_signatures.SIGNATURE}: missing; the engine signs its calls, and what is between engine "
    "and application must pass on headers that start with x-stephttp-"
)

SERVER_HEADERS = frozenset(
    {
        b"x-inngest-signature",
        b"x-inngest-req-version",
        b"x-inngest-generation-id",
        b"x-inngest-job-id",
        call_signatures.SIGNATURE.encode(),
    }
)
"""A server sends all of these; one is enough to know its call, even if a proxy ate the others."""

SERVE_HEADERS = frozenset({b"account-id", b"x-inngest-step-id"})
"""Both are in each call of a function of `serve`, and never both in a re-entry
(docs/protocol.md 13.9)."""
KIND_HEADER = SERVER_KIND.encode()
"""What a server says of itself to an application of `serve`, and never to an endpoint."""


class CallCheck:
    """The check of one re-entry: `verify`, then `doubt` with an answer of the server.

    The stephttp engine signs all that decides what its call does; a real server signs the body
    alone. A call with the first signature is right or wrong. One without it is believed only once
    the server, which has to be asked for the run anyway, turns out not to make such signatures.

    Args:
        request: as it came, but without the state that may follow its body.
        whole: the body as it came.
    """

    __slots__ = ("_checkpoints", "_refusal", "_request", "_whole", "covers_state")

    def __init__(self, checkpoints: Checkpoints, request: Request, whole: bytes) -> None:
        self._checkpoints = checkpoints
        self._request = request
        self._whole = whole
        self._refusal: Response | None = None
        """What the answer of a server for development would refute."""
        self.covers_state = True
        """Whether the state that came along is as it was sent. If not, it has to be asked for."""

    def verify(self) -> Flow[Response | None]:
        """Check what came. Returns what refuses it, if anything does."""
        settings = self._checkpoints.settings
        if not settings.keys:
            return replies.refused(
                401, "no signing key is configured, so this call cannot be verified; "
                "set INNGEST_SIGNING_KEY, or INNGEST_DEV=1 for development",
            )  # fmt: skip
        now = self._checkpoints.now_ns() / 1_000_000_000
        signature = self._request.header(call_signatures.SIGNATURE.encode())
        if signature:
            if self._is_signed(signature, now):
                return None
            problem = _WRONG
        elif (yield from self._has_signed_body(now)):
            self.covers_state = False
            return None
        else:
            problem = "x-inngest-signature: missing, wrong or too old"
        refusal = replies.refused(401, problem)
        if not settings.dev:
            return refusal
        # Of a server for development, perhaps, which signs nothing: it will be asked.
        self._refusal, self.covers_state = refusal, False
        return None

    def doubt(self, answer: Answer) -> Response | None:
        """Return what refuses the call, now that the server has answered."""
        if self._refusal is not None:
            return None if answer.headers.get(SERVER_KIND) == "dev" else self._refusal
        if self.covers_state or not self._checkpoints.keys.supports(call_signatures.FEATURE):
            return None
        return replies.refused(401, _MISSING)

    def _is_signed(self, signature: str, now: float) -> bool:
        request, settings = self._request, self._checkpoints.settings
        prefixes = (request.root_path, settings.serve_prefix or "")
        targets = [
            call_signatures.request_target(path, request.query)
            for path in as_called(request.path, *prefixes)
        ]
        return call_signatures.verify_any(
            signature, settings.keys, now, request.method, targets, request.headers, self._whole
        )

    def _has_signed_body(self, now: float) -> Flow[bool]:
        header, body = self._request.header(b"x-inngest-signature"), self._request.body
        keys = self._checkpoints.settings.keys
        if signatures.verify_raw(header, body, keys, now):
            return True
        if not signatures.may_be_canonical(header, body, now):
            return False
        # Slow for a caller who has shown nothing, so it does not hold up the event loop.
        check = _worker(os.getpid()).submit(signatures.verify_canonical, header, body, keys, now)
        yield Until(check)
        return check.result()


@lru_cache(maxsize=1)
def _worker(process_id: int) -> ThreadPoolExecutor:
    """Return a single thread, which is all that such callers get. A forked process has its own."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, f"stephttp-canonical-{process_id}")
