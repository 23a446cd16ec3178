"""Spans that the real TypeScript SDK sends, and where the engine puts them."""

from __future__ import annotations

from pathlib import Path

import httpx2
from ulid import ULID

from stephttp._wire.ids import hash_step_id
from tests.acceptance.processes import STEPHTTP, Process, eventually


def test_spans_are_found_under_their_step(typescript_app: Path) -> None:
    command = [*STEPHTTP, "dev", "--port", "0", "--", "node", str(typescript_app / "traces.mjs")]
    with Process(command) as dev:
        engine = dev.wait_for(r"engine ready on (http://\S+)")[1]
        app = dev.wait_for(r"listening on (http://\S+)")[1]
        answer = httpx2.get(app, timeout=60, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        runs = f"{engine}/v1/runs"
        (run,) = eventually(lambda: httpx2.get(runs).json()["data"])
        spans = eventually(lambda: httpx2.get(f"{runs}/{run['run_id']}/spans").json()["data"])
    found = {span["name"]: span for span in spans}
    query = found["query"]
    assert query["step_id"] == hash_step_id("load")
    assert query["attempt"] == 0
    assert query["details"]["scope"] == "shop.db"
    attributes = query["details"]["attributes"]
    assert attributes["rows"] == 3
    assert attributes["inngest.traceparent"].startswith(f"00-{ULID.from_str(run['run_id']).hex}-")
