"""Results of runs and steps: reading `RunComplete`, writing steps and errors, the answer at the
output URL, and warnings that SDKs report. Pure.

See docs/protocol.md 7 and 14.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import msgspec

from stephttp._wire.http import HOP_BY_HOP, TOKEN, without_credentials
from stephttp._wire.json import UNREADABLE
from stephttp._wire.opcodes import ErrorInfo, Op
from stephttp.engine.model.change import RunWarning
from stephttp.engine.model.run import RunStatus, Step

Headers = list[tuple[str, str]]

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ERROR_NAME = re.compile(r"[A-Z]\w*")
_DROPPED = {name.decode() for name in HOP_BY_HOP} | {"content-length"}
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_STATUS_END = 600
_JSON: Headers = [("content-type", "application/json")]
_ENVELOPE = {"status": int, "headers": dict, "body": str}


_SECRET_OPTS = frozenset({"auth_key", "headers"})
_MOST_WARNINGS = 100
"""Warnings of one op."""
_KIND, _STEP_ID, _MESSAGE, _BRANCH = 64, 64, 2_000, 64
"""Characters."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The data of a `RunComplete`: the output to store, the error if the run failed, and how long
    the handler took, if the SDK says so."""

    output: bytes
    error: bytes | None
    took_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """An HTTP answer."""

    status: int
    headers: Headers
    body: bytes


def error_json(name: str, message: str) -> bytes:
    """Write the error of a run."""
    return msgspec.json.encode({"name": name, "message": message})


def error_result(name: str, message: str, data: Any = None) -> bytes:
    """Write the memo of a step that failed in the engine. Go needs `data`, even if it is null."""
    return msgspec.json.encode({"error": {"name": name, "message": message, "data": data}})


def error_memo(error: ErrorInfo) -> bytes:
    """Write the error of a step, as SDKs get it back."""
    fields: dict[str, Any] = {"name": error.name, "message": error.message}
    if error.stack is not None:
        fields["stack"] = error.stack
    # An explicit null is kept: Go gives up on a failed step whose error has no `data` at all.
    extras = {"data": error.data, "cause": error.cause}
    fields |= {key: value for key, value in extras.items() if value is not msgspec.UNSET}
    return msgspec.json.encode(fields)


def op_data(op: Op) -> bytes:
    """Return the data of an op as JSON; if it has none, null."""
    return b"null" if op.data is msgspec.UNSET else bytes(op.data)


def memo_of(op: Op) -> bytes:
    """Return what is remembered of a step that returned."""
    return b'{"data":' + op_data(op) + b"}"


def complete_result(data: bytes, *, unfold: bool) -> Completion:
    """Read the data of a `RunComplete`.

    Args:
        data: the op's data.
        unfold: the op came by checkpoint, where SDKs may hide the whole answer in the body as
            the text of `{"data": {"status", "headers", "body"}}` (docs/protocol.md 7.3).
    """
    value = _decode(data)
    if not isinstance(value, dict):
        return Completion(data, None)
    took = value.get("duration")
    took_ns = took if type(took) is int and 0 <= took < 2**63 else None
    if unfold and isinstance(value.get("body"), str) and value["body"].startswith('{"data"'):
        inner = _decode(value["body"].encode())
        inner = inner.get("data") if isinstance(inner, dict) else None
        if isinstance(inner, dict) and _is_envelope(inner):
            value, data = inner, msgspec.json.encode(inner)
    return Completion(data, _failure(value), took_ns)


def _is_envelope(value: dict[str, Any]) -> bool:
    return all(isinstance(value.get(key), kind) for key, kind in _ENVELOPE.items())


def _failure(data: dict[str, Any]) -> bytes | None:
    error, status = data.get("error"), data.get("status")
    if error:
        if not isinstance(error, dict):
            return error_json(*_named(str(error)))
        return error_json(str(error.get("name") or "Error"), str(error.get("message") or ""))
    if isinstance(status, int) and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return error_json("HTTPError", f"the handler answered with status {status}")
    return None


def _named(text: str) -> tuple[str, str]:
    """Split an error such as `ValueError: too large` into name and message."""
    name, colon, message = text.partition(": ")
    return (name, message) if colon and _ERROR_NAME.fullmatch(name) else ("Error", text)


def render(
    status: RunStatus, output: bytes | None, head: bytes | None, error: bytes | None
) -> Rendered:
    """Make the HTTP answer for a reader of the output of a run that ended."""
    if status is RunStatus.CANCELLED:
        message = {"name": "CancelledError", "message": "the run was cancelled"}
        return _error(HTTPStatus.CONFLICT, message)
    answer = http_result(output, head)
    if answer is not None:
        return answer
    if status is RunStatus.FAILED:
        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, _decode(error or b"{}"))
    return Rendered(HTTPStatus.OK, list(_JSON), output or b"")


def without_cookies(answer: Rendered) -> Rendered:
    """Return an answer for another caller than the one whose session its cookies may open."""
    kept = [(name, value) for name, value in answer.headers if name.lower() != "set-cookie"]
    return replace(answer, headers=kept)


def http_result(output: bytes | None, head: bytes | None) -> Rendered | None:
    """Return the HTTP answer that a run ended with; `None` if its output does not describe one."""
    answer = _http_answer(output, plain=head is not None)
    if answer is None and head is not None:
        code, headers = msgspec.json.decode(head)
        return _rendered(code, headers, output or b"")
    return answer


def _http_answer(output: bytes | None, *, plain: bool) -> Rendered | None:
    """Return the HTTP answer that `output` describes, if it describes one.

    A plain body is the handler's own JSON: only a whole envelope counts there.
    """
    value = None if output is None else _decode(output)
    inner = value.get("data") if isinstance(value, dict) else None
    if plain or isinstance(inner, dict):
        value = inner
    if not isinstance(value, dict) or (plain and not _is_envelope(value)):
        return None
    status = value.get("status")
    # Other statuses cannot be sent as a final answer, so they do not count as HTTP results.
    if type(status) is not int or not HTTPStatus.OK <= status < _STATUS_END:
        return None
    if isinstance(value.get("raw"), dict):
        raw = _raw(status, value["raw"])
        if raw is not None:
            return raw
    if "headers" not in value and "body" not in value:
        return None
    headers, body = value.get("headers"), value.get("body")
    if not isinstance(headers, dict | None) or not isinstance(body, str | None):
        return None
    # The body arrived as decoded text, so no encoding describes it any more.
    pairs = [
        (name, str(text))
        for name, text in (headers or {}).items()
        if name.lower() != "content-encoding"
    ]
    return _rendered(status, pairs, (body or "").encode())


def _raw(status: int, raw: dict[str, Any]) -> Rendered | None:
    try:
        headers = msgspec.convert(raw.get("headers"), list[tuple[str, str]])
        body = b64decode(raw.get("body") or "", validate=True)
    except (msgspec.ValidationError, TypeError, binascii.Error, ValueError):
        return None
    return _rendered(status, headers, body)


def _rendered(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Rendered:
    kept = [
        (name, value.strip(" \t"))
        for name, value in headers
        if name.lower() not in _DROPPED and TOKEN.fullmatch(name) and not _CONTROL.search(value)
    ]
    return Rendered(status, kept, b"" if status in _BODILESS else body)


def _error(status: int, error: Any) -> Rendered:
    body = msgspec.json.encode({"error": error, "status": int(status)})
    return Rendered(status, list(_JSON), body)


def _decode(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        return None


class _Reported(msgspec.Struct):
    kind: str
    message: str
    step_id: str = ""


def read_warnings(op: Op, now_ms: int) -> list[RunWarning]:
    """Return the warnings in the options of an op. They decide nothing, so what cannot be read is
    left out rather than refused."""
    reported = (op.opts or {}).get("warnings")
    if not isinstance(reported, list):
        return []
    found: list[RunWarning] = []
    for one in reported[:_MOST_WARNINGS]:
        try:
            warning = msgspec.convert(one, _Reported)
        except msgspec.ValidationError:
            continue
        kind, step_id = warning.kind[:_KIND], warning.step_id[:_STEP_ID]
        found.append(RunWarning(kind, step_id, now_ms, warning.message[:_MESSAGE]))
    return found


def kept_opts(op: Op) -> bytes | None:
    """Return the options to store, for people, without secrets (docs/protocol.md 5.2)."""
    if not op.opts:
        return None
    kept = {name: value for name, value in op.opts.items() if name not in _SECRET_OPTS}
    url = kept.get("url")
    if isinstance(url, str):
        kept["url"] = without_credentials(url)
    return msgspec.json.encode(kept)


def reported_step(op: Op, seq: int, memo: bytes | None, attempts: int, now_ms: int) -> Step:
    """Return a step as an op of a report says it, and as it is to be written; see `Step`.

    Args:
        now_ms: the present, where the op has no times.
    """
    user_id, index, branch = None, 0, ""
    if (userland := op.userland) is not None:
        user_id, index = userland.id, userland.index or 0
        branch = userland.branch[:_BRANCH]
    started_ns, duration_ns = now_ms * 1_000_000, 0
    if op.timing is not None:
        started_ns, duration_ns = _int64(op.timing.a), _int64(op.timing.b)
    return Step(
        step_id=op.id,
        seq=seq,
        userland_id=user_id,
        userland_index=index,
        name=op.display_name or op.name,
        op=str(op.op),
        memo=memo,
        attempts=attempts,
        started_ns=started_ns,
        duration_ns=duration_ns,
        error=error_memo(op.error) if op.error else None,
        opts=kept_opts(op),
        branch=branch,
    )


def _int64(value: float) -> int:
    """Return a number of nanoseconds; 0 for what the database cannot hold."""
    return int(value) if 0 <= value < 2**63 else 0
