"""Counters and histograms for Prometheus: what the engine counts of runs, steps, calls, events and
commits.

Everything here is counted after the commit that made it true, from the process's start on: a
counter equals what was added to the database since then. The present content of the database, and
of queues, is read when metrics are scraped; see `api.manage.scrape`.

Labels are bounded: the first `MOST_ENDPOINTS` endpoints that are seen have series of their own,
all others share those of `OTHER`. Each is looked up once and kept, since these calls are made for
every run and step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.metrics_core import Metric

from stephttp._wire.opcodes import OpCode
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import CallFailure
from stephttp.engine.model.run import HIDDEN, RunStatus
from stephttp.engine.work.due import DueWork

MOST_ENDPOINTS = 100
OTHER = ("(other)", "(other)")
"""`app` and `endpoint` of what has no series of its own."""

_EXECUTED = frozenset({OpCode.STEP_RUN, OpCode.STEP, OpCode.STEP_FAILED, OpCode.STEP_ERROR})
"""Ops of steps whose code has run; the other ops are waits."""

_STEP_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_CALL_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_LATE_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600)
_COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_LABELS = ("app", "endpoint")


@dataclass(frozen=True, slots=True)
class _Series:
    """The metrics of one endpoint; `steps` by whether they succeeded."""

    labels: tuple[str, str]
    started: Counter
    ended: dict[RunStatus, Counter]
    steps: dict[bool, Histogram]


class Metrics:
    """The instruments of one engine, in a registry of their own. Usable from any thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._series: dict[str, _Series] = {}
        self._others: _Series | None = None
        self._started = Counter(
            "stephttp_runs_started_total", "Runs that were stored.", _LABELS, registry=registry
        )
        self._ended = Counter(
            "stephttp_runs_ended_total",
            "Runs that ended, by how: completed, failed, cancelled.",
            (*_LABELS, "status"),
            registry=registry,
        )
        self._steps = Histogram(
            "stephttp_step_duration_seconds",
            "How long attempts of steps took in the application; outcome: completed, failed.",
            (*_LABELS, "outcome"),
            registry=registry,
            buckets=_STEP_SECONDS,
        )
        self._calls = Histogram(
            "stephttp_reentry_duration_seconds",
            "How long calls of endpoints took; result: ok, counted (an attempt was used up), "
            "transient (not reached, tried again), final (the run failed).",
            (*_LABELS, "result"),
            registry=registry,
            buckets=_CALL_SECONDS,
        )
        self._late = Histogram(
            "stephttp_timer_lateness_seconds",
            "How long after their time due timers were worked on.",
            ("kind",),
            registry=registry,
            buckets=_LATE_SECONDS,
        )
        self._gateway = Histogram(
            "stephttp_gateway_request_duration_seconds",
            "How long HTTP requests that the engine made for steps took; result: ok, failed.",
            ("result",),
            registry=registry,
            buckets=_CALL_SECONDS,
        )
        self._events = Counter(
            "stephttp_events_received_total", "Events that were stored.", registry=registry
        )
        self._spans = Counter(
            "stephttp_spans_received_total",
            "OpenTelemetry spans, by result: stored, rejected.",
            ("result",),
            registry=registry,
        )
        self._batches = Histogram(
            "stephttp_commit_batch_size",
            "Units of work that one transaction of the database committed.",
            registry=registry,
            buckets=_BATCH_SIZES,
        )
        self._commits = Histogram(
            "stephttp_commit_duration_seconds",
            "How long transactions of the database took, from begin to commit.",
            registry=registry,
            buckets=_COMMIT_SECONDS,
        )
        self._failed_commits = Counter(
            "stephttp_commits_failed_total",
            "Transactions of the database that could not be committed.",
            registry=registry,
        )
        ProcessCollector(registry=registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, without the times at which counters were made, which are of no use."""
        for metric in self.registry.collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            if metric.samples or metric.type != "gauge":
                yield metric

    def know(self, endpoints: Iterable[tuple[str, str, str]]) -> None:
        """Give endpoints (function id, origin of the app, name) series of their own."""
        for fn_id, app, slug in endpoints:
            if fn_id not in self._series and len(self._series) < MOST_ENDPOINTS:
                self._series[fn_id] = self._make((app, slug))

    def labels(self, fn_id: str) -> tuple[str, str]:
        """Return the labels `app` and `endpoint` of an endpoint."""
        return self._of(fn_id).labels

    def changed(self, change: Change) -> None:
        """Count a change that was stored, but not `change.others`."""
        run, new = change.run, change.began
        if new is not None:
            self.know([(run.fn_id, new.domain, new.slug)])
        elif not change.ended and not change.steps:
            return
        series = self._of(run.fn_id)
        if new is not None:
            series.started.inc()
        if change.ended:
            series.ended[run.status].inc()
        for step in change.steps:
            # A step that was copied from another run had no attempt in this one.
            if step.op in _EXECUTED and step.seq != HIDDEN and step.attempts:
                series.steps[step.error is None].observe(step.duration_ns / 1e9)

    def called(self, fn_id: str, failure: CallFailure | None, took_ms: int) -> None:
        """Count a call of an endpoint."""
        result = "ok" if failure is None else failure.kind.value
        self._calls.labels(*self.labels(fn_id), result).observe(took_ms / 1000)

    def claimed(self, claim: DueWork) -> None:
        """Count due work that was taken up."""
        for kind, late_ms in claim.late:
            self._late.labels(kind).observe(late_ms / 1000)

    def fetched(self, took_ms: int, *, ok: bool) -> None:
        """Count an HTTP request that was made for a step."""
        self._gateway.labels("ok" if ok else "failed").observe(took_ms / 1000)

    def received(self, events: int) -> None:
        """Count events that were stored."""
        self._events.inc(events)

    def traced(self, stored: int, rejected: int) -> None:
        """Count spans that were received."""
        self._spans.labels("stored").inc(stored)
        self._spans.labels("rejected").inc(rejected)

    def committed(self, units: int, seconds: float, done: bool) -> None:
        """Count a transaction, which was made of so many units of work."""
        if done:
            self._batches.observe(units)
            self._commits.observe(seconds)
        else:
            self._failed_commits.inc()

    def _of(self, fn_id: str) -> _Series:
        series = self._series.get(fn_id)
        if series is None:
            series = self._others = self._others or self._make(OTHER)
        return series

    def _make(self, labels: tuple[str, str]) -> _Series:
        # All of them at once, so that the first failure is seen as a rise from 0.
        return _Series(
            labels,
            self._started.labels(*labels),
            {s: self._ended.labels(*labels, s.value) for s in RunStatus if s.ended},
            {
                True: self._steps.labels(*labels, "completed"),
                False: self._steps.labels(*labels, "failed"),
            },
        )
