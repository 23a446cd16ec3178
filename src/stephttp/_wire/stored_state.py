"""Memos: what the server remembers of a run's steps, as an SDK gets it, on request or along with a
re-entry.

It is the answer to `GET /v0/runs/{run}/actions` (docs/protocol.md 5.3). The stephttp engine also
sends it along with a re-entry.

The body of such a call is the original request's, followed by that state. `X-Inngest-Signature`
covers the original body only, so that an SDK that does not know of this refuses the call, and gets
another one without the state. The engine's own signature covers both (`call_signatures`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

import msgspec
from msgspec import Raw, Struct

from stephttp._wire.http import Headers, Request
from stephttp._wire.json import UNREADABLE
from stephttp._wire.opcodes import ErrorInfo

FEATURE = "reentry-state"
"""Its name among the extras that the engine announces."""
SIZE = "x-stephttp-state"
_SIZE = SIZE.encode()
_LENGTH = b"content-length"
FAILURES = "x-stephttp-failures"
FEATURES = "x-stephttp-features"
PROCESS = "x-stephttp-process"
"""The name that a process of an application gives itself, in what it sends to the engine."""
RECEIVER = "x-stephttp-receiver"
"""The only process that may take the state that comes along, and only once."""
SENT = "x-stephttp-sent"
"""When the engine sent the state, in milliseconds since the epoch."""
LARGEST = 64 * 1024
"""The most bytes of state in one re-entry. Fetching more costs a request, which is little beside
its transport, and the engine holds calls in flight in memory."""
DELIVERY = "x-stephttp-delivery"
"""What tells one sending of a call from every other one, also from that of the same attempt."""
UNANSWERED = "x-stephttp-unanswered"
"""How many calls for the same purpose brought no answer before this one, if any."""
CALL_HEADERS = ("x-inngest-job-id", "x-stephttp-attempt", "x-inngest-step-id", DELIVERY)
"""The parts of a `CallId` in the head of a re-entry, and of a question for the state in it."""
CALLS_FEATURE = "fenced-calls"
"""The name among the extras of `CallId`."""
ASKS_AFTER = 0.8
"""Seconds for which a call begins steps without a word of the engine: counted from when the engine
sent the state, or the SDK the last question or report that the engine has acknowledged."""
RESENT_AFTER = 1.0
"""Seconds after which the engine sends a call again on which a process may be at work: by then that
has asked, and learned that it is superseded, or it begins no step before it does."""
METHODS = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests every proxy expects to have a body (RFC 9110, 9.3)."""


NAMES_FEATURE = "step-names"
"""The name among the extras of what follows."""
STREAMS_FEATURE = "run-streams"
"""The name among the extras of the streams that the engine keeps; see `stream_frames`."""
STEPS = "stephttp:steps"
"""The key beside the memos under which the stephttp engine says what steps they are of."""
UNSURE = "?"
"""The branch of a step beside which another branch of the handler was at a step as well."""


class KnownStep(Struct, frozen=True, array_like=True):
    """A step that was reported: opcode, the user's id, which use of it, and the branch."""

    op: str
    id: str = ""
    index: int = 0
    branch: str = ""


