"""Cron expressions: what is accepted as one, and the times that it stands for. Pure.

| form | example | times |
|---|---|---|
| five fields | `30 8 * * mon-fri` | minute, hour, day of month, month, day of week |
| a name | `@daily` | the same, in a word |
| a period | `@every 1h30m` | so long after the time before |

A zone may stand before fields and names, as in `TZ=Europe/Paris 0 9 * * *`; without one, times are
UTC. A field has terms with commas between them. Each is `*` (or `?`), a value or a range of two,
and may end with a step (`*/5`, `10-30/10`; `5/10` is `5-59/10`). Months and days of week have
names, and 0 is Sunday. A day fits if day of month and day of week fit; if neither of the two is
`*`, one is enough.

When clocks are set ahead, what would fall into the time that is left out comes right after it. When
they are set back, times that come twice count once. Schedules whose minute or hour begins with `*`
go through both as time itself does.

cronsim finds the times of fields. That it takes more forms than this page, and reads one of them in
another way (a day that begins with `*`), does not matter: it gets plain lists of numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from stephttp._wire.durations import MAX_WAIT, parse_duration

_SHORTEST_PERIOD = timedelta(seconds=1)
_EVERY = "@every"
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S*)\s+(.*)", re.DOTALL)
_ANY = "*"
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field.

    Attributes:
        names: those of its values, from the least.
        keeps_steps: `*/5` is not the same as the numbers that it stands for; it says that the
            schedule goes through clock changes as time itself does.
    """

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()
    keeps_steps: bool = False


_FIELDS = (
    _Field("minute", 0, 59, keeps_steps=True),
    _Field("hour", 0, 23, keeps_steps=True),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 6, _DAYS),
)


@dataclass(frozen=True, slots=True)
class _Period:
    seconds: int


@dataclass(frozen=True, slots=True)
class _Fields:
    text: str
    zone: ZoneInfo


def check(expression: str) -> None:
    """Check a cron expression.

    Raises:
        ValueError: it is not acceptable; the text says why.
    """
    _read(expression)


def next_ms(expression: str, after_ms: int) -> int:
    """Return the first time later than `after_ms`.

    Args:
        expression: a cron expression.
        after_ms: milliseconds since the epoch; for a period, the time before.

    Raises:
        ValueError: it is not a cron expression, or has no further time.
    """
    read = _read(expression)
    after_s = after_ms // 1000
    if isinstance(read, _Period):
        return (after_s + read.seconds) * 1000
    try:
        for found in CronSim(read.text, datetime.fromtimestamp(after_s, read.zone)):
            found_s = round(found.timestamp())
            # In an hour that comes twice, it begins with the first of the two.
            if found_s > after_s:
                return found_s * 1000
    except OverflowError:
        pass
    raise ValueError(f"{expression!r} has no time after the present one")


@lru_cache(maxsize=1024)
def _read(expression: str) -> _Period | _Fields:
    text, zone = expression.strip(), ZoneInfo("UTC")
    if (match := _ZONE.fullmatch(text)) is not None:
        text, zone = match[2].strip(), _zone(match[1])
    if text.partition(" ")[0] == _EVERY:
        return _Period(_seconds(text.removeprefix(_EVERY).strip()))
    fields = _NAMED.get(text, text).split()
    if text.startswith("@") and text not in _NAMED:
        raise ValueError(f"{text!r} is not one of {', '.join(_NAMED)} or {_EVERY} with a duration")
    if len(fields) != len(_FIELDS):
        names = ", ".join(field.name for field in _FIELDS)
        raise ValueError(f"expected five fields ({names}), got {len(fields)}")
    plain = " ".join(_plain(text, field) for text, field in zip(fields, _FIELDS, strict=True))
    try:
        CronSim(plain, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError:
        raise ValueError(f"{text!r} never comes: no month of it has such a day") from None
    return _Fields(plain, zone)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone such as 'Europe/Paris'") from None


def _seconds(text: str) -> int:
    period = parse_duration(text)
    if not _SHORTEST_PERIOD <= period <= MAX_WAIT:
        raise ValueError(f"{_EVERY}: {text!r} is not from 1 s to {MAX_WAIT.days} days")
    return period // _SHORTEST_PERIOD


def _plain(text: str, field: _Field) -> str:
    """Return a field as `*`, or as the numbers that it stands for."""
    numbers: set[int] = set()
    terms = text.lower().split(",")
    for term in terms:
        span, slash, step_text = term.partition("/")
        step = _number(step_text, field, text, least=1) if slash else 1
        if span in (_ANY, "?"):
            if step == 1:
                return _ANY
            if field.keeps_steps and len(terms) == 1:
                return f"{_ANY}/{step}"
            first, last = field.least, field.most
        else:
            start, dash, end = span.partition("-")
            first = _value(start, field, text)
            last = _value(end, field, text) if dash else field.most if slash else first
        if last < first:
            raise ValueError(f"{field.name}: {span!r} ends before it begins")
        numbers.update(range(first, last + 1, step))
    return ",".join(str(number) for number in sorted(numbers))


def _value(text: str, field: _Field, whole: str) -> int:
    if text in field.names:
        return field.least + field.names.index(text)
    number = _number(text, field, whole, least=0)
    if not field.least <= number <= field.most:
        raise ValueError(f"{field.name}: {number} is not from {field.least} to {field.most}")
    return number


def _number(text: str, field: _Field, whole: str, *, least: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        what = "a step" if least else "a value"
        raise ValueError(f"{field.name}: {text!r} in {whole!r} is not {what}")
    return int(text)
