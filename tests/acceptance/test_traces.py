"""Spans on their way to a real engine: by OpenTelemetry's own exporter, and by our SDK."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from ulid import ULID

import stephttp
from stephttp import step
from stephttp._wire.ids import hash_step_id
from stephttp.integrations.otel import OpenTelemetry, UserlandSpanProcessor
from tests.acceptance.processes import STEPHTTP, Process, eventually

KEY = "signkey-prod-" + "0a" * 32
RUN = "01M81KWY2JTNRXZTV817ZB746V"
HEADERS = {"authorization": f"Bearer {KEY}"}
FIRST = {
    "run_id": RUN,
    "event": {"name": "e", "data": {"domain": "http://app.test", "method": "GET", "path": "/"}},
    "steps": [{"op": "StepRun", "id": hash_step_id("load"), "data": 1}],
}


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_opentelemetrys_exporter(tmp_path: Path, compression: Compression) -> None:
    command = [*STEPHTTP, "start", "--port", "0", "--db", str(tmp_path / "db"), "--event-key"]
    options = ["event-key", "--allow-host", "app.test", "--log-format", "text"]
    with Process([*command, *options], env={"INNGEST_SIGNING_KEY": KEY}) as engine:
        url = engine.wait_for(r'engine ready url="(\S+)"')[1]
        made = httpx2.post(f"{url}/v1/checkpoint", json=FIRST, headers=HEADERS)
        assert made.status_code == 200, made.text
        exporter = OTLPSpanExporter(
            f"{url}/v1/traces/userland", headers=HEADERS, compression=compression
        )
        provider = TracerProvider(resource=Resource({"service.name": "shop"}))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        names = {"sdk.run.id": RUN, "inngest.step.hash": hash_step_id("load")}
        with provider.get_tracer("shop.db").start_as_current_span("query", attributes=names) as one:
            one.record_exception(ValueError("no rows"))
        provider.shutdown()
        answer = httpx2.get(f"{url}/v1/runs/{RUN}/spans", headers=HEADERS)
        (span,) = answer.json()["data"]
    assert (span["name"], span["step_id"]) == ("query", hash_step_id("load"))
    assert (span["details"]["service"], span["details"]["scope"]) == ("shop", "shop.db")
    assert span["details"]["events"][0]["attributes"]["exception.message"] == "no rows"


def test_spans_of_a_handler_come_to_their_step(tmp_path: Path) -> None:
    command = [*STEPHTTP, "start", "--port", "0", "--db", str(tmp_path / "db"), "--event-key"]
    options = ["event-key", "--allow-host", "app.test", "--log-format", "text"]
    with Process([*command, *options], env={"INNGEST_SIGNING_KEY": KEY}) as engine:
        url = engine.wait_for(r'engine ready url="(\S+)"')[1]
        tracers = TracerProvider(shutdown_on_exit=False)
        provider = stephttp.setup(
            "http://app.test",
            base_url=url,
            signing_key=KEY,
            middleware=[OpenTelemetry(tracer_provider=tracers)],
        )
        processor = UserlandSpanProcessor(provider)
        tracers.add_span_processor(processor)

        def load() -> int:
            with tracers.get_tracer("shop.db").start_as_current_span("query"):
                return 1

        async def call() -> str:
            app = FastAPI()

            @app.get("/")
            async def handler() -> int:
                return await step.run("load", load)

            transport = httpx2.ASGITransport(app=provider.asgi(app))
            async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as one:
                answer = await one.get("/")
            assert await provider.aclose()
            run_id: str = answer.headers["x-run-id"]
            return run_id

        run_id = asyncio.run(call())
        assert processor.force_flush()
        answer = httpx2.get(f"{url}/v1/runs/{run_id}/spans", headers=HEADERS)
        (span,) = answer.json()["data"]
        tracers.shutdown()
    assert (span["name"], span["step_id"], span["attempt"]) == ("query", hash_step_id("load"), 0)
    assert span["trace_id"] == ULID.from_str(run_id).hex


APP = """
from datetime import timedelta
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
import stephttp
from stephttp import step
from stephttp.integrations.otel import OpenTelemetry, UserlandSpanProcessor

provider = stephttp.setup("http://app.test", middleware=[OpenTelemetry()])
tracing = TracerProvider()
tracing.add_span_processor(UserlandSpanProcessor(provider))
trace.set_tracer_provider(tracing)
app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


def query(name: str) -> str:
    with tracing.get_tracer("shop.db").start_as_current_span(f"SELECT {name}"):
        return name


@app.get("/rows")
async def rows() -> list[str]:
    first = await step.run("first", query, "first")
    await step.sleep("nap", timedelta(milliseconds=10))
    return [first, await step.run("second", query, "second")]
"""


def test_spans_of_our_sdk_are_found_under_their_steps(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    uvicorn = [sys.executable, "-m", "uvicorn", "shop:app", "--port", "0"]
    with Process([*STEPHTTP, "dev", "--port", "0", "--", *uvicorn], cwd=tmp_path) as dev:
        engine = dev.wait_for(r"engine ready on (http://\S+)")[1]
        app = dev.wait_for(r"Uvicorn running on (http://\S+)")[1]
        answer = httpx2.get(f"{app}/rows", follow_redirects=True, timeout=60)
        assert answer.json() == ["first", "second"]
        (run,) = httpx2.get(f"{engine}/v1/runs").json()["data"]
        detail = f"{engine}/v1/stephttp/runs/{run['run_id']}"

        def spans() -> dict[str, str]:
            told = httpx2.get(detail).json()["data"]["user_spans"]
            # FastAPI makes spans, too, but outside of steps.
            found = {span["name"]: span["step_id"] for span in told if span["step_id"]}
            return found if len(found) == 2 else {}

        assert eventually(spans) == {
            "SELECT first": hash_step_id("first"),
            "SELECT second": hash_step_id("second"),
        }
        with Process([*STEPHTTP, "runs", "show", run["run_id"], "--url", engine]) as shown:
            assert shown.wait() == 0, shown.said()
    names = [line.strip().split("  ")[0] for line in shown.out]
    assert names[names.index("first") + 1] == "SELECT first"


def test_spans_are_sent_with_the_other_key_when_the_first_is_refused(tmp_path: Path) -> None:
    command = [*STEPHTTP, "start", "--port", "0", "--db", str(tmp_path / "db"), "--event-key"]
    options = ["event-key", "--allow-host", "app.test", "--log-format", "text"]
    with Process([*command, *options], env={"INNGEST_SIGNING_KEY": KEY}) as engine:
        provider = stephttp.setup(
            "http://app.test",
            base_url=engine.wait_for(r'engine ready url="(\S+)"')[1],
            signing_key="cd" * 16,
            signing_key_fallback=KEY,
        )
        tracers = TracerProvider(shutdown_on_exit=False)
        processor = UserlandSpanProcessor(provider)
        tracers.add_span_processor(processor)
        url = f"{provider.settings.base_url}/v1"
        assert httpx2.post(f"{url}/checkpoint", json=FIRST, headers=HEADERS).is_success
        with tracers.get_tracer("shop.db").start_as_current_span("query") as span:
            span.set_attribute("sdk.run.id", RUN)
        assert processor.force_flush()
        (found,) = httpx2.get(f"{url}/runs/{RUN}/spans", headers=HEADERS).json()["data"]
        tracers.shutdown()
    assert found["name"] == "query"
