"""Contexts and spans of OpenTelemetry: small tools for `_otel_tracing`."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode

from stephttp._wire.http import Request
from stephttp.integrations._otel_names import ERROR_TYPE


class RequestHeaders(Getter[Request]):
    """Reads the headers of a request for a propagator."""

    def get(self, carrier: Request, key: str) -> list[str] | None:
        name = key.lower().encode("latin-1")
        return [value.decode("latin-1") for one, value in carrier.headers if one == name] or None

    def keys(self, carrier: Request) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier.headers]


def is_live(outer: Span) -> bool:
    """Return whether a span is of another instrumentation around the SDK, and not left over."""
    return outer.is_recording() or outer.get_span_context().is_remote


def child_of(parent: SpanContext, span_id: int) -> SpanContext:
    return SpanContext(parent.trace_id, span_id, False, parent.trace_flags, parent.trace_state)


def below(context: Context, span: Span | SpanContext) -> Context:
    if isinstance(span, SpanContext):
        span = NonRecordingSpan(span)
    return trace.set_span_in_context(span, context)


def attach(context: Context) -> Callable[[], None]:
    """Make a context the current one. Return what makes the previous one current again.

    Without a token: where a response is iterated over, its end may be in another context.
    """
    before = contexts.get_current()
    contexts.attach(context)

    def restore() -> None:
        if contexts.get_current() is context:
            contexts.attach(before)

    return restore


def end_span(span: Span, error: BaseException | None, now: int, failed: bool = False) -> None:
    if error is not None:
        span.record_exception(error, timestamp=now)
        span.set_attribute(ERROR_TYPE, type(error).__qualname__)
    if error is not None or failed:
        span.set_status(Status(StatusCode.ERROR, None if error is None else str(error)))
    span.end(now)
