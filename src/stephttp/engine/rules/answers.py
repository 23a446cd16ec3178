"""The meaning of an endpoint's answer to a re-entry: result, ops, counted failure, lost call, by
status and headers (docs/protocol.md 6.3). Pure.

answer                                             meaning
no `x-inngest-sdk` header, but the SDK was heard   broken call: the answer was lost on the way
  of during the call
no `x-inngest-sdk` header                          429, 502, 503, 504: transient failure
                                                   any other status: foreign answer
206, JSON that is not UTF-8                        broken call: it was changed on the way
421, not Go's                                      foreign answer
JSON object or array with a completing op as its   counted failure; its data is the result
  last, not 2xx                                    if no attempt is left, the ops before it
                                                   are kept
other JSON array of ops, any status                ops
JSON object that is a completing op, 2xx           ops
other 2xx                                          the result (206: must be readable as ops
                                                   if it looks like them)
other 401, but Go's                                transient failure: the signature was refused
other 502, 503, 504                                transient failure
other not 2xx                                      counted failure
other not 2xx with `x-inngest-no-retry: true`      final failure

SDKs say that a call should not be repeated when its signature is wrong, because the real server
would leave the run hanging. But the keys of two sides differ while they are being changed, and then
all runs in flight would fail at once. A handler's own 401 comes in a completing op, except from Go,
whose SDK takes a call that it cannot verify for a new request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from stephttp._wire.json import UNREADABLE
from stephttp._wire.opcodes import COMPLETING_OPS, Op
from stephttp.engine.model.inputs import CallFailure, FailureKind, Hints
from stephttp.engine.model.run import Snapshot
from stephttp.engine.model.timer import RESUME
from stephttp.engine.rules.due_times import retry_after_ms

_TRANSIENT = frozenset({502, 503, 504})
BUSY = _TRANSIENT | {429}
"""What something in front of the application answers while the application cannot be reached."""
_GO = "go:"
_OURS = "stephttp-py:"
_EXCERPT = 300
_OPS = msgspec.json.Decoder(list[Op])
_OP = msgspec.json.Decoder(Op)
_PRIVATE = ("x-inngest-", "x-run-id", "x-stephttp-", "server-timing", "date", "server")
"""Headers of a plain answer that are for the engine, or that a server sets itself."""


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """An endpoint's answer: status, headers with lower-case names, body."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    _first: dict[str, str] = field(init=False, compare=False, repr=False)
    """The first value of each header: a dozen are asked for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_first", dict(reversed(self.headers)))

    def header(self, name: str) -> str:
        """Return the first value of a header, or an empty text."""
        return self._first.get(name, "")


@dataclass(frozen=True, slots=True)
class OpsAnswer:
    """The answer holds ops."""

    ops: list[Op]
    hints: Hints


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """The answer is itself the result; `head` is its status and headers as JSON."""

    body: bytes
    head: bytes


class _FailureBody(Struct):
    name: str | None = None
    message: str | None = None
    error: Any = None


def read_answer(
    answer: HTTPResponse, now_ms: int, *, reached: bool = False
) -> OpsAnswer | PlainAnswer | CallFailure:
    """Return what an answer means; see the table on top.

    Args:
        reached: whether the SDK was heard of during the call.
    """
    retry_after = retry_after_ms(answer.header("retry-after"), now_ms)
    if not answer.header("x-inngest-sdk") and reached:
        message = (
            f"something on the way answered {answer.status} in place of the SDK, which had been "
            "reached"
        )
        detail = message + excerpt(answer.body)
        return CallFailure(FailureKind.BROKEN, "LostAnswerError", detail, retry_after)
    if not answer.header("x-inngest-sdk"):
        kind = FailureKind.TRANSIENT if answer.status in BUSY else FailureKind.FOREIGN
        message = f"the endpoint answered {answer.status} without passing the request to the SDK"
        return CallFailure(kind, "UpstreamError", message + excerpt(answer.body), retry_after)

    if _is_damaged(answer):
        message = f"the endpoint's answer arrived damaged: {excerpt(answer.body)[2:]}"
        return CallFailure(FailureKind.BROKEN, "DamagedAnswerError", message)

    transient = FailureKind.TRANSIENT if answer.status in _TRANSIENT else FailureKind.COUNTED
    no_retry = answer.header("x-inngest-no-retry").lower() == "true"
    good = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
    try:
        ops = _read_ops(answer)
    except UNREADABLE as error:
        # Go sends the handler's own answer, which may well be a JSON array; only 206 promises ops.
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            message = f"the endpoint's answer cannot be read as step opcodes: {error}"
            return CallFailure(FailureKind.FINAL, "AnswerError", message)
        ops = None

    last = ops[-1] if ops and ops[-1].op in COMPLETING_OPS else None
    if ops is not None and (last is None or good):
        leaves = leaves_failed_steps(answer.header("x-inngest-sdk"))
        hints = Hints(retry_after, no_retry, version_of(answer) or 0, leaves)
        return OpsAnswer(ops, hints)
    if good:
        return PlainAnswer(answer.body, _head(answer))

    is_go = answer.header("x-inngest-sdk").startswith(_GO)
    if answer.status == HTTPStatus.UNAUTHORIZED and last is None and not is_go:
        message = (
            "the endpoint answered 401, it refused the signature (do the signing keys differ?)"
        )
        detail = message + excerpt(answer.body)
        return CallFailure(FailureKind.TRANSIENT, "SignatureError", detail, retry_after)
    if answer.status == HTTPStatus.MISDIRECTED_REQUEST and last is None and not is_go:
        _, message = _error(answer)
        return CallFailure(FailureKind.FOREIGN, "MisdirectedError", message, retry_after)
    kind = FailureKind.FINAL if no_retry else transient if last is None else FailureKind.COUNTED
    # Of an array, the error shows the last op only, and not what the steps before it returned.
    shown = answer if last is None else replace(answer, body=msgspec.json.encode(last))
    name, message = _error(shown)
    output = bytes(last.data) if last is not None and isinstance(last.data, msgspec.Raw) else None
    return CallFailure(kind, name, message, retry_after, output, (ops or [])[:-1])


def is_current(snapshot: Snapshot, step_id: str, job_id: str, attempt: int) -> bool:
    """Say whether a call still counts: the run has not moved on since the call started."""
    timer = snapshot.timers.get(step_id)
    if snapshot.run.status.ended or timer is None:
        return False
    # The counters of a call are with the run for its own, with the timer for a planned step.
    counters = snapshot.run if step_id == RESUME else timer
    return (counters.job_id, counters.attempt) == (job_id, attempt)


def leaves_failed_steps(sdk: str) -> bool:
    """Say whether an SDK leaves its handler when a step has failed for good, and expects to be
    called again; ours gives the failure to the handler at once (docs/protocol.md 4.2).

    Args:
        sdk: of the header `x-inngest-sdk`.
    """
    return not is_ours(sdk)


def is_ours(sdk: str) -> bool:
    """Say whether a run is one of our SDK.

    Args:
        sdk: see `leaves_failed_steps`.
    """
    return sdk.startswith(_OURS)


def asks_first(sdk: str) -> bool:
    """Say whether an SDK asks for the state of a run, and names the call, before its handler is
    called, unless the state came along.

    Args:
        sdk: of the header `x-inngest-sdk`.
    """
    return is_ours(sdk)


def _is_damaged(answer: HTTPResponse) -> bool:
    """Return whether what an SDK says of its run was changed on the way: it is always UTF-8."""
    if answer.status != HTTPStatus.PARTIAL_CONTENT or answer.body.isascii():
        return False
    if not answer.header("content-type").startswith("application/json"):
        return False
    try:
        answer.body.decode()
    except UnicodeDecodeError:
        return True
    return False


def _read_ops(answer: HTTPResponse) -> list[Op] | None:
    """Return the ops in an answer; `None` if it does not look like ops.

    Raises:
        msgspec.DecodeError: it looks like ops, but cannot be read as such.
    """
    body = answer.body.lstrip()
    first = body[:1]
    if first == b"[":
        # The decoder does not look into the parts that it leaves raw.
        body.decode()
        return _OPS.decode(body)
    if first == b"{" and b'"op"' in body and b"Complete" in body:
        try:
            body.decode()
            op = _OP.decode(body)
        except UNREADABLE:
            return None
        return [op] if op.op in COMPLETING_OPS else None
    return None


def _head(answer: HTTPResponse) -> bytes:
    kept = [(name, value) for name, value in answer.headers if not name.startswith(_PRIVATE)]
    # The SDK uses 206 towards the engine; the reader of the result did not ask for a range.
    partial = answer.status == HTTPStatus.PARTIAL_CONTENT
    return msgspec.json.encode((HTTPStatus.OK if partial else answer.status, kept))


def _error(answer: HTTPResponse) -> tuple[str, str]:
    """Return name and message of the error in a failed answer."""
    try:
        body = msgspec.json.decode(answer.body, type=_FailureBody)
    except UNREADABLE:
        body = _FailureBody()
    if isinstance(body.error, dict):
        body = _FailureBody(_text(body.error.get("name")), _text(body.error.get("message")))
    message = body.message or _text(body.error)
    if not message:
        message = f"the endpoint answered {answer.status}{excerpt(answer.body)}"
    return body.name or "EndpointError", message


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def version_of(answer: HTTPResponse) -> int | None:
    """Return which version of requests an SDK wants; `None` if it does not say that."""
    version = answer.header("x-inngest-req-version")
    known = version.isascii() and version.isdecimal() and len(version) < 9
    return int(version) if known else None


def excerpt(body: bytes) -> str:
    """Return the beginning of a body, as it is put behind a message."""
    text = body[: 4 * _EXCERPT].decode("utf-8", "replace")[:_EXCERPT].strip()
    return f": {text}" if text else ""
