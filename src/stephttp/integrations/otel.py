"""Traces and metrics with OpenTelemetry (install `stephttp[otel]`).

from stephttp.integrations.otel import OpenTelemetry

provider = stephttp.setup("https://api.example.com", middleware=[OpenTelemetry()])

One run is one trace, in whatever process and on whatever day its parts happen:

    run                     from the request to the run's result
      re-entry              each call of the server
        step                what a finished step took; what was asked of the server
          attempt           each execution of its body; spans of yours in it are its children

All ids depend on the run, the step and the attempt alone. The trace is that of the caller, if it
has one. A step that is only remembered makes no span.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span, TracerProvider

from stephttp._run.current import current_call
from stephttp._run.runtime import Runtime
from stephttp._version import __version__
from stephttp.integrations._otel_export import UserlandSpanProcessor
from stephttp.integrations._otel_ids import start_span
from stephttp.integrations._otel_names import SCOPE
from stephttp.integrations._otel_tracing import Tracing
from stephttp.middleware import Middleware, RunContext

__all__ = ["OpenTelemetry", "UserlandSpanProcessor"]


class OpenTelemetry:
    """Makes spans and measures durations; give an instance to `setup(middleware=[...])`.

    Metrics: histograms `stephttp.run.duration`, `stephttp.call.duration` and
    `stephttp.step.duration` (seconds; they count, too), and `stephttp.outbox.depth`, the finished
    runs that are still to be delivered.

    Args:
        tracer_provider: default: the global one.
        meter_provider: default: the global one.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer_provider = tracer_provider
        meter = metrics.get_meter(SCOPE, __version__, meter_provider)
        self.run_duration = meter.create_histogram(
            "stephttp.run.duration", "s", "From a request to the end of its run."
        )
        self.call_duration = meter.create_histogram(
            "stephttp.call.duration", "s", "One call of a handler."
        )
        self.step_duration = meter.create_histogram(
            "stephttp.step.duration", "s", "One attempt at a step that runs in this process."
        )
        self._runtimes: WeakSet[Runtime] = WeakSet()
        meter.create_observable_up_down_counter(
            "stephttp.outbox.depth", [self._depth], "{run}", "Finished runs that are not delivered."
        )

    def __call__(self, ctx: RunContext) -> Middleware:
        """What is told of one call of a handler."""
        call = current_call.get()
        if call is not None:
            self._runtimes.add(call.runtime)
        return Tracing(ctx, self)

    def start(self, *args: Any, **kwargs: Any) -> Span:
        """Start a span; see `start_span`."""
        provider = self._tracer_provider or trace.get_tracer_provider()
        return start_span(provider.get_tracer(SCOPE, __version__), *args, **kwargs)

    def _depth(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(sum(runtime.outbox.depth for runtime in self._runtimes))]
