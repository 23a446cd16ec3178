"""Traces and metrics, as exporters of OpenTelemetry get them."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import baggage, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from ulid import ULID

import stephttp
from stephttp import step
from stephttp._wire.ids import hash_step_id
from stephttp.integrations.otel import OpenTelemetry, UserlandSpanProcessor
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.durable import durable

NAP = timedelta(minutes=1)
ROUTE = "GET /{what}"
STYLES = pytest.mark.parametrize("style", ["async", "blocking"])


class Process:
    """The telemetry of one process of an application, and what it exports."""

    def __init__(self, exporter: InMemorySpanExporter | None = None, **options: Any) -> None:
        self.exporter = exporter or InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False, **options)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.telemetry = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters)
        self.mine = self.tracers.get_tracer("shop")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def measured(self) -> dict[str, list[tuple[dict[str, Any], int | float]]]:
        """Count (of histograms) or value by instrument."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: [
                (dict(point.attributes or {}), getattr(point, "count", getattr(point, "value", 0)))
                for point in metric.data.data_points
            ]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def process() -> Process:
    return Process()


def application(handler: Callable[..., Any]) -> Callable[[Provider], Any]:
    app = FastAPI()
    app.get("/{what}", response_model=None)(handler)
    return lambda provider: provider.asgi(app)


Tree = list[tuple[str, Any]]


def tree(spans: Sequence[ReadableSpan]) -> Tree:
    """Names, and what is below them. All spans must hang together, and none be there twice."""
    by_id = {span.context.span_id: span for span in spans}
    assert len(by_id) == len(spans), "no span is exported twice"
    (root,) = {parent_of(span) for span in spans} - by_id.keys()

    def below(parent: int | None) -> Tree:
        found = [span for span in spans if parent_of(span) == parent]
        return sorted((span.name, below(span.context.span_id)) for span in found)

    return below(root)


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def named(spans: Sequence[ReadableSpan], name: str) -> ReadableSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


@STYLES
async def test_one_trace_across_application_engine_and_a_restart(
    style: str, tmp_path: Path
) -> None:
    exporter = InMemorySpanExporter()
    process = Process(exporter)
    fails = [True]

    def work(what: str) -> str:
        with process.mine.start_as_current_span(what):
            return "done"

    def flaky() -> str:
        if fails:
            fails.clear()
            raise ValueError("no luck")
        return work("ask the bank")

    async def on_loop(what: str) -> str:
        stephttp.configure(id="pay", retries=1)
        await step.run("work", work, "query the database")
        await step.sleep("nap", NAP)
        return await step.run("flaky", flaky)

    def in_thread(what: str) -> str:
        stephttp.configure(id="pay", retries=1)
        sync_step.run("work", work, "query the database")
        sync_step.sleep("nap", NAP)
        return sync_step.run("flaky", flaky)

    build = application(on_loop if style == "async" else in_thread)
    async with durable(build, path=tmp_path / "db", middleware=[process.telemetry]) as world:
        response = await world.client.get("/pay")
        assert await world.provider.wait()
        await world.restart_engine()
        process = Process(exporter)
        restarted = world.provide(middleware=[process.telemetry])
        world.to_app.app = build(restarted)
        final = await world.follow(response)
        assert (final.status_code, final.json()) == (200, "done")
        assert await restarted.aclose()
    spans = exporter.get_finished_spans()
    run_id = response.headers["x-run-id"]
    assert {span.context.trace_id for span in spans} == {int(ULID.from_str(run_id))}
    assert tree(spans) == [
        ("pay", [
            ("nap", []),
            ("re-entry", []),
            ("re-entry", [
                ("flaky", [
                    ("flaky attempt", []),
                    ("flaky attempt", [("ask the bank", [])]),
                ]),
            ]),
            ("request", []),
            ("work", [("work attempt", [("query the database", [])])]),
        ]),
    ]  # fmt: skip
    for span in spans:
        if span.instrumentation_scope and span.instrumentation_scope.name == "stephttp":
            assert span.attributes is not None
            assert span.attributes["sdk.run.id"] == run_id
    run, attempts = named(spans, "pay"), [one for one in spans if one.name == "flaky attempt"]
    assert run.attributes is not None
    assert run.attributes["http.response.status_code"] == 200
    assert run.end_time is not None
    assert run.start_time is not None
    assert run.end_time - run.start_time > NAP.total_seconds() * 1e9
    numbered = [one.attributes and one.attributes["inngest.step.attempt"] for one in attempts]
    assert numbered == [0, 1]
    assert [one.status.status_code for one in attempts] == [StatusCode.ERROR, StatusCode.UNSET]
    assert attempts[0].events[0].name == "exception"
    step_of = named(spans, "work").attributes
    assert step_of is not None
    assert step_of["inngest.step.hash"] == hash_step_id("work")


