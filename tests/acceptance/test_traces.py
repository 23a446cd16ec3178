"""OpenTelemetry's own exporter against a real engine with keys."""

from __future__ import annotations

import asyncio
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
from stephttp._core.ids import hash_step_id
from stephttp.integrations.otel import OpenTelemetry, UserlandSpanProcessor
from tests.acceptance.processes import STEPHTTP, Process

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
