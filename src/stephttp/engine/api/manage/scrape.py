"""`GET /metrics`: what Prometheus reads, with gauges of what is there now.

`engine.metrics` has counted what happened since the process began. Gauges of what there is now are
read here, for each request.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from stephttp._wire.signatures import bearer_of
from stephttp.engine.live.slots import TaskKey, key_of
from stephttp.engine.metrics import MOST_ENDPOINTS, OTHER, Metrics
from stephttp.engine.model.settings import VERSION
from stephttp.engine.model.timer import TimerKind
from stephttp.engine.store.database import wal_size
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.web.guard import Handler, secured
from stephttp.engine.web.requests import engine_of

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

OPENMETRICS = "application/openmetrics-text"

_Samples = Iterable[tuple[tuple[str, ...], float]]


def scraping(handler: Handler) -> Handler:
    """Let only requests through that may read metrics: by the token for it, or by a signing key."""

    async def check(request: Request) -> Response:
        settings = engine_of(request).settings
        token = bearer_of(request.headers.get("authorization", ""))
        expected = settings.metrics_token
        has_token = token and expected and compare_digest(token.encode(), expected.encode())
        if settings.open_metrics or has_token:
            return await handler(request)
        return await secured(handler)(request)

    return check


async def metrics(request: Request) -> Response:
    """Return all metrics."""
    engine = engine_of(request)
    unit = partial(
        _stored,
        now_ms=engine.clock.now_ms(),
        busy=engine.executor.busy,
        metrics=engine.metrics,
    )
    families = [*_present(engine), *await engine.store.browse(unit)]
    wanted = OPENMETRICS if OPENMETRICS in request.headers.get("accept", "") else ""
    encode, content_type = choose_encoder(wanted)
    # It takes some milliseconds when there are many endpoints.
    body = await asyncio.to_thread(encode, _All(engine.metrics, families))
    return Response(body, headers={"content-type": content_type})


class _All(Collector):
    def __init__(self, metrics: Metrics, families: list[Metric]) -> None:
        self._metrics = metrics
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics.collect()
        yield from self._families


def _gauge(name: str, about: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    family = GaugeMetricFamily(f"stephttp_{name}", about, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _present(engine: Engine) -> list[Metric]:
    """Return what the process holds."""
    under_way, settings = engine.executor.under_way, engine.settings
    slots = {"reentry": settings.concurrency, "gateway": settings.gateway_concurrency}
    return [
        _gauge("build_info", "Always 1; which version this is.", ("version",), [((VERSION,), 1)]),
        _gauge(
            "calls_in_progress",
            "Calls of endpoints (reentry) and HTTP requests for steps (gateway) being made.",
            ("kind",),
            [((kind,), count) for kind, count in under_way.items()],
        ),
        _gauge(
            "call_slots",
            "How many of them may be made at once.",
            ("kind",),
            [((kind,), count) for kind, count in slots.items()],
        ),
        _gauge(
            "store_queue_length",
            "Units of work that wait for the thread that writes to, or reads from, the database.",
            ("thread",),
            [((kind,), count) for kind, count in engine.store.queued.items()],
        ),
        _gauge(
            "output_waiters", "Requests that wait for a run's output.", (),
            [((), len(engine.waiters))],
        ),
        _gauge(
            "database_wal_size_bytes", "Size of the write-ahead log's file.", (),
            [((), wal_size(engine.store.path))],
        ),
    ]  # fmt: skip


def _stored(
    connection: sqlite3.Connection, now_ms: int, busy: Collection[TaskKey], metrics: Metrics
) -> list[Metric]:
    """Return what the database holds. Timers of what is `busy` do not wait."""

    def number(pragma: str) -> int:
        value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
        return value

    runs: dict[tuple[str, ...], float] = {}
    for fn_id, status, count in connection.execute(QUERIES["open_run_counts"]):
        labels = (*metrics.labels(fn_id), status)
        runs[labels] = runs.get(labels, 0) + count
    due: Counter[str] = Counter()
    oldest_ms = now_ms
    for kind, due_ms in _waiting(connection, now_ms, busy):
        due[kind] += 1
        oldest_ms = min(oldest_ms, due_ms)
    waits: list[tuple[str, int]] = connection.execute(QUERIES["wait_counts"]).fetchall()
    undelivered, catching_up, backlog = connection.execute(QUERIES["undelivered"]).fetchone()
    page_size = number("page_size")
    return [
        _gauge(
            "open_runs",
            "Runs that have not ended: sync (the first request is being answered), async.",
            ("app", "endpoint", "status"),
            runs.items(),
        ),
        _gauge(
            "due_timers", "Timers that are past their time and not worked on.", ("kind",),
            _by_kind(due.items(), TimerKind),
        ),
        _gauge(
            "oldest_due_timer_seconds", "How long the oldest of them is past its time.", (),
            [((), (now_ms - oldest_ms) / 1000)],
        ),
        _gauge(
            "timers_aside", "Due timers whose origin has as many calls as it may have.",
            ("origin",), _aside(connection, busy).items(),
        ),
        _gauge(
            "timers_at_gates", "Due timers that wait for a limit of their function or endpoint.",
            ("limit",),
            _by_kind(connection.execute(QUERIES["count_at_gates"]), ("concurrency", "throttle")),
        ),
        _gauge(
            "waits", "Steps that wait for an event, a signal or another run.", ("kind",),
            _by_kind(waits, (TimerKind.EVENT, TimerKind.SIGNAL, TimerKind.INVOKE)),
        ),
        _gauge(
            "undelivered_events", "Events for which many waits are being asked, or will be.", (),
            [((), undelivered)],
        ),
        _gauge(
            "waits_looking_back", "Waits that look through many earlier events, or will.", (),
            [((), catching_up)],
        ),
        _gauge(
            "backlog_events", "Events whose functions are being started, or will be.", (),
            [((), backlog)],
        ),
        _gauge(
            "database_size_bytes", "Size of the database, with what is not in its file yet.", (),
            [((), number("page_count") * page_size)],
        ),
        _gauge(
            "database_free_bytes", "The part of it that holds nothing.", (),
            [((), number("freelist_count") * page_size)],
        ),
    ]  # fmt: skip


def _waiting(
    connection: sqlite3.Connection, now_ms: int, busy: Collection[TaskKey]
) -> Iterator[tuple[str, int]]:
    rows = connection.execute(QUERIES["due_timers"], {"now_ms": now_ms})
    for run_id, step_id, kind, due_ms in rows:
        if key_of(run_id, step_id, kind) not in busy:
            yield kind, due_ms


def _aside(
    connection: sqlite3.Connection, busy: Collection[TaskKey]
) -> Mapping[tuple[str, ...], float]:
    """Count the timers that are set aside, by origin; those of all but some origins together."""
    counts: Counter[tuple[str, ...]] = Counter()
    for run_id, step_id, kind, origin in connection.execute(QUERIES["timers_aside"]):
        if key_of(run_id, step_id, kind) not in busy:
            counts[(origin,)] += 1
    most = counts.most_common(MOST_ENDPOINTS)
    others = counts.total() - sum(count for _, count in most)
    return dict(most) | ({(OTHER[0],): others} if others else {})


def _by_kind(counts: Iterable[tuple[str, int]], kinds: Iterable[Any]) -> _Samples:
    """Return the counts of all kinds, with 0 for those that do not occur."""
    return (((kind,), value) for kind, value in ({str(k): 0 for k in kinds} | dict(counts)).items())
