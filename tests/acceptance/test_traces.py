"""OpenTelemetry's own exporter against a real engine with keys."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from stephttp._core.ids import hash_step_id
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
