"""`UserlandSpanProcessor`: sends your own spans to the engine, which shows them under their
steps.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from stephttp.integrations._otel_names import RUN_ID, SCOPE, USERLAND
from stephttp.provider import Provider

PATH = "/v1/traces/userland"


class UserlandSpanProcessor(SpanProcessor):
    """Sends the spans that your code makes in runs to the engine (or Inngest server) of `provider`.

    Add it to the tracer provider, beside what you export to otherwise:
    `tracer_provider.add_span_processor(UserlandSpanProcessor(provider))`. It needs the
    `OpenTelemetry` middleware, whose own spans it leaves out: the engine knows runs and steps.

    Args:
        provider: whose engine.
        exporter: by default one that speaks OTLP over HTTP with the engine.
    """

    def __init__(self, provider: Provider, exporter: SpanExporter | None = None) -> None:
        self._batches = BatchSpanProcessor(exporter or _exporter(provider))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note which run and step a span belongs to."""
        if _ours(span):
            return
        around = contexts.get_current() if parent_context is None else parent_context
        about: Any = contexts.get_value(USERLAND, around)
        if about is not None:
            span.set_attributes(about)

    def on_end(self, span: ReadableSpan) -> None:
        """Send a span of a run."""
        if not _ours(span) and span.attributes is not None and RUN_ID in span.attributes:
            self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what is left."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what there is now; whether that was possible in time."""
        return self._batches.force_flush(timeout_millis)


def _ours(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name == SCOPE


def _exporter(provider: Provider) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from requests import PreparedRequest, Response, Session

    keys = provider.runtime.checkpoints.keys

    def authorize(request: PreparedRequest) -> PreparedRequest:
        if keys.bearer is not None:
            request.headers["authorization"] = f"Bearer {keys.bearer}"
        return request

    def with_other_key(answer: Response, **how: Any) -> Response:
        # As for all calls of the API: a 401 means that the other key may be the right one.
        sent = str(answer.request.headers.get("authorization", ""))
        if answer.status_code != 401 or not keys.reject(sent.removeprefix("Bearer ")):
            return answer
        answer.close()
        again: Response = answer.connection.send(authorize(answer.request.copy()), **how)
        again.history.append(answer)
        return again

    session = Session()
    session.auth = authorize
    session.hooks["response"].append(with_other_key)
    settings = provider.settings
    return OTLPSpanExporter(settings.base_url + PATH, headers=settings.api_headers, session=session)
