"""The tracer and the histograms (metrics) of OpenTelemetry."""

from __future__ import annotations

from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, TracerProvider

from stephttp._version import __version__
from stephttp.integrations._otel_ids import start_span
from stephttp.integrations._otel_names import SCOPE


class Instruments:
    """The histograms, and the tracer.

    Args:
        tracer_provider: default: the global one.
        meter_provider: default: the global one.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        self._tracer_provider = tracer_provider
        self._meter = metrics.get_meter(SCOPE, __version__, meter_provider)
        self.run_duration = self._meter.create_histogram(
            "stephttp.run.duration", "s", "From a request to the end of its run."
        )
        self.call_duration = self._meter.create_histogram(
            "stephttp.call.duration", "s", "One call of a handler."
        )
        self.step_duration = self._meter.create_histogram(
            "stephttp.step.duration", "s", "One attempt at a step that runs in this process."
        )

    def start(self, *args: Any, **kwargs: Any) -> Span:
        """Start a span; see `start_span`."""
        provider = self._tracer_provider or trace.get_tracer_provider()
        return start_span(provider.get_tracer(SCOPE, __version__), *args, **kwargs)
