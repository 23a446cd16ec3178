"""Errors of steps as data, and `StepError`, which is made of that again: an exception as the
server stores it, and its cause.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from stephttp._core import retry_policy
from stephttp._core.encoding import decode_plain, encode_result
from stephttp._core.failure_groups import group_data, remembered_group
from stephttp._core.retry_policy import NEVER_RETRIED, RetryPolicy
from stephttp._wire.durations import MAX_WAIT
from stephttp._wire.json import encode_struct
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import (
    APIStatusError,
    RetryAfterError,
    StepError,
    StepResultError,
    StepTimeoutError,
)

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
    if is_final(error):
        info.no_retry = True
    return info


def failed_attempt(
    error: BaseException,
    policy: RetryPolicy,
    failures: int,
    now_ns: int,
    jitter: Callable[[], float],
) -> tuple[ErrorInfo, str | None]:
    """Return the failure of a step as data, and when it wants its next attempt; see `next_attempt`.

    Args:
        policy: of the step; what it gives up on is marked so that it is not tried again.
        failures: how often the step had failed before.
        jitter: gives a random number, at least 0 and less than 1.
    """
    info = error_info(error)
    if retry_policy.gives_up(policy, error):
        info.no_retry = True
    if info.no_retry is True:
        return info, None
    return info, next_attempt(error, policy, failures, now_ns, jitter)


def next_attempt(
    error: BaseException | None,
    policy: RetryPolicy,
    failures: int,
    now_ns: int,
    jitter: Callable[[], float],
) -> str | None:
    """Return when the next attempt is to be made, in RFC 3339; `None` leaves it to the server."""
    asked = retry_after(error, now_ns)
    if asked is None and (pause := retry_policy.pause(policy, failures, jitter)) is not None:
        asked = _later(pause, now_ns)
    return asked


def is_final(error: BaseException) -> bool:
    """Return whether an exception says by itself that another attempt would meet it again."""
    return any(
        isinstance(part, NEVER_RETRIED) or _refused(part) for part in retry_policy.parts(error)
    )


def _error_info(error: BaseException, depth: int) -> ErrorInfo:
    info = ErrorInfo(type(error).__name__, _message(error))
    if isinstance(error, StepError):
        info = _step_error_info(error, info)
    if isinstance(error, ExceptionGroup):
        info.data = group_data(error, info.data, lambda part: _error_info(part, _MAX_CAUSES - 1))
    if error.__cause__ is not None and depth < _MAX_CAUSES:
        info.cause = msgspec.Raw(encode_struct(_error_info(error.__cause__, depth + 1)))
    return info


def _step_error_info(error: StepError, info: ErrorInfo) -> ErrorInfo:
    """Return what a step error says itself; a user's class may set nothing, or other things."""
    name, message, stack, data = (
        getattr(error, field, None) for field in ("name", "message", "stack", "data")
    )
    if message is None:
        message = error.args[0] if len(error.args) == 1 else error.args
    info.message = _message(message)
    if name and isinstance(name, str):
        info.name = _writable(name)
    if isinstance(stack, str):
        info.stack = stack
    if data is not None:
        info.data = _error_data(data)
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
    """Return when a failed step wants its next attempt, in RFC 3339; `None` if it does not say.

    Of several exceptions in a group the latest time counts.
    """
    found = () if error is None else retry_policy.parts(error)
    asked = [_asked(part, now_ns) for part in found if isinstance(part, RetryAfterError)]
    return max(filter(None, asked), default=None)


def _asked(error: RetryAfterError, now_ns: int) -> str | None:
    # A class of the user's may set it without our `__init__`, or not at all.
    when: Any = getattr(error, "retry_after", None)
    try:
        return _later(timedelta(seconds=when) if isinstance(when, int | float) else when, now_ns)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _later(when: timedelta | datetime, now_ns: int) -> str:
    """Return a time that may be relative to the present, in RFC 3339."""
    now = datetime.fromtimestamp(now_ns / 1_000_000_000, UTC)
    if isinstance(when, datetime):  # one of the first or last day of the calendar has no UTC
        when = when - now
    when = now + max(timedelta(0), min(when, MAX_WAIT))
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
    cause = _cause(info.cause)
    group = remembered_group(info, data, cause, step_error)
    if group is not None:
        return group
    kind = StepTimeoutError if info.name == StepTimeoutError.__name__ else StepError
    return kind(info.message, info.name or "Error", info.stack, data, cause)


def _cause(raw: msgspec.Raw | msgspec.UnsetType) -> StepError | None:
    if isinstance(raw, msgspec.UnsetType):
        return None
    try:
        return step_error(_error_decoder.decode(raw))
    except msgspec.ValidationError:  # from another SDK, which may put anything here
        value = decode_plain(raw)
        return None if value is None else StepError(str(value))
