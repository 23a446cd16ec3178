"""Ids of traces and spans that depend on the run alone, so that every process gives the same
ones; `traceparent`.
"""

from __future__ import annotations

import threading
from hashlib import sha256

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Tracer as SDKTracer
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TraceFlags, Tracer, TraceState
from opentelemetry.util.types import Attributes

from stephttp._wire.ids import ulid_number


def trace_id_of(run_id: str) -> int:
    """Return the trace of a run whose caller has none: a ULID has as many bits, 80 random."""
    return ulid_number(run_id)


def span_id_of(run_id: str, *what: object) -> int:
    """Return the span of something in a run; of the run itself without `what`."""
    text = "\n".join(map(str, ("stephttp", run_id, *what)))
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") or 1


def write_traceparent(context: SpanContext) -> str:
    """Write a span's context as W3C Trace Context has it."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 3:02x}"


def read_traceparent(text: str, tracestate: str = "") -> SpanContext | None:
    """Read a `traceparent`; `None` if it is not valid."""
    parts = text.split("-")
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:4])
    except ValueError:
        return None
    state = TraceState.from_header([tracestate]) if tracestate else None
    context = SpanContext(trace_id, span_id, True, TraceFlags(flags), state)
    return context if context.is_valid else None


class StableIds(IdGenerator):
    """Gives the ids that were chosen for the next span of this thread, else random ones."""

    def __init__(self, otherwise: IdGenerator) -> None:
        self._otherwise = otherwise
        self._chosen = threading.local()

    def choose(self, trace_id: int | None, span_id: int | None) -> None:
        """Set the ids of the next span."""
        self._chosen.ids = trace_id, span_id

    def generate_trace_id(self) -> int:
        trace_id: int | None = getattr(self._chosen, "ids", (None, None))[0]
        return trace_id or self._otherwise.generate_trace_id()

    def generate_span_id(self) -> int:
        span_id: int | None = getattr(self._chosen, "ids", (None, None))[1]
        return span_id or self._otherwise.generate_span_id()

    def is_trace_id_random(self) -> bool:
        return self._otherwise.is_trace_id_random()


def start_span(
    tracer: Tracer,
    name: str,
    context: Context,
    trace_id: int,
    span_id: int,
    *,
    kind: SpanKind,
    attributes: Attributes,
    start_ns: int,
    links: list[Link] | None = None,
) -> Span:
    """Start a span with these ids. (Of another implementation than OpenTelemetry's own SDK, with
    ids that it chooses.)

    Args:
        trace_id: where `context` has no parent.
    """
    ids: StableIds | None = None
    if isinstance(tracer, SDKTracer):
        # One tracer for each name: only the SDK uses this one.
        ids = tracer.id_generator if isinstance(tracer.id_generator, StableIds) else None
        if ids is None:
            ids = tracer.id_generator = StableIds(tracer.id_generator)
        ids.choose(trace_id, span_id)
    try:
        return tracer.start_span(
            name, context, kind, attributes, links, start_ns, record_exception=False,
            set_status_on_exception=False,
        )  # fmt: skip
    finally:
        if ids is not None:
            ids.choose(None, None)
