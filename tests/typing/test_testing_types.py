"""What type checkers see of the clients for tests; mypy and pyright read this."""

from __future__ import annotations

from datetime import datetime
from typing import Any, assert_type

import httpx2

from stephttp import testing


def blocking(client: testing.DurableClient) -> None:
    call = client.post("/orders", json={})
    assert_type(call, testing.Call)
    assert_type(call.response, httpx2.Response)
    assert_type(call.status_code, int)
    assert_type(call.json(), Any)
    assert_type(call.run, testing.RecordedRun)
    assert_type(call.until_waiting("packed"), testing.RecordedRun)
    assert_type(call.run.step("charge").attempts, int)
    assert_type(call.run.waits, tuple[testing.RecordedWait, ...])
    assert_type(client.runs, list[testing.RecordedRun])
    assert_type(client.events, list[testing.RecordedEvent])
    assert_type(client.now, datetime)
    assert_type(client.stub("charge", {}).calls, list[testing.RecordedCall])
    assert_type(client.stub_url("https://*", {}).requests, list[httpx2.Request])
    with testing.DurableClient(None) as opened:
        assert_type(opened, testing.DurableClient)


async def awaited(client: testing.AsyncDurableClient) -> None:
    call = client.post("/orders", json={})
    assert_type(call, testing.AsyncCall)
    assert_type(await call, httpx2.Response)
    assert_type(await call.run(), testing.RecordedRun)
    assert_type(await call.until_step("charge"), testing.RecordedRun)
    assert_type(await client.runs(), list[testing.RecordedRun])
    async with testing.AsyncDurableClient(None) as opened:
        assert_type(opened, testing.AsyncDurableClient)


def test_units_have_types() -> None:
    with testing.unit() as run:
        assert_type(run, testing.Unit)
        assert_type(run.now, datetime)
        assert_type(run.step_ids, list[str])
