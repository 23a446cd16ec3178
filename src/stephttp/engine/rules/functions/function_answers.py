"""Reads the meaning of a function's answer (docs/protocol.md 9.6). Pure.

answer                                          meaning
201 with `{"status", "headers", "body"}`        the answer in it, which was streamed
no `x-inngest-sdk` header                       429, 502, 503, 504: transient failure
                                                500 with an error in the form of the TypeScript
                                                SDK: as with the header
                                                any other status: foreign answer
206, JSON that is not an op or an array of ops  final failure
206 whose last op completes the run             the result, after the ops before it
other 206                                       ops
other 2xx                                       the result
not 2xx, `x-inngest-no-retry: true`,            final failure
  or no attempt is left
other not 2xx                                   counted failure

Differences from the answers of endpoints (`rules.answers`): only 206 holds ops, because a function
may return an array; and a result is a value, not an HTTP answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from stephttp._wire.json import UNREADABLE
from stephttp._wire.opcodes import COMPLETING_OPS, Op
from stephttp.engine.model.call import EndpointCall, FunctionState
from stephttp.engine.model.inputs import CallFailure, FailureKind, Hints
from stephttp.engine.model.values import Value
from stephttp.engine.rules.answers import BUSY, HTTPResponse, OpsAnswer, excerpt, version_of
from stephttp.engine.rules.due_times import retry_after_ms
from stephttp.engine.rules.functions.call_request import is_last
from stephttp.engine.rules.results import error_json, op_data

_SDK = "x-inngest-sdk"
_SERIALIZED = "__serialized"
"""Marks the errors of the TypeScript SDK."""
_LARGEST_ERROR = 256 * 1024
"""Bytes of an error that is kept whole; of a larger one, name and message are kept."""
_LONGEST_NAME = 200
_LONGEST_MESSAGE = 64 * 1024
"""Characters of these."""
_OPS = msgspec.json.Decoder(list[Op])
_OP = msgspec.json.Decoder(Op)


class FunctionResult(Value, frozen=True, gc=False):
    """The function has returned.

    Attributes:
        output: what it returned, as JSON.
        steps: the ops before that.
    """

    output: bytes
    steps: Sequence[Op] = ()


class _Streamed(msgspec.Struct):
    status: int
    headers: dict[str, Any] = {}
    body: Any = ""


def read_function_answer(
    answer: HTTPResponse, call: EndpointCall, state: FunctionState, now_ms: int
) -> OpsAnswer | FunctionResult | CallFailure:
    """Return what the answer to a call means; see the table on top."""
    if answer.status == HTTPStatus.CREATED and answer.header(_SDK):
        try:
            answer = _unfolded(answer)
        except UNREADABLE as error:
            message = f"the streamed answer cannot be read: {error}{excerpt(answer.body)}"
            return CallFailure(FailureKind.BROKEN, "DamagedAnswerError", message)
    retry_after = retry_after_ms(answer.header("retry-after"), now_ms)
    if not answer.header(_SDK) and not _is_thrown_by_middleware(answer):
        kind = FailureKind.TRANSIENT if answer.status in BUSY else FailureKind.FOREIGN
        message = f"the app answered {answer.status} without passing the request to the SDK"
        return CallFailure(kind, "UpstreamError", message + excerpt(answer.body), retry_after)
    gives_up = answer.header("x-inngest-no-retry").lower() == "true"
    final = gives_up or is_last(call, state)
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        return _read_ops(answer, retry_after, final=final)
    if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return FunctionResult(_json(answer.body))
    name, message, whole = read_error(answer)
    kind = FailureKind.FINAL if final else FailureKind.COUNTED
    cause = "NonRetriableError" if gives_up else f"invalid status code: {answer.status}"
    return CallFailure(kind, name, message, retry_after, output=whole, error=whole, cause=cause)


def _is_thrown_by_middleware(answer: HTTPResponse) -> bool:
    """Say whether the TypeScript SDK answers for its middleware (`wrapRequest`), which it does
    without its headers."""
    error = _object(answer.body) if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR else None
    return isinstance(error, dict) and error.get(_SERIALIZED) is True


def _read_ops(
    answer: HTTPResponse, retry_after: int | None, *, final: bool
) -> OpsAnswer | FunctionResult | CallFailure:
    try:
        answer.body.decode()  # parts that are left raw are not looked at
        body = answer.body.lstrip()
        ops = _OPS.decode(body) if body[:1] == b"[" else [_OP.decode(body)]
    except UNREADABLE as error:
        message = f"the function's answer cannot be read as step opcodes: {error}"
        shown = error_json("AnswerError", message)
        return CallFailure(FailureKind.FINAL, "AnswerError", message, output=shown)
    if ops and ops[-1].op in COMPLETING_OPS:
        return FunctionResult(op_data(ops[-1]), ops[:-1])
    return OpsAnswer(ops, Hints(retry_after, final, version_of(answer), leaves=True))


def read_error(answer: HTTPResponse) -> tuple[str, str, bytes]:
    """Return name, message and the whole error in a failed answer, as JSON; of a very large one,
    only these two."""
    error = _object(answer.body)
    if isinstance(error, str):  # some SDKs encode it twice
        error = _object(error.encode())
    if not isinstance(error, dict):
        message = f"the function answered {answer.status}{excerpt(answer.body)}"
        return "FunctionError", message, error_json("FunctionError", message)
    name = _text(error, "name") or "FunctionError"
    message = _text(error, "message") or f"the function answered {answer.status}"
    whole = msgspec.json.encode(error | {"name": name, "message": message})
    if len(whole) <= _LARGEST_ERROR:
        return name, message, whole
    name, message = name[:_LONGEST_NAME], message[:_LONGEST_MESSAGE]
    return name, message, error_json(name, message)


def _text(error: dict[str, Any], key: str) -> str:
    value = error.get(key)
    return value if isinstance(value, str) else ""


def _unfolded(answer: HTTPResponse) -> HTTPResponse:
    """Return the answer that is in the body of a streamed one, after bytes that kept it open."""
    inner = msgspec.json.decode(answer.body, type=_Streamed)
    headers = [(name.lower(), str(value)) for name, value in inner.headers.items()]
    outer = [pair for pair in answer.headers if pair[0] == _SDK]
    body = inner.body if isinstance(inner.body, str) else msgspec.json.encode(inner.body).decode()
    return HTTPResponse(inner.status, [*headers, *outer], body.encode())


def _object(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        return None


def _json(body: bytes) -> bytes:
    """Return a result as JSON; what is not JSON is a text."""
    try:
        body.decode()
        msgspec.json.decode(body)
    except UNREADABLE:
        return msgspec.json.encode(body.decode("utf-8", "replace")) if body.strip() else b"null"
    return body
