"""Runs that sleep, put into an engine by its API as an SDK would."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import httpx2
import msgspec

from stephttp._wire.ids import hash_step_id, ulid

BATCH = 1000


def put(engine: str, app: str, runs: int, due: float, prefix: int = 0) -> None:
    """Open runs of `/due/{due}` that all sleep until `due` (seconds since the epoch).

    Args:
        prefix: tells one call's run ids from another's.
    """
    until = datetime.fromtimestamp(due, UTC).isoformat(timespec="milliseconds")
    now_ms = time.time_ns() // 1_000_000
    name = hash_step_id("nap")
    sleep = {
        "op": "Sleep", "id": name, "name": until, "displayName": "nap",
        "opts": {"duration": until}, "userland": {"id": "nap"},
    }  # fmt: skip
    data = {"domain": app, "method": "POST", "path": f"/due/{due}", "content_type": "", "ip": ""}
    headers = {"x-inngest-sdk": "stephttp-py:v0", "content-type": "application/json"}
    with httpx2.Client(base_url=engine, headers=headers, timeout=60) as client:
        for first in range(0, runs, BATCH):
            batch = [
                {
                    "run_id": ulid(now_ms, prefix << 40 | number),
                    "event": {"data": data, "ts": now_ms},
                    "steps": [sleep],
                    "request_version": 2,
                    "reads_state": True,
                }
                for number in range(first, min(first + BATCH, runs))
            ]
            answer = client.post("/v1/checkpoint/batch", content=msgspec.json.encode(batch))
            assert answer.status_code == 200, answer.text
            outcomes = answer.json()["data"]["items"]
            assert all(outcome["status"] == 200 for outcome in outcomes), outcomes[:3]
