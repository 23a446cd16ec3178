"""The spans and measurements of one call of a handler: run, re-entry, step, attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
)

from stephttp._wire.ids import ulid_ms
from stephttp._wire.opcodes import OpCode
from stephttp.integrations._otel_context import (
    RequestHeaders,
    attach,
    below,
    child_of,
    end_span,
    is_live,
)
from stephttp.integrations._otel_ids import (
    read_traceparent,
    span_id_of,
    trace_id_of,
    write_traceparent,
)
from stephttp.integrations._otel_instruments import Instruments
from stephttp.integrations._otel_names import (
    CALL_ATTEMPT,
    CALL_KIND,
    ENDPOINT,
    METHOD,
    OP,
    OUTCOME,
    PATH,
    RUN_ID,
    SCHEME,
    STATUS,
    STEP_ATTEMPT,
    STEP_HASH,
    STEP_ID,
    STEP_INDEX,
    USERLAND,
)
from stephttp.middleware import CallEnd, Middleware, RunContext, StepEnd, StepInfo

_PARENT = "stephttp.parent"
"""Where a run carries the span of its caller,"""
_NAME = "stephttp.endpoint"
"""and the name of its endpoint."""


class Tracing(Middleware):
    """The spans of one call of a handler.

    The run's own span is started in the first call, so that the handler can add to it. If the run
    continues later, that span is never ended: a span of the first call is made of what it has, and
    the process in which the run ends makes the run's span again.
    """

    def __init__(self, ctx: RunContext, telemetry: Instruments) -> None:
        super().__init__(ctx)
        self._telemetry = telemetry
        self._run_span: Span | None = None
        self._call_span: Span | None = None
        self._restore: Callable[[], None] | None = None
        self._attempts: list[tuple[float, str]] = []
        """Seconds and outcome of each; measured when the endpoint's name is known."""
        self._steps: dict[str, tuple[Span, Span | None, Callable[[], None], int]] = {}

    def before_call(self) -> None:
        here = contexts.get_current()
        outer = trace.get_current_span(here)
        self._outer = outer.get_span_context() if is_live(outer) else None
        if self._outer is None or self.ctx.resumed:
            here = propagate.extract(self.ctx.request, here, RequestHeaders())
        self._around = contexts.set_value(USERLAND, {RUN_ID: self.ctx.run_id}, here)
        if self.ctx.resumed:
            self._resume()
        elif self._outer is None:
            self._begin()
        else:
            # It is not known yet whether this request will be a run; what the handler does
            # belongs to the span of the other instrumentation until it is.
            self._run = child_of(self._outer, span_id_of(self.ctx.run_id))
            self._carry(self._outer)
        self._restore = attach(self._around)

    def before_step(self, step: StepInfo) -> None:
        if self._run_span is None and not self.ctx.resumed:
            self._begin()
        now = self.ctx.now_ns()
        parent = self._above_step()
        about = {
            RUN_ID: self.ctx.run_id,
            STEP_ID: step.id,
            STEP_INDEX: step.index,
            STEP_HASH: step.hash,
        }
        span = self._start(
            step.id,
            parent,
            "step",
            step.hash,
            start_ns=now,
            attributes={**about, OP: step.op.value},
        )
        inner, attempt = below(parent, span), None
        if step.op is OpCode.STEP_RUN:
            about[STEP_ATTEMPT] = step.attempt
            attempt = self._start(
                f"{step.id} attempt", inner, "step", step.hash, step.attempt, start_ns=now,
                attributes=about,
            )  # fmt: skip
            inner = below(inner, attempt)
        restore = attach(contexts.set_value(USERLAND, about, inner))
        self._steps[step.hash] = span, attempt, restore, now

    def after_step(self, step: StepInfo, end: StepEnd) -> None:
        if step.hash not in self._steps:  # another middleware has failed before
            return
        span, attempt, restore, began = self._steps.pop(step.hash)
        restore()
        now = self.ctx.now_ns()
        if attempt is not None:
            end_span(attempt, end.error, now)
            outcome = "retried" if end.retried else "failed" if end.error else "ok"
            self._attempts.append(((now - began) / 1e9, outcome))
        if not end.retried:
            end_span(span, end.error, now)

    def after_execution(self) -> None:
        if self.ctx.fn_id and not self.ctx.resumed:
            self.ctx.carried[_NAME] = self.ctx.fn_id  # the route is known in the first call only

    def after_call(self, end: CallEnd) -> None:
        if self._restore is None:  # another middleware has failed before
            return
        self._restore()
        now, error = self.ctx.now_ns(), end.error
        failed = error is not None or (end.response is not None and end.response.status >= 500)
        outcome = "suspended" if self.ctx.suspended else "failed" if failed else "completed"
        self._measure(now, outcome, end.run_ended)
        facts: dict[str, Any] = {} if end.response is None else {STATUS: end.response.status}
        if self._call_span is not None:
            self._call_span.set_attributes(facts)
            end_span(self._call_span, error, now, failed)
        if self.ctx.suspended or not end.run_ended:
            if self._run_span is not None and self.ctx.suspended:
                self._leave(self._run_span, facts, now)
            elif self._run_span is not None:
                end_span(self._run_span, error, now, failed=True)
            return
        span = self._run_span or (self._finished_run() if self.ctx.resumed else None)
        if span is not None:
            span.update_name(self._name())
            span.set_attributes({**facts, **self._endpoint()})
            end_span(span, error, now, failed)

    def _measure(self, now: int, outcome: str, run_ended: bool) -> None:
        if not self.ctx.used:
            return
        telemetry, about = self._telemetry, self._endpoint()
        for seconds, how in self._attempts:
            telemetry.step_duration.record(seconds, {**about, OUTCOME: how})
        kind = "reentry" if self.ctx.resumed else "request"
        telemetry.call_duration.record(
            (now - self.ctx.started_ns) / 1e9, {**about, CALL_KIND: kind, OUTCOME: outcome}
        )
        if run_ended:
            seconds = max(0, now - _began(self.ctx.run_id)) / 1e9
            telemetry.run_duration.record(seconds, {**about, OUTCOME: outcome})

    def _begin(self) -> None:
        """Start the run's span, and keep it for later calls."""
        parent = trace.get_current_span(self._around).get_span_context()
        self._run_span = span = self._start(
            self._name(), self._around, kind=self._kind(), start_ns=self.ctx.started_ns,
            attributes=self._about_request(),
        )  # fmt: skip
        self._run = span.get_span_context()
        self._carry(parent)
        if self._outer is None:
            self._around = below(self._around, span)

    def _carry(self, parent: SpanContext) -> None:
        carried = self.ctx.carried
        if self._run.is_valid:
            carried["traceparent"] = write_traceparent(self._run)
            if self._run.trace_state:
                carried["tracestate"] = self._run.trace_state.to_header()
        if parent.is_valid:
            carried[_PARENT] = write_traceparent(parent)

    def _above_step(self) -> Context:
        """Return the parent of a step: a span that the handler has made, or that of the call."""
        here = trace.get_current_span()
        inside = self._outer is None or self.ctx.resumed
        same = here.get_span_context().trace_id == self._run.trace_id
        if inside and here.is_recording() and same:
            return contexts.get_current()
        return below(self._around, self._call_span or self._run_span or self._run)

    def _resume(self) -> None:
        """Start the span of a re-entry, below that of its run."""
        run_id, carried = self.ctx.run_id, self.ctx.carried
        self._run = read_traceparent(
            carried.get("traceparent", ""), carried.get("tracestate", "")
        ) or SpanContext(
            trace_id_of(run_id), span_id_of(run_id), True, TraceFlags(TraceFlags.SAMPLED)
        )
        other = self._outer is not None and self._outer.trace_id != self._run.trace_id
        self._call_span = self._start(
            "re-entry",
            below(self._around, self._run),
            "call",
            self.ctx.request_id,
            kind=self._kind(),
            start_ns=self.ctx.started_ns,
            attributes={**self._about_request(), CALL_ATTEMPT: self.ctx.attempt},
            links=[Link(self._outer)] if other and self._outer is not None else None,
        )
        self._around = below(self._around, self._call_span)

    def _leave(self, run_span: Span, facts: dict[str, Any], now: int) -> None:
        """Make the span of the first call, which is over, of the run's, which is not."""
        span = self._start(
            "request",
            below(contexts.Context(), run_span),
            "call",
            "first",
            kind=self._kind(),
            start_ns=self.ctx.started_ns,
            attributes={**dict(getattr(run_span, "attributes", None) or {}), **facts},
        )
        for event in getattr(run_span, "events", ()):
            span.add_event(event.name, event.attributes, event.timestamp)
        end_span(span, None, now)

    def _finished_run(self) -> Span | None:
        """Make the run's span, in the process in which the run ends."""
        if not self._run.trace_flags.sampled:
            return None
        carried = self.ctx.carried
        parent = read_traceparent(carried.get(_PARENT, ""), carried.get("tracestate", ""))
        around = contexts.Context() if parent is None else below(contexts.Context(), parent)
        return self._start(
            self._name(), around, start_ns=_began(self.ctx.run_id),
            attributes=self._about_request(),
        )  # fmt: skip

    def _start(self, name: str, context: Context, *what: object, **options: Any) -> Span:
        run_id = self.ctx.run_id
        return self._telemetry.start(
            name, context, trace_id_of(run_id), span_id_of(run_id, *what),
            **{"kind": SpanKind.INTERNAL, **options},
        )  # fmt: skip

    def _kind(self) -> SpanKind:
        return SpanKind.SERVER if self._outer is None else SpanKind.INTERNAL

    def _name(self) -> str:
        return self._endpoint().get(ENDPOINT, self.ctx.request.method)

    def _endpoint(self) -> dict[str, str]:
        name = self.ctx.carried.get(_NAME) or self.ctx.fn_id
        return {ENDPOINT: name} if name else {}

    def _about_request(self) -> dict[str, Any]:
        request = self.ctx.request
        return {
            RUN_ID: self.ctx.run_id,
            METHOD: request.method,
            PATH: request.path,
            SCHEME: request.scheme,
        }


def _began(run_id: str) -> int:
    """Return when a run started, nanoseconds since the epoch."""
    return ulid_ms(run_id) * 1_000_000
