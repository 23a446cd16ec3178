"""The filters of the lists of runs and events, as the query string of their URL has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from stephttp._wire.ids import ULID_LETTERS
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import EventFilter, Paging, RunFilter, RunState

PERIODS = {
    "hour": ("Last hour", 3600),
    "day": ("Last day", 86_400),
    "week": ("Last week", 604_800),
}
"""Periods that end now: label and seconds, by name."""

PAGE_SIZE = 50

_RUN_ID = re.compile(f"[0-7][0-9{ULID_LETTERS}]{{7,25}}")
_LONGEST_TEXT = 500
_FURTHEST_ZONE = 24 * 60

Fields = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The filter of a list, as its form shows it.

    Attributes:
        text: the text to search for; if it looks like (the beginning of) a run's id, that run.
        period: one of `PERIODS`, `custom` or empty.
        after, before: limits of a custom period, as `datetime-local` fields write them.
        zone: minutes that the viewer's clock is behind UTC.
        paged: the list does not begin with the newest item.
    """

    endpoints: tuple[str, ...] = ()
    states: frozenset[RunState] = frozenset()
    text: str = ""
    name: str = ""
    period: str = ""
    after: str = ""
    before: str = ""
    zone: int = 0
    paged: bool = False

    @property
    def is_set(self) -> bool:
        """Whether the filter leaves anything out."""
        return bool(self.endpoints or self.states or self.text or self.name or self.period)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The filter as fields of a query string."""
        pairs = [("endpoint", one) for one in self.endpoints]
        pairs += [("state", one.value) for one in sorted(self.states)]
        pairs += [("q", self.text), ("name", self.name), ("span", self.period)]
        if self.period == "custom":
            pairs += [("after", self.after), ("before", self.before), ("zone", str(self.zone))]
        return [(name, value) for name, value in pairs if value]

    def url(self, path: str, **more: str | None) -> str:
        """Return the URL of a list with this filter."""
        given = [(name, value) for name, value in more.items() if value]
        query = urlencode([*self.fields, *given])
        return f"{path}?{query}" if query else path

    def run_filter(self, now_ms: int) -> RunFilter:
        """Return the filter for runs."""
        after, before = self._times(now_ms)
        is_id = bool(_RUN_ID.fullmatch(self.text.upper()))
        return RunFilter(
            endpoints=self.endpoints,
            states=self.states,
            after_ms=after,
            before_ms=before,
            text=None if is_id else self.text or None,
            run_id=self.text.upper() if is_id else None,
        )

    def event_filter(self, now_ms: int) -> EventFilter:
        """Return the filter for events."""
        after, before = self._times(now_ms)
        return EventFilter(self.name or None, after, before, self.text or None)

    def _times(self, now_ms: int) -> tuple[int | None, int | None]:
        if self.period in PERIODS:
            return now_ms - PERIODS[self.period][1] * 1000, None
        return _local(self.after, self.zone, "after"), _local(self.before, self.zone, "before")


def parse(fields: Fields) -> ListQuery:
    """Return the filter in the fields of a query string or a form.

    Raises:
        Refused: a field has a value that is not allowed.
    """
    period = _one(fields, "span")
    if period not in ("", "custom", *PERIODS):
        raise Refused(f"span: {period[:64]!r} is not one of hour, day, week, custom")
    try:
        states = frozenset(RunState(value) for value in fields.get("state", ()) if value)
    except ValueError as error:
        raise Refused(f"state: {error}") from None
    custom = period == "custom"
    return ListQuery(
        endpoints=tuple(value for value in fields.get("endpoint", ()) if value),
        states=states,
        text=_one(fields, "q").strip()[:_LONGEST_TEXT],
        name=_one(fields, "name").strip()[:_LONGEST_TEXT],
        period=period,
        after=_one(fields, "after") if custom else "",
        before=_one(fields, "before") if custom else "",
        zone=_zone(_one(fields, "zone")) if custom else 0,
        paged=bool(_one(fields, "older") or _one(fields, "newer")),
    )


def paging(fields: Fields) -> Paging:
    """Return which part of a list a query string asks for."""
    if newer := _one(fields, "newer"):
        return Paging(PAGE_SIZE, newer, newer=True)
    return Paging(PAGE_SIZE, _one(fields, "older") or None)


def fields_of(params: Any) -> dict[str, list[str]]:
    """Return the fields of a query string, each with all its values."""
    fields: dict[str, list[str]] = {}
    for name, value in params.multi_items():
        fields.setdefault(name, []).append(value)
    return fields


def _one(fields: Fields, name: str) -> str:
    return (fields.get(name) or [""])[-1]


def _zone(text: str) -> int:
    try:
        return max(-_FURTHEST_ZONE, min(_FURTHEST_ZONE, int(text or 0)))
    except ValueError:
        return 0


def _local(text: str, zone: int, field: str) -> int | None:
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(minutes=zone)
        return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise Refused(f"{field}: {text[:64]!r} is not a time") from None
