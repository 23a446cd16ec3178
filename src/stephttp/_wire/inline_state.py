"""The state of a run inside a re-entry by the stephttp engine: its form on the wire.

The body of such a call is the original request's, followed by what `GET /v0/runs/{run}/actions`
would answer. `X-Inngest-Signature` covers the original body only, so that an SDK that does not know
of this refuses the call, and gets another one without the state. The state has a signature of its
own, which names the run and is made with a key that signs nothing else (docs/design.md 3.8).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from stephttp._wire.http import Request
from stephttp._wire.signatures import sign, split_key, verify

FEATURE = "reentry-state"
"""Its name among the extras that the engine announces."""
SIZE = "x-stephttp-state"
SIGNATURE = "x-stephttp-state-signature"
FAILURES = "x-stephttp-failures"
FEATURES = "x-stephttp-features"
LARGEST = 64 * 1024
"""The most bytes of state in one re-entry. Fetching more costs a request, which is little beside
its transport, and the engine holds calls in flight in memory."""
METHODS = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests every proxy expects to have a body (RFC 9110, 9.3)."""


def attached(run_id: str, state: bytes, key: str | None, now: int) -> dict[str, str]:
    """Return the headers that announce a state behind the body.

    Args:
        key: the signing key, if there is one.
        now: seconds since the epoch.
    """
    headers = {SIZE: str(len(state))}
    if key is not None:
        headers[SIGNATURE] = sign(_state_key(key), _signed(run_id, state), now)
    return headers


def announced(request: Request) -> int:
    """Return how many bytes of state a request announces behind its body."""
    text = request.header(SIZE.encode())
    size = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    return size if size <= LARGEST else 0


def detach(request: Request) -> bytes | None:
    """Take the state off a request, which then has the body of the original one.

    Returns:
        The state; `None` without one, or if a proxy dropped the body.
    """
    size = announced(request)
    if not 0 < size <= len(request.body):
        return None
    request.body, state = request.body[:-size], request.body[-size:]
    length = str(len(request.body)).encode()
    request.headers = [
        (name, length if name == b"content-length" else value) for name, value in request.headers
    ]
    return state


def is_signed(request: Request, run_id: str, state: bytes, keys: Iterable[str], now: float) -> bool:
    """Return whether a state was signed with one of `keys`, for this run."""
    header = request.header(SIGNATURE.encode())
    return verify(header, _signed(run_id, state), map(_state_key, keys), now)


def _signed(run_id: str, state: bytes) -> bytes:
    return run_id.encode() + b"\n" + state


@lru_cache(maxsize=16)
def _state_key(key: str) -> str:
    return sha256(b"stephttp:state:" + split_key(key)[1].encode()).hexdigest()
