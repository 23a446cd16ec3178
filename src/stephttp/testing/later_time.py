"""A later date for your code in the second call of a test: handlers that depend on the time.

The classes and functions of `datetime` and `time` are exchanged where that code finds them: in the
two modules, and under the names by which its own modules have imported them. Clocks that only
measure (`time.monotonic`) stay as they are, and so does what libraries have imported.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

LATER = datetime.timedelta(days=1, hours=1, minutes=1, seconds=1.5)
"""So long that day, hour, minute and second differ."""

_date: Any = datetime.date
_datetime: Any = datetime.datetime
_time, _time_ns = time.time, time.time_ns


class _Kind(type):
    """Makes values of the real class, and knows them as its own."""

    real: type[Any]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.real(*args, **kwargs)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.real)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, cls.real)


class _Date(datetime.date, metaclass=_Kind):
    real = _date

    @classmethod
    def today(cls) -> Any:
        return (_datetime.now() + LATER).date()


class _Datetime(datetime.datetime, metaclass=_Kind):
    real = _datetime

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _datetime.now(tz) + LATER

    @classmethod
    def today(cls) -> Any:
        return _datetime.now() + LATER

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.now(datetime.UTC).replace(tzinfo=None) + LATER


def _later_time() -> float:
    return _time() + LATER.total_seconds()


def _later_time_ns() -> int:
    return _time_ns() + LATER // datetime.timedelta(microseconds=1) * 1000


_STAND_INS = {
    id(_date): _Date, id(_datetime): _Datetime,
    id(_time): _later_time, id(_time_ns): _later_time_ns,
}  # fmt: skip


@contextmanager
def a_day_later(modules: Iterable[dict[str, Any]]) -> Generator[None]:
    """Let code believe that it is a day later, while the block runs.

    Args:
        modules: the global names of its modules.
    """
    before: list[tuple[dict[str, Any], str, Any]] = []
    for names in (datetime.__dict__, time.__dict__, *modules):
        for name, value in list(names.items()):
            if (other := _STAND_INS.get(id(value))) is not None:
                before.append((names, name, value))
                names[name] = other
    try:
        yield
    finally:
        for names, name, value in before:
            names[name] = value
