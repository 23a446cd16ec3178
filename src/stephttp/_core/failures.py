"""Errors as data: an exception as the server stores it, and the exception made of that again."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from stephttp._core.encoding import decode_plain, encode_result
from stephttp._wire.durations import MAX_WAIT
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import (
    APIStatusError,
    NonRetriableError,
    RetryAfterError,
    StepError,
    StepResultError,
    UsageError,
)

_FINAL = (NonRetriableError, StepResultError, UsageError)
"""Errors that another attempt would only raise again."""

_MAX_CAUSES = 8
_MAX_TEXT = 16_384
"""Characters kept of a message, and of a traceback, whose innermost frames come last."""

_error_decoder = msgspec.json.Decoder(ErrorInfo)


def error_info(error: BaseException) -> ErrorInfo:
    """Return an exception as data, with its traceback, and its cause in the same form."""
    try:
        stack = "".join(traceback.format_exception(error))
    except Exception:  # formatting calls code of the exception's own
        stack = ""
    info = _error_info(error, depth=0)
    info.stack = _writable(stack[-_MAX_TEXT:])
    if isinstance(error, _FINAL) or _refused(error):
        info.no_retry = True
    return info


def _error_info(error: BaseException, depth: int) -> ErrorInfo:
    info = ErrorInfo(type(error).__name__, _message(error))
    if isinstance(error, StepError):
        info = ErrorInfo(_writable(error.name), _writable(error.message), error.stack)
        if error.data is not None:
            info.data = _error_data(error.data)
    if error.__cause__ is not None and depth < _MAX_CAUSES:
        info.cause = msgspec.Raw(encode_struct(_error_info(error.__cause__, depth + 1)))
    return info


def _error_data(data: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(encode_result(data, "with an error"))
    except StepResultError:  # the error itself is what matters
        return msgspec.Raw(encode_struct(_message(data)))


def _refused(error: BaseException) -> bool:
    """Return whether a server refused something that it would refuse again."""
    return (
        isinstance(error, APIStatusError)
        and 400 <= error.status < 500
        and error.status not in (401, 408, 425, 429)
    )


def retry_after(error: BaseException | None, now_ns: int) -> str | None:
    """Return when a failed step wants its next attempt, in RFC 3339; `None` if it does not say."""
    if not isinstance(error, RetryAfterError):
        return None
    when = error.retry_after
    if isinstance(when, timedelta):
        now = datetime.fromtimestamp(now_ns / 1_000_000_000, UTC)
        when = now + max(timedelta(0), min(when, MAX_WAIT))
    text = when.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def describe(error: BaseException) -> str:
    """Return an exception as one line of text that UTF-8 can encode."""
    return f"{type(error).__name__}: {_message(error)}"


def _message(error: Any) -> str:
    try:
        return _writable(str(error)[:_MAX_TEXT])
    except Exception:
        return "(its text cannot be had)"


def _writable(text: str) -> str:
    """Replace lone surrogates, which no encoding can write."""
    return text.encode(errors="replace").decode()


def step_error(info: ErrorInfo) -> StepError:
    """Return a remembered failure as the exception that the handler gets."""
    data = None if isinstance(info.data, msgspec.UnsetType) else decode_plain(info.data)
    return StepError(info.message, info.name or "Error", info.stack, data, _cause(info.cause))


def _cause(raw: msgspec.Raw | msgspec.UnsetType) -> StepError | None:
    if isinstance(raw, msgspec.UnsetType):
        return None
    try:
        return step_error(_error_decoder.decode(raw))
    except msgspec.ValidationError:  # from another SDK, which may put anything here
        value = decode_plain(raw)
        return None if value is None else StepError(str(value))
