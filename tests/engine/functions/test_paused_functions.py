"""A paused function: nothing starts it, its runs continue, and it stays so until it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stephttp.engine import VirtualClock
from tests.engine.functions.support import (
    body_of,
    config,
    invoke,
    only,
    output,
    register,
    returns,
    send,
    started,
)
from tests.engine.support import A, B, World, answer, world


async def change(w: World, what: str, name: str = "shop-pack") -> dict[str, Any]:
    response = await w.http.post(f"/v1/stephttp/functions/{name}/{what}")
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def listed(w: World) -> dict[str, Any]:
    data = (await w.http.get("/v1/stephttp/functions")).json()["data"]
    return {one["function"]: one for one in data}


async def test_events_start_nothing_while_a_function_is_paused() -> None:
    async with world(script=[returns(1)] * 2) as w:
        await register(w, config("shop-pack", "order/paid"), config("shop-mail", "order/paid"))
        assert await change(w, "pause") == {"paused": True, "modified": True}
        assert await change(w, "pause") == {"paused": True, "modified": False}
        (run,) = await started(w, skipped := await send(w, "order/paid"))
        assert run["function_id"] == (await listed(w))["shop-mail"]["function_id"]
        assert await change(w, "resume") == {"paused": False, "modified": True}
        assert len(await started(w, skipped)) == 1, "it is not made up for"
        w.script = [returns(1)] * 2
        assert len(await started(w, await send(w, "order/paid"))) == 2


async def test_a_run_that_has_begun_continues() -> None:
    script = [answer([{"op": "Sleep", "id": B, "name": "1h"}]), returns("packed")]
    async with world(script=script) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid")
        await change(w, "pause")
        await w.after(3600)
        assert output(await only(w, event_id)) == "packed"


async def test_who_invokes_a_paused_function_learns_it_at_once() -> None:
    async with world(script=[answer([invoke(function="shop-pack")]), returns("gave up")]) as w:
        await register(w, config("shop-pack"), config("shop-parent", "go"))
        await change(w, "pause")
        function_id = (await listed(w))["shop-pack"]["function_id"]
        for path in (
            "/invoke/shop-pack",
            "/v1/stephttp/functions/shop-pack/invoke",
            f"/v1/stephttp/functions/{function_id}/invoke",
        ):
            refused = await w.http.post(path, json={"data": {}})
            assert refused.status_code == 409
            expected = "function: 'shop-pack' is not started: it is paused"
            assert refused.json()["error"] == expected
        parent = await only(w, await send(w, "go"))
        error = body_of(w.calls[1])["steps"][A]["error"]
        assert error["message"] == "function shop-pack is not started: it is paused"
        assert output(parent) == "gave up"


async def test_a_run_of_it_can_be_run_again_by_hand() -> None:
    async with world(script=[returns(1), returns(2)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        run = await only(w, await send(w, "order/paid"))
        await change(w, "pause")
        again = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/rerun")
        await w.engine.idle()
        assert output(await w.run(again.json()["data"]["run_id"])) == 2


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_it_stays_paused_whatever_its_app_does(tmp_path: Path, withdrawn: bool) -> None:
    path, clock = tmp_path / "runs.sqlite3", VirtualClock()
    async with world(clock, path) as w:
        await register(w, config("shop-pack", "order/paid"))
        await change(w, "pause")
    async with world(clock, path) as w:
        assert await started(w, await send(w, "order/paid")) == []
        if withdrawn:
            await register(w, config("shop-mail", "never"))
            assert "shop-pack" not in await listed(w)
        await register(w, config("shop-pack", "order/paid", retries=7))
        one = (await listed(w))["shop-pack"]
        assert (one["retries"], one["paused"], one["not_started"]) == (7, True, "it is paused")
        (view,) = (await w.http.get("/v1/apps/shop/functions")).json()
        assert view["paused"] is True
        assert await started(w, await send(w, "order/paid")) == []


async def test_a_reason_of_its_own_goes_before_the_pause() -> None:
    async with world() as w:
        await register(w, config("shop-pack", "order/paid", connect={"a": 1}))
        await change(w, "pause")
        reason = (await listed(w))["shop-pack"]["not_started"]
        assert reason == "connect: this engine cannot do that yet"
        assert (await w.http.post("/invoke/shop-pack", json={})).status_code == 400


async def test_functions_are_named_by_id_or_slug() -> None:
    async with world(script=[returns("good")]) as w:
        await register(w, config("shop/with a slash", "order/paid"))
        one = (await listed(w))["shop/with a slash"]
        await change(w, "pause", one["function_id"])
        await change(w, "resume", one["function_id"])
        made = await w.http.post(
            f"/v1/stephttp/functions/{one['function_id']}/invoke", json={"data": {"n": 1}}
        )
        await w.engine.idle()
        assert output(await w.run(made.json()["data"]["run_id"])) == "good"
        assert body_of(w.calls[0])["event"]["id"] == made.json()["data"]["internal_id"]
        for what in ("pause", "resume", "invoke"):
            missing = await w.http.post(f"/v1/stephttp/functions/shop-gone/{what}", json={})
            assert missing.status_code == 404
            assert missing.json()["error"] == "function: there is no function 'shop-gone'"
