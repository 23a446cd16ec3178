"""The figures of the overview, for each endpoint and in total: rates, failures, percentiles
of durations.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from msgspec import Struct

from stephttp.engine.model.run import RunStatus
from stephttp.engine.store.counts import ASYNC, BEGAN, FIRST, WHOLE, bucket_ms

Counts = Counter[tuple[str, int]]
"""How often, by what and bucket; see `store.counts`."""


class Period(Enum):
    """A period that ends now: its length, and that of a point in its charts, in seconds."""

    HOUR = (3600, 60)
    DAY = (86_400, 900)
    WEEK = (604_800, 7200)

    @property
    def seconds(self) -> int:
        """Its length."""
        return self.value[0]

    @property
    def width(self) -> int:
        """The length of one point."""
        return self.value[1]


class Durations(Struct, frozen=True, forbid_unknown_fields=True):
    """Percentiles of how long something took, in milliseconds and accurate to a tenth of the
    value. `None`: nothing was counted."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Figures(Struct, frozen=True, forbid_unknown_fields=True):
    """What happened in a period.

    Attributes:
        began, went_async, completed, failed, cancelled: runs that did so in the period.
        per_minute: runs that began, per minute.
        error_rate: the share of failed runs among those that completed or failed, from 0 to 1;
            `None`: there were no such runs.
        async_share: the share of runs that continued in the background, among those whose first
            phase ended.
        first: how long first phases took, also those of runs that then went async.
        whole: how long whole runs took, including their waits.
    """

    began: int
    went_async: int
    completed: int
    failed: int
    cancelled: int
    per_minute: float
    error_rate: float | None
    async_share: float | None
    first: Durations
    whole: Durations


@dataclass(frozen=True, slots=True)
class EndpointFigures:
    """Figures of one endpoint. `open_runs`: how many of its runs have not ended yet."""

    fn_id: str
    slug: str
    origin: str
    figures: Figures
    open_runs: int


@dataclass(frozen=True, slots=True)
class Point:
    """Figures of a part of the period, for charts.

    Attributes:
        start_ms: when it begins; it lasts `Overview.width_s`.
        first_p50_ms, first_p95_ms, whole_p50_ms, whole_p95_ms: as in `Durations`.
    """

    start_ms: int
    began: int
    completed: int
    failed: int
    cancelled: int
    went_async: int
    first_p50_ms: float | None
    first_p95_ms: float | None
    whole_p50_ms: float | None
    whole_p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """Figures of a period that ends now.

    Attributes:
        since_ms: when the period begins.
        width_s: seconds that each point stands for.
        endpoints: those with runs in the period, or with open runs; the busiest first.
        points: one for each part of the period, also for empty ones, in order.
        open_runs: runs that have not ended yet.
        waiting: those of them that continued in the background.
    """

    period: Period
    since_ms: int
    width_s: int
    total: Figures
    endpoints: tuple[EndpointFigures, ...]
    points: tuple[Point, ...]
    open_runs: int
    waiting: int


def overview(
    connection: sqlite3.Connection, period: Period, now_ms: int, endpoint: str | None = None
) -> Overview:
    """Return the figures of a period.

    Args:
        endpoint: function id of the only endpoint to count; `None`: all.
    """
    width = period.width
    end_s = now_ms // 1000 // width * width + width
    start_s = end_s - period.seconds
    values = {"width": width, "start": start_s, "fn_id": endpoint}
    by_endpoint: dict[str, Counts] = defaultdict(Counter)
    for fn_id, what, bucket, n in connection.execute(_COUNTS.format("fn_id"), values):
        by_endpoint[fn_id][what, bucket] = n
    by_time: dict[int, Counts] = defaultdict(Counter)
    for at_s, what, bucket, n in connection.execute(_COUNTS.format("start_s"), values):
        by_time[at_s][what, bucket] = n
    names = {fn_id: (slug, origin) for fn_id, slug, origin in connection.execute(_ENDPOINTS)}
    open_runs: Counter[str] = Counter()
    waiting = 0
    for fn_id, status, n in connection.execute(_OPEN, {"fn_id": endpoint}):
        open_runs[fn_id] += n
        waiting += n if status == RunStatus.ASYNC else 0
    seconds = max(now_ms / 1000 - start_s, 1)
    total: Counts = Counter()
    for counts in by_endpoint.values():
        total.update(counts)
    endpoints = [
        EndpointFigures(
            fn_id,
            *names.get(fn_id, (fn_id, "")),
            figures(by_endpoint.get(fn_id, Counter()), seconds),
            open_runs[fn_id],
        )
        for fn_id in {**by_endpoint, **open_runs}
    ]
    endpoints.sort(key=lambda one: (-one.figures.began, -one.open_runs, one.slug))
    return Overview(
        period=period,
        since_ms=start_s * 1000,
        width_s=width,
        total=figures(total, seconds),
        endpoints=tuple(endpoints),
        points=tuple(_point(at, by_time.get(at, {})) for at in range(start_s, end_s, width)),
        open_runs=open_runs.total(),
        waiting=waiting,
    )


_COUNTS = """
SELECT {0}, what, bucket, sum(n) FROM counts
WHERE width_s = :width AND start_s >= :start AND (:fn_id IS NULL OR fn_id = :fn_id)
GROUP BY {0}, what, bucket"""

_ENDPOINTS = "SELECT fn_id, slug, domain FROM endpoints"

_OPEN = """
SELECT fn_id, status, count(*) FROM runs INDEXED BY open_runs
WHERE ended_ms IS NULL AND (:fn_id IS NULL OR fn_id = :fn_id)
GROUP BY fn_id, status"""


def figures(counts: Mapping[tuple[str, int], int], seconds: float) -> Figures:
    """Compute figures from the counts of a number of seconds."""

    def number(what: str) -> int:
        return counts.get((what, 0), 0)

    completed, failed = number(RunStatus.COMPLETED), number(RunStatus.FAILED)
    first, whole = _histogram(counts, FIRST), _histogram(counts, WHOLE)
    firsts = sum(first.values())
    ended = completed + failed
    return Figures(
        began=number(BEGAN),
        went_async=number(ASYNC),
        completed=completed,
        failed=failed,
        cancelled=number(RunStatus.CANCELLED),
        per_minute=number(BEGAN) / seconds * 60,
        error_rate=failed / ended if ended else None,
        async_share=number(ASYNC) / firsts if firsts else None,
        first=Durations(*(percentile(first, part) for part in (0.5, 0.95, 0.99))),
        whole=Durations(*(percentile(whole, part) for part in (0.5, 0.95, 0.99))),
    )


def percentile(histogram: Mapping[int, int], part: float) -> float | None:
    """Return the milliseconds that the given share of durations did not exceed."""
    total = sum(histogram.values())
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= part * total:
            return bucket_ms(bucket)
    return None


def _histogram(counts: Mapping[tuple[str, int], int], what: str) -> dict[int, int]:
    return {bucket: n for (name, bucket), n in counts.items() if name == what}


def _point(start_s: int, counts: Mapping[tuple[str, int], int]) -> Point:
    one = figures(counts, 1)
    return Point(
        start_ms=start_s * 1000,
        began=one.began,
        completed=one.completed,
        failed=one.failed,
        cancelled=one.cancelled,
        went_async=one.went_async,
        first_p50_ms=one.first.p50_ms,
        first_p95_ms=one.first.p95_ms,
        whole_p50_ms=one.whole.p50_ms,
        whole_p95_ms=one.whole.p95_ms,
    )