class CallId(Struct, frozen=True):
    """A call of the engine, as reports from it name it: job, attempt, its step, if it has one,
    which sending of it that is, and the process that works on it.

    What a call reports that was superseded is kept where it is new, and answered with 409.
    """

    job: str
    attempt: int
    step: str = ""
    delivery: str = ""
    process: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The call as `CALL_HEADERS`; what is empty is left out."""
        values = self.job, str(self.attempt), self.step, self.delivery
        return {name: value for name, value in zip(CALL_HEADERS, values, strict=True) if value}


class MemoKind(Enum):
    VALUE = "value"
    ERROR = "error"
    INPUT = "input"
    """The step is to run with these arguments (a JSON array), which were edited for a rerun."""
    PENDING = "pending"
    """Known to the server and not resolved yet. Only the stephttp engine says so, when asked."""


class Memo(Struct, frozen=True):
    """One remembered step: its raw JSON value, or its error."""

    kind: MemoKind
    raw: Raw = Raw(b"null")
    error: ErrorInfo | None = None


_memos = msgspec.json.Decoder(dict[str, Raw])
_fields = msgspec.json.Decoder(dict[str, Raw])
_error = msgspec.json.Decoder(ErrorInfo)
_steps = msgspec.json.Decoder(dict[str, KnownStep])
_PENDING = Memo(MemoKind.PENDING)
_NULL = Raw(b"null")
_VALUE = MemoKind.VALUE

PENDING = b'{"pending":true}'
"""How the engine names a step that is not resolved yet."""


def decode_memos(body: bytes) -> dict[str, Raw]:
    """Split the answer into one raw entry per step hash.

    Raises:
        ValueError: `body` is not a JSON object.
    """
    try:
        return _memos.decode(body)
    except UNREADABLE as error:
        raise ValueError(f"the server's memo of the run is not a JSON object: {error}") from error


def read_steps(entry: Raw | None) -> dict[str, KnownStep] | None:
    """Read what the engine says of the steps, by hash; `None` if it says nothing.

    Raises:
        ValueError: it cannot be read.
    """
    if entry is None:
        return None
    try:
        return _steps.decode(entry)
    except UNREADABLE as error:
        raise ValueError(f"{STEPS}: {error}") from error


def read_memo(entry: Raw) -> Memo:
    """Interpret one entry. An object with the one key `data` is a value, with `error` a failure,
    with `input` a list of arguments; anything else is itself the value."""
    if entry == _NULL:  # as of each sleep; an exception takes longer than all of this
        return Memo(_VALUE, entry)
    try:
        fields = _fields.decode(entry)
    except UNREADABLE:
        return Memo(MemoKind.VALUE, entry)  # a number, a list: the value itself
    keys = fields.keys()
    if keys == {"data"}:
        return Memo(MemoKind.VALUE, fields["data"])
    if keys == {"error"}:
        try:
            return Memo(MemoKind.ERROR, error=_error.decode(fields["error"]))
        except UNREADABLE:  # an error that is only a text
            text = bytes(fields["error"]).decode(errors="replace")
            return Memo(MemoKind.ERROR, error=ErrorInfo(name="Error", message=text))
    if keys == {"input"} and bytes(fields["input"]).startswith(b"["):
        return Memo(MemoKind.INPUT, fields["input"])
    if keys == {"pending"}:
        return _PENDING
    return Memo(MemoKind.VALUE, entry)


def announced(request: Request) -> int:
    """Return how many bytes of state a request announces behind its body."""
    text = request.first_values().get(_SIZE, b"")
    size = int(text) if text.isdigit() and len(text) < 10 else 0
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
    request.headers = _with_length(request.headers, size + len(request.body), len(request.body))
    return state


def _with_length(headers: Headers, was: int, is_: int) -> Headers:
    """Return headers with another length of the body."""
    own, length = (_LENGTH, b"%d" % was), (_LENGTH, b"%d" % is_)
    if headers.count(own) != 1:  # not as all servers give it
        return [length if name == _LENGTH else (name, value) for name, value in headers]
    at = headers.index(own)
    return [*headers[:at], length, *headers[at + 1 :]]


class CompletionOrder:
    """Says of each remembered step that the handler meets whether it is next.

    Args:
        hashes: the remembered steps, in the order in which they finished.
        beside: names what may be kept beside the result of a step.
    """

    __slots__ = ("_beside", "_checked", "_hashes", "_met", "_next", "_positions")

    def __init__(self, hashes: Iterable[str], beside: Callable[[str], str]) -> None:
        self._beside = beside
        self._hashes = list(hashes)
        self._checked = False
        self._met: set[str] = set()
        """Steps that were met before others that finished earlier."""
        self._next = 0
        """The first position that was neither met nor passed over."""
        self._positions: dict[str, int] | None = None

    def meet(self, step_hash: str) -> bool:
        """Meet a step. Returns whether all that finished before it were met."""
        hashes, at = self._hashes, self._next
        if at < len(hashes) and hashes[at] == step_hash:
            self._next = at + 1
            self._advance()
            return True
        if not self._checked:
            self._checked = True
            # The handler does not meet what is kept beside a result.
            beside = set(map(self._beside, hashes))
            # Steps that were met may still wait for their turns, so they keep their positions.
            self._next = sum(key not in beside for key in hashes[:at])
            self._hashes = [key for key in hashes if key not in beside]
            self._positions = None
            return self.meet(step_hash)
        self._met.add(step_hash)
        return False

    def position(self, step_hash: str) -> int:
        """Return the number of steps that finished before."""
        if self._positions is None:
            self._positions = {key: at for at, key in enumerate(self._hashes)}
        return self._positions.get(step_hash, -1)

    def pass_over(self, step_hash: str) -> bool:
        """Expect no step any more that finished before this one. Returns whether there are any."""
        position = self.position(step_hash)
        skips = position > self._next
        self._next = max(self._next, position + 1)
        self._advance()
        return skips

    def _advance(self) -> None:
        while self._met and self._next < len(self._hashes):
            if self._hashes[self._next] not in self._met:
                break
            self._met.discard(self._hashes[self._next])
            self._next += 1
