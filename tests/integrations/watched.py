"""Applications that OpenTelemetry and Sentry watch over, as a program, because the patches of both
stay in a process forever.

Each is asked to wait, then for something that does not wait, and the run is followed to its end. It
prints, as JSON, what the two have seen of that.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import sentry_sdk
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.durable import APP, durable
from tests.integrations.django_shop import project
from tests.integrations.shops import NAP, Mark

Build = Callable[[Provider, Mark], Any]

sent: list[Any] = []


class InMemory(Transport):
    def capture_envelope(self, envelope: Envelope) -> None:
        sent.extend(item for item in envelope.items)


spans = InMemorySpanExporter()


def watch() -> None:
    sentry_sdk.init("http://key@localhost/1", transport=InMemory, traces_sample_rate=1.0)
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracing)


def waits() -> str:
    blocking.run("a", int)
    blocking.sleep("nap", NAP)
    return "done"


async def waits_async() -> str:
    await step.run("a", int)
    await step.sleep("nap", NAP)
    return "done"


def fastapi_async(provider: Provider, mark: Mark) -> Any:
    app = FastAPI()
    app.get("/wait")(mark(waits_async))
    app.get("/plain")(lambda: "plain")
    FastAPIInstrumentor.instrument_app(app)
    return provider.asgi(app)


def fastapi_def(provider: Provider, mark: Mark) -> Any:
    app = FastAPI()
    app.get("/wait")(mark(waits))
    app.get("/plain")(lambda: "plain")
    FastAPIInstrumentor.instrument_app(app)
    return provider.asgi(app)


def flask_def(provider: Provider, mark: Mark) -> Any:
    app = flask.Flask("app")
    app.get("/wait")(mark(waits))
    app.get("/plain")(lambda: "plain")
    FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]
    app.wsgi_app = provider.wsgi(app.wsgi_app)  # type: ignore[method-assign]
    return app


def django_app(provider: Provider, mark: Mark, wsgi: bool, on_loop: bool = False) -> Any:
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    if not DjangoInstrumentor().is_instrumented_by_opentelemetry:
        DjangoInstrumentor().instrument()

    def view(request: Any) -> HttpResponse:
        return HttpResponse(waits())

    async def view_async(request: Any) -> HttpResponse:
        return HttpResponse(await waits_async())

    def plain(request: Any) -> HttpResponse:
        return HttpResponse("plain")

    chosen: Any = view_async if on_loop else view
    settings.ROOT_URLCONF = (path("wait", mark(chosen)), path("plain", plain))
    if wsgi:
        return provider.wsgi(get_wsgi_application())
    return provider.asgi(get_asgi_application())


def django_wsgi(provider: Provider, mark: Mark) -> Any:
    return django_app(provider, mark, wsgi=True)


def django_asgi(provider: Provider, mark: Mark) -> Any:
    return django_app(provider, mark, wsgi=False)


def django_asgi_async(provider: Provider, mark: Mark) -> Any:
    return django_app(provider, mark, wsgi=False, on_loop=True)


ON_LOOP: list[Build] = [fastapi_async, fastapi_def, django_asgi, django_asgi_async]
IN_THREADS: list[Build] = [flask_def, django_wsgi]


def in_one_thread(app: Any, thread: ThreadPoolExecutor) -> Any:
    """Serve each request in the same thread, so that it finds what others left there."""

    def whole(environ: Any, start_response: Any) -> list[bytes]:
        chunks = app(environ, start_response)
        try:
            return list(chunks)
        finally:
            getattr(chunks, "close", list)()

    return lambda *args: thread.submit(whole, *args).result()


async def look(build: Build, decorated: bool) -> dict[str, Any]:
    """Return what is seen of one application."""
    sent.clear()
    spans.clear()
    wsgi = build in IN_THREADS
    with ThreadPoolExecutor(1) as thread:

        def made(provider: Provider) -> Any:
            app = build(provider, provider.endpoint() if decorated else lambda handler: handler)
            return in_one_thread(app, thread) if wsgi else app

        async with durable(made, wsgi=wsgi) as world:
            first = await world.client.get("/wait")
            plain = await world.client.get("/plain")
            final = await world.follow(first)
    events = [json.loads(item.get_bytes()) for item in sent if item.type == "event"]
    everything = [json.loads(item.get_bytes()) for item in sent if item.type == "transaction"]
    # The engine is an application in this process as well.
    transactions = [one for one in everything if one["request"]["url"].startswith(APP)]
    servers = [span for span in spans.get_finished_spans() if span.kind is trace.SpanKind.SERVER]
    return {
        "statuses": [first.status_code, plain.status_code, final.status_code],
        "sentry_errors": [event["exception"]["values"][-1]["type"] for event in events],
        "sentry_statuses": [one["contexts"]["trace"]["status"] for one in transactions],
        "sentry_traces": len({one["contexts"]["trace"]["trace_id"] for one in transactions}),
        "spans": len(servers),
        "traces": len({span.context.trace_id for span in servers if span.context}),
        "children": sum(span.parent is not None for span in servers),
        "failed": sum(
            span.status.status_code is trace.StatusCode.ERROR or len(span.events) > 0
            for span in servers
        ),
    }


async def main() -> None:
    watch()
    seen = {}
    for build in [*ON_LOOP, *IN_THREADS]:
        seen[build.__name__] = await look(build, decorated=True)
    for build in IN_THREADS:
        seen[f"{build.__name__} undecorated"] = await look(build, decorated=False)
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    with project(atomic_requests=False):
        asyncio.run(main())