async def test_ids_depend_on_the_run_alone(process: Process) -> None:
    other = Process()

    async def handler(what: str) -> None:
        await step.run("a", int)

    async with durable(
        application(handler), middleware=[process.telemetry, other.telemetry]
    ) as world:
        await world.client.get("/a")
    assert len(process.spans) == 3
    assert {one.context.span_id for one in process.spans} == {
        one.context.span_id for one in other.spans
    }


async def test_a_request_without_steps_is_one_span(process: Process) -> None:
    async def handler(what: str) -> None:
        if what == "bug":
            raise ValueError("bug")

    async with durable(application(handler), middleware=[process.telemetry]) as world:
        await world.client.get("/x")
        with pytest.raises(ValueError, match="bug"):
            await world.client.get("/bug")
    fine, failed = process.spans
    assert (fine.name, fine.kind, fine.status.status_code) == (
        ROUTE, SpanKind.SERVER, StatusCode.UNSET
    )  # fmt: skip
    assert fine.attributes == {
        "sdk.run.id": fine.attributes and fine.attributes["sdk.run.id"],
        "http.request.method": "GET",
        "url.path": "/x",
        "url.scheme": "http",
        "stephttp.endpoint": ROUTE,
        "http.response.status_code": 200,
    }
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "ValueError"
    names = [name for name in process.measured() if name != "stephttp.outbox.depth"]
    assert names == [], "what is no run is not measured"


async def test_the_trace_and_the_baggage_of_the_caller_go_on_after_waits(process: Process) -> None:
    seen: list[Any] = []

    async def handler(what: str) -> None:
        seen.append(baggage.get_baggage("tenant"))
        await step.sleep("nap", NAP)
        seen.append(baggage.get_baggage("tenant"))

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": parent, "tracestate": "shop=1", "baggage": "tenant=acme"}
    async with durable(application(handler), middleware=[process.telemetry]) as world:
        await world.follow(await world.client.get("/a", headers=headers))
    assert seen == ["acme"] * 3
    assert {f"{one.context.trace_id:032x}" for one in process.spans} == {parent.split("-")[1]}
    assert {one.context.trace_state.get("shop") for one in process.spans} == {"1"}
    run = named(process.spans, ROUTE)
    assert run.parent is not None
    assert f"{run.parent.span_id:016x}" == parent.split("-")[2]
    assert tree(process.spans) == [(ROUTE, [("nap", []), ("re-entry", []), ("request", [])])]


@pytest.mark.parametrize("steps", [True, False])
async def test_inside_another_instrumentation_only_runs_make_spans(
    process: Process, steps: bool
) -> None:
    tenants: list[Any] = []

    async def handler(what: str) -> None:
        with process.mine.start_as_current_span("mine"):
            if steps:
                await step.run("a", int)
                await step.sleep("nap", NAP)
                tenants.append(baggage.get_baggage("tenant"))

    def build(provider: Provider) -> Any:
        app = application(handler)(provider)

        async def instrumented(*args: Any) -> None:
            with process.mine.start_as_current_span("server"):
                await app(*args)

        return instrumented

    async with durable(build, middleware=[process.telemetry]) as world:
        response = await world.client.get("/a", headers={"baggage": "tenant=acme"})
        if steps:
            await world.follow(response)
            assert tenants == ["acme"], "the other instrumentation saw no header after the wait"
    spans = process.spans
    if not steps:
        assert tree(spans) == [("server", [("mine", [])])]
        return
    first, later = [one for one in spans if one.name == "server"]
    reentry = named(spans, "re-entry")
    assert reentry.links[0].context == later.context
    assert tree([one for one in spans if one is not later]) == [
        ("server", [
            (ROUTE, [
                ("a", [("a attempt", [])]),
                ("nap", []),
                ("re-entry", [("mine", [])]),
                ("request", []),
            ]),
            ("mine", []),
        ]),
    ]  # fmt: skip
    assert first.context.trace_id == reentry.context.trace_id


async def test_a_trace_that_is_not_sampled_stays_so(process: Process) -> None:
    process = Process(sampler=ParentBased(ALWAYS_OFF))

    async def handler(what: str) -> None:
        await step.sleep("nap", NAP)
        await step.run("a", int)

    async with durable(application(handler), middleware=[process.telemetry]) as world:
        await world.follow(await world.client.get("/a"))
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
        await world.follow(await world.client.get("/a", headers=headers))
    assert process.spans == ()


