"""Calls of functions of `serve`, as an Inngest server makes them (docs/protocol.md 9 and 13.9)."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import httpx2
from ulid import ULID

from stephttp._wire.signatures import sign

ACCOUNT = "00000000-0000-4000-a000-000000000000"


class FunctionCaller:
    """The side of an Inngest server that runs functions.

    Args:
        transport: leads to the application.
        origin: of the application.
        key: signing key; empty is the development server.
    """

    def __init__(self, transport: httpx2.AsyncBaseTransport, origin: str, key: str = "") -> None:
        self.client = httpx2.AsyncClient(transport=transport, base_url=origin)
        self.key = key
        self._jobs = itertools.count()

    async def sync(self) -> httpx2.Response:
        """Ask the application for its functions, in band."""
        body = b'{"url":"%sapi/inngest"}' % str(self.client.base_url).encode()
        headers = {
            "content-type": "application/json",
            "x-inngest-server-kind": "cloud" if self.key else "dev",
            "x-inngest-sync-kind": "in_band",
            **self._signature(body),
        }
        return await self.client.put("/api/inngest", content=body, headers=headers)

    async def run(self, function: str, data: dict[str, Any]) -> Any:
        """Run a function to its end, waits without their time, and return its output."""
        run_id, steps = str(ULID()), dict[str, Any]()
        for _ in range(20):
            answer = await self.call(function, run_id, data, steps)
            if answer.status_code == 200:
                return answer.json()
            assert answer.status_code == 206, (answer.status_code, answer.text)
            for op in answer.json():
                steps[op["id"]] = None if op["op"] == "Sleep" else {"data": op["data"]}
        raise AssertionError("the function does not end")

    async def call(
        self,
        function: str,
        run_id: str,
        data: dict[str, Any],
        steps: dict[str, Any],
        path: str = "/api/inngest",
    ) -> httpx2.Response:
        """Call a function once."""
        job, event = f"job{next(self._jobs)}", {"name": "shop/packed", "data": data, "ts": 1}
        ctx = {
            "attempt": 0,
            "disable_immediate_execution": False,
            "env": "",
            "fn_id": "f" * 36,
            "run_id": run_id,
            "stack": {"current": len(steps), "stack": [*steps]},
            "step_id": "step",
            "use_api": False,
        }
        body = json.dumps(
            {"ctx": ctx, "event": event, "events": [event], "steps": steps, "use_api": False},
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        headers = {
            "user-agent": "Inngest",
            "connection": "close",
            "account-id": ACCOUNT,
            "content-type": "application/json",
            "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
            "tracestate": "inngest@fn=f",
            "x-inngest-generation-id": "1",
            "x-inngest-job-id": job,
            "x-inngest-req-version": "2" if steps else "-1",
            "x-inngest-step-id": "step",
            "x-request-id": str(ULID()),
            "x-run-id": run_id,
            **self._signature(body),
        }
        query = {"fnId": function, "stepId": "step"}
        return await self.client.post(path, params=query, content=body, headers=headers)

    def _signature(self, body: bytes) -> dict[str, str]:
        """Headers that sign a call: none without a key, not even an empty one."""
        if not self.key:
            return {}
        return {"x-inngest-signature": sign(self.key, body, int(time.time()))}
