"""The state of a run that comes along with a re-entry by our engine: the wire form.

The body of such a call is the original request's, followed by what `GET /v0/runs/{run}/actions`
would answer. `X-Inngest-Signature` covers the original body only, so that an SDK that does not know
of this refuses the call, and gets it again without. The state has a signature of its own, made with
a key that signs nothing else, which names the run (docs/design.md 3.8).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from stephttp._wire.http import Request
from stephttp._wire.signatures import sign, split_key, verify

FEATURE = "reentry-state"
"""What the engine calls it among its extras."""
SIZE = "x-stephttp-state"
SIGNATURE = "x-stephttp-state-signature"
FAILURES = "x-stephttp-failures"
FEATURES = "x-stephttp-features"
LARGEST = 64 * 1024
"""Bytes of state that may come along. To ask for it costs a request, which is little beside the
transport of more than that, and calls that are under way are kept in memory."""
METHODS = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests every proxy expects to have a body (RFC 9110, 9.3)."""


def attached(run_id: str, state: bytes, key: str | None, now: int) -> dict[str, str]:
    """The headers that tell of a state behind the body.

    Args:
        key: the signing key, if there is one.
        now: seconds since the epoch.
    """
    headers = {SIZE: str(len(state))}
    if key is not None:
        headers[SIGNATURE] = sign(_own_key(key), _signed(run_id, state), now)
    return headers


def announced(request: Request) -> int:
    """How many bytes of state a request says that it has behind its body; 0 if none."""
    text = request.header(SIZE.encode())
    size = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    return size if size <= LARGEST else 0


def detach(request: Request) -> bytes | None:
    """Take the state off a request, which then has the body of the original one.

    Returns:
        The state; `None` if there is none, or if the body got lost on the way.
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
    """Whether a state comes from somebody who has one of `keys`, and is that of the run."""
    header = request.header(SIGNATURE.encode())
    return verify(header, _signed(run_id, state), map(_own_key, keys), now)


def _signed(run_id: str, state: bytes) -> bytes:
    return run_id.encode() + b"\n" + state


@lru_cache(maxsize=16)
def _own_key(key: str) -> str:
    return sha256(b"stephttp:state:" + split_key(key)[1].encode()).hexdigest()
