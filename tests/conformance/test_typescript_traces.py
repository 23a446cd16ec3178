"""Spans that the real TypeScript SDK sends, and where the engine puts them."""

from __future__ import annotations

from pathlib import Path

import httpx2

from stephttp._core.ids import hash_step_id
from tests.acceptance.processes import STEPHTTP, Process, eventually

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_spans_are_found_under_their_step(typescript_app: Path) -> None:
    command = [*STEPHTTP, "dev", "--port", "0", "--", "node", str(typescript_app / "traces.mjs")]
    with Process(command) as dev:
        engine = dev.wait_for(r"engine ready on (http://\S+)")[1]
        app = dev.wait_for(r"listening on (http://\S+)")[1]
        # The SDK makes spans only of requests that are part of a trace.
        answer = httpx2.get(app, headers={"traceparent": TRACEPARENT}, timeout=60)
        assert (answer.status_code, answer.json()) == (200, {"rows": 3}), answer.text
        runs = f"{engine}/v1/runs"
        (run,) = eventually(lambda: httpx2.get(runs).json()["data"])
        spans = eventually(lambda: httpx2.get(f"{runs}/{run['run_id']}/spans").json()["data"])
    found = {span["name"]: span for span in spans}
    query = found["query"]
    assert query["step_id"] == hash_step_id("load")
    assert query["attempt"] == 0
    assert query["details"]["scope"] == "shop.db"
    assert query["details"]["attributes"]["rows"] == 3
