"""When something is due: durations and times of sleeps and timeouts, `Retry-After`, back-offs of
steps (docs/protocol.md 3.1, 5.4). Pure.

See docs/protocol.md 3.1 and 5.4.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from stephttp._wire.durations import MAX_WAIT, parse_duration
from stephttp._wire.limits import MAX_RETRIES
from stephttp._wire.opcodes import Op
from stephttp.engine.model.refused import Refused

_SHORTEST_DATE = 10
_LONGEST_SECONDS_TEXT = 7
_MS = timedelta(milliseconds=1)
_LONGEST_WAIT_MS = MAX_WAIT // _MS
_LONGEST_PAUSE = timedelta(hours=24)
_RETRY_AFTER_MS = (1_000, _LONGEST_PAUSE // _MS)


def sleep_until_ms(op: Op, field: str, now_ms: int) -> int:
    """Return when the sleep `op` ends; a time that has passed means now.

    Args:
        op: a `Sleep`; its `opts.duration`, else its `name`, holds a duration or a date.
        field: where the op stands in the request, for the error.
        now_ms: the present time.

    Raises:
        Refused: the text is neither, or lies more than 366 days ahead.
    """
    duration = (op.opts or {}).get("duration")
    field, text = (
        (f"{field}.name", op.name or "")
        if duration is None
        else _text(f"{field}.opts.duration", duration)
    )
    return _due_ms(text.strip(), field, now_ms)


def timeout_ms(op: Op, field: str, now_ms: int, default_ms: int) -> int:
    """Return when the wait `op` is over at the latest.

    Args:
        op: a wait; its `opts.timeout` holds a duration or a date.
        field: where the op stands in the request, for the error.
        now_ms: the present time.
        default_ms: how long a wait lasts that names no timeout.

    Raises:
        Refused: the text is neither, or lies more than 366 days ahead.
    """
    timeout = (op.opts or {}).get("timeout")
    if timeout is None:
        return now_ms + default_ms
    field, text = _text(f"{field}.opts.timeout", timeout)
    text = text.strip()
    return _due_ms(text, field, now_ms) if text else now_ms + default_ms


def lookback_ms(op: Op, field: str) -> int:
    """Return how long before it a wait also sees events, by its `opts.lookback` (a duration).

    Raises:
        Refused: the text is not one, is negative, or means more than 366 days.
    """
    lookback = (op.opts or {}).get("lookback")
    if lookback is None:
        return 0
    field, text = _text(f"{field}.opts.lookback", lookback)
    try:
        long_ms = _signed_duration(text.strip()) // _MS
    except (ValueError, OverflowError) as error:
        raise Refused(f"{field}: {error}") from None
    if not 0 <= long_ms <= _LONGEST_WAIT_MS:
        raise Refused(f"{field}: {text!r} is not from 0 to {MAX_WAIT.days} days")
    return long_ms


def _due_ms(text: str, field: str, now_ms: int) -> int:
    if not text:
        return now_ms
    due_ms = _date_ms(text) if len(text) >= _SHORTEST_DATE else None
    if due_ms is None:
        try:
            due_ms = now_ms + _signed_duration(text) // _MS
        except (ValueError, OverflowError) as error:
            raise Refused(f"{field}: {error}") from None
    if due_ms - now_ms > _LONGEST_WAIT_MS:
        raise Refused(f"{field}: {text!r} is more than {MAX_WAIT.days} days ahead")
    return max(due_ms, now_ms)


def retry_after_ms(value: str, now_ms: int) -> int | None:
    """Return the delay of a `Retry-After` value, within 1 s and 24 h; `None` if unreadable."""
    value = value.strip()
    if len(value) <= _LONGEST_SECONDS_TEXT:
        if not (value.isascii() and value.isdigit()):
            return None
        delay = int(value) * 1_000
    else:
        due_ms = _date_ms(value)
        if due_ms is None:
            due_ms = _mail_date_ms(value)
        if due_ms is None:
            return None
        delay = due_ms - now_ms
    shortest, longest = _RETRY_AFTER_MS
    return min(max(delay, shortest), longest)


def retry_wishes(op: Op, field: str, retries: int, now_ms: int) -> tuple[int, int | None]:
    """Return how often and when the failed step `op` is to be tried again.

    The SDK of stephttp says so in `opts.retries` (a number) and `opts.retry_after` (like the
    header). For other SDKs `retries` holds.

    Raises:
        Refused: one of the two has the wrong type or form.
    """
    opts = op.opts or {}
    limit = opts.get("retries", retries)
    if type(limit) is not int or limit < 0:
        raise Refused(f"{field}.opts.retries: expected a number from 0, got {limit!r}")
    after = opts.get("retry_after")
    if after is None:
        return min(limit, MAX_RETRIES), None
    delay_ms = retry_after_ms(after, now_ms) if isinstance(after, str) else None
    if delay_ms is None:
        raise Refused(f"{field}.opts.retry_after: expected seconds or a date, got {after!r}")
    return min(limit, MAX_RETRIES), delay_ms


def pause_wishes(op: Op, field: str) -> tuple[float | None, float | None]:
    """Return how many seconds the request of `op` rests before it is made again: at first, and at
    most, neither less than one. `None`: as configured.

    The SDK of stephttp says so in `opts.delay` and `opts.max_delay`.

    Raises:
        Refused: one of the two is not a duration of at most 24 hours.
    """
    first, longest = (_pause(op, name, field) for name in ("delay", "max_delay"))
    return first, longest


def _pause(op: Op, name: str, field: str) -> float | None:
    value = (op.opts or {}).get(name)
    if value is None:
        return None
    field, text = _text(f"{field}.opts.{name}", value)
    try:
        pause = parse_duration(text)
    except ValueError as error:
        raise Refused(f"{field}: {error}") from None
    if pause > _LONGEST_PAUSE:
        raise Refused(f"{field}: {text!r} is more than 24 hours")
    return max(1.0, pause.total_seconds())


def _text(field: str, value: object) -> tuple[str, str]:
    if not isinstance(value, str):
        raise Refused(f"{field}: expected text such as '1h30m', got {type(value).__name__}")
    return field, value


def _signed_duration(text: str) -> timedelta:
    if text.startswith("-"):
        return -parse_duration(text[1:])
    return parse_duration(text)


def _date_ms(text: str) -> int | None:
    try:
        return _epoch_ms(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _mail_date_ms(text: str) -> int | None:
    try:
        return _epoch_ms(parsedate_to_datetime(text))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _epoch_ms(when: datetime) -> int:
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // _MS