async def test_what_a_handler_adds_to_its_span_is_kept(process: Process) -> None:
    async def handler(what: str) -> None:
        trace.get_current_span().set_attribute("shop.customer", 7)
        trace.get_current_span().add_event("looked up")
        await step.sleep("nap", NAP)

    async with durable(application(handler), middleware=[process.telemetry]) as world:
        await world.follow(await world.client.get("/a"))
    for name in ("request", "re-entry"):
        span = named(process.spans, name)
        assert span.attributes is not None
        assert span.attributes["shop.customer"] == 7
        assert [event.name for event in span.events] == ["looked up"]


async def test_side_by_side_steps_have_their_own_spans(process: Process) -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(0)
        with process.mine.start_as_current_span(f"mine {n}"):
            await asyncio.sleep(0)
        return n

    async def handler(what: str) -> list[int]:
        numbers = await asyncio.gather(*(step.run("n", work, n) for n in range(3)))
        assert trace.get_current_span().get_span_context().span_id == run_of(process)
        return numbers

    def run_of(process: Process) -> int:
        return parent_of(next(one for one in process.spans if one.name == "n")) or 0

    async with durable(application(handler), middleware=[process.telemetry]) as world:
        assert (await world.client.get("/a")).json() == [0, 1, 2]
    assert tree(process.spans) == [
        (ROUTE, [("n", [("n attempt", [(f"mine {n}", [])])]) for n in range(3)])
    ]


async def test_durations_counts_and_the_depth_of_the_outbox(process: Process) -> None:
    fails = [True, False]

    def flaky() -> None:
        if fails.pop(0):
            raise ValueError("no luck")

    async def handler(what: str) -> None:
        stephttp.configure(id="pay", retries=1)
        await step.run("flaky", flaky)

    async with durable(application(handler), middleware=[process.telemetry]) as world:
        await world.follow(await world.client.get("/a"))
        world.to_engine.down = True
        fails.append(False)
        await world.client.get("/a")
        measured = process.measured()
        world.to_engine.down = False
    pay, outcome, kind = {"stephttp.endpoint": "pay"}, "stephttp.outcome", "stephttp.call.kind"
    assert measured["stephttp.step.duration"] == [
        ({**pay, outcome: "retried"}, 1), ({**pay, outcome: "ok"}, 2),
    ]  # fmt: skip
    assert measured["stephttp.call.duration"] == [
        ({**pay, kind: "request", outcome: "suspended"}, 1),
        ({**pay, kind: "reentry", outcome: "completed"}, 1),
        ({**pay, kind: "request", outcome: "completed"}, 1),
    ]
    assert measured["stephttp.run.duration"] == [({**pay, outcome: "completed"}, 2)]
    assert measured["stephttp.outbox.depth"] == [({}, 1)]


async def test_spans_of_mine_go_to_the_engine_with_run_and_step(process: Process) -> None:
    sent = InMemorySpanExporter()

    def work() -> None:
        with process.mine.start_as_current_span("in the step"):
            pass

    async def handler(what: str) -> None:
        with process.mine.start_as_current_span("in the handler"):
            await step.run("a", work)

    build = application(handler)
    async with durable(build, middleware=[process.telemetry]) as world:
        processor = UserlandSpanProcessor(world.provider, sent)
        process.tracers.add_span_processor(processor)
        response = await world.client.get("/a")
        with process.mine.start_as_current_span("outside"):
            pass
        assert processor.force_flush()
    processor.shutdown()
    spans = {one.name: dict(one.attributes or {}) for one in sent.get_finished_spans()}
    run = {"sdk.run.id": response.headers["x-run-id"]}
    assert spans == {
        "in the handler": run,
        "in the step": {
            **run,
            "inngest.step.id": "a",
            "inngest.step.index": 0,
            "inngest.step.hash": hash_step_id("a"),
            "inngest.step.attempt": 0,
        },
    }


async def test_under_wsgi_too(process: Process) -> None:
    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with process.mine.start_as_current_span("mine"):
            sync_step.run("a", int)
        sync_step.sleep("nap", NAP)
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"done"]

    async with durable(
        lambda provider: provider.wsgi(wsgi), wsgi=True, middleware=[process.telemetry]
    ) as world:
        assert (await world.follow(await world.client.get("/a"))).text == "done"
    assert tree(process.spans) == [
        ("GET", [
            ("mine", [("a", [("a attempt", [])])]),
            ("nap", []),
            ("re-entry", [("mine", [])]),
            ("request", []),
        ]),
    ]  # fmt: skip
