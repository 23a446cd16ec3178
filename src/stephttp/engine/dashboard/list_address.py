"""What the address of a list says: which runs or events, and which part of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from stephttp.engine.model.refused import Refused
from stephttp.engine.reading import EventFilter, PageRequest, RunFilter, State

SPANS = {
    "hour": ("Last hour", 3600),
    "day": ("Last day", 86_400),
    "week": ("Last week", 604_800),
}
"""Names of spans of time that end now, with their seconds."""

PAGE_SIZE = 50

_RUN_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{7,25}")
_LONGEST_TEXT = 500
_FURTHEST_ZONE = 24 * 60

Fields = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A list's filter as its form shows it.

    Attributes:
        text: what was typed to search for; a run's id, or the begin of one, counts as such.
        span: one of `SPANS`, `custom` or empty.
        after, before: of a custom span, as `datetime-local` fields have them.
        zone: minutes that the viewer's clock is behind UTC.
        paged: the list does not begin with what is newest.
    """

    endpoints: tuple[str, ...] = ()
    states: frozenset[State] = frozenset()
    text: str = ""
    name: str = ""
    span: str = ""
    after: str = ""
    before: str = ""
    zone: int = 0
    paged: bool = False

    @property
    def is_set(self) -> bool:
        """Whether it leaves anything out."""
        return bool(self.endpoints or self.states or self.text or self.name or self.span)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """It, as fields of an address."""
        pairs = [("endpoint", one) for one in self.endpoints]
        pairs += [("state", one.value) for one in sorted(self.states)]
        pairs += [("q", self.text), ("name", self.name), ("span", self.span)]
        if self.span == "custom":
            pairs += [("after", self.after), ("before", self.before), ("zone", str(self.zone))]
        return [(name, value) for name, value in pairs if value]

    def address(self, path: str, **more: str | None) -> str:
        """The address of a list with this filter."""
        given = [(name, value) for name, value in more.items() if value]
        query = urlencode([*self.fields, *given])
        return f"{path}?{query}" if query else path

    def runs(self, now_ms: int) -> RunFilter:
        """It, for runs."""
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

    def events(self, now_ms: int) -> EventFilter:
        """It, for events."""
        after, before = self._times(now_ms)
        return EventFilter(self.name or None, after, before, self.text or None)

    def _times(self, now_ms: int) -> tuple[int | None, int | None]:
        if self.span in SPANS:
            return now_ms - SPANS[self.span][1] * 1000, None
        return _local(self.after, self.zone, "after"), _local(self.before, self.zone, "before")


def read(fields: Fields) -> Wanted:
    """The filter that an address or a form tells of.

    Raises:
        Refused: a field makes no sense.
    """
    span = _one(fields, "span")
    if span not in ("", "custom", *SPANS):
        raise Refused(f"span: {span[:64]!r} is none of hour, day, week, custom")
    try:
        states = frozenset(State(value) for value in fields.get("state", ()) if value)
    except ValueError as error:
        raise Refused(f"state: {error}") from None
    custom = span == "custom"
    return Wanted(
        endpoints=tuple(value for value in fields.get("endpoint", ()) if value),
        states=states,
        text=_one(fields, "q").strip()[:_LONGEST_TEXT],
        name=_one(fields, "name").strip()[:_LONGEST_TEXT],
        span=span,
        after=_one(fields, "after") if custom else "",
        before=_one(fields, "before") if custom else "",
        zone=_zone(_one(fields, "zone")) if custom else 0,
        paged=bool(_one(fields, "older") or _one(fields, "newer")),
    )


def part(fields: Fields) -> PageRequest:
    """Which part of a list an address tells of."""
    if newer := _one(fields, "newer"):
        return PageRequest(PAGE_SIZE, newer, newer=True)
    return PageRequest(PAGE_SIZE, _one(fields, "older") or None)


def fields_of(params: Any) -> dict[str, list[str]]:
    """Fields of an address, each with all its values."""
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
        raise Refused(f"{field}: {text[:64]!r} is no time") from None
