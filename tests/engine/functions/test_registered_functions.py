"""Apps register functions: again, elsewhere, no longer, and what the engine cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.functions.support import (
    URL,
    body_of,
    config,
    invoke,
    only,
    output,
    register,
    returns,
    send,
    started,
    step_run,
)
from tests.engine.support import KEY, A, B, answer, world


async def test_functions_are_known_after_a_restart_and_runs_continue(tmp_path: Path) -> None:
    path = tmp_path / "db"
    sleep = {"op": "Sleep", "id": B, "name": "1h"}
    async with world(path=path, script=[answer([sleep])]) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid")
        clock = w.clock
    async with world(clock, path, script=[returns("new")]) as w:
        second = await send(w, "order/paid")
        assert output(await only(w, second)) == "new"
        w.script = [returns("old")]
        await w.after(3600)
        assert output(await only(w, event_id)) == "old"


async def test_an_app_registers_again() -> None:
    async with world() as w:
        first = config("shop-pack", "order/paid")
        assert (await register(w, first))["modified"]
        assert "modified" not in await register(w, first)
        w.script = [answer([{"op": "Sleep", "id": B, "name": "1h"}])]
        event_id = await send(w, "order/paid")

        # The function moves, and another one takes over its event.
        moved = json.loads(json.dumps(first).replace("app.test", "new.test"))
        moved["triggers"] = [{"event": "order/sent"}]
        await register(w, moved, config("shop-new", "order/paid"), url="http://new.test/x")
        w.script = [returns("new")]
        assert (await only(w, await send(w, "order/paid")))["function"] == "shop-new"
        w.script = [returns("old")]
        (call,) = await w.after(3600)
        assert call.url.host == "new.test"
        assert output(await only(w, event_id)) == "old"

        # It is gone: nothing starts it, by whatever way.
        await register(w, config("shop-new", "order/paid"), url="http://new.test/x")
        assert await started(w, await send(w, "order/sent")) == []
        assert (await w.http.post("/invoke/shop-pack", json={})).status_code == 404
        # Under another name, the app is another one.
        await register(w, config("store-new", "go"), url="http://new.test/x", appname="store")
        assert await started(w, await send(w, "order/paid")) == []
        removed = await w.http.delete("/fn/remove", params={"url": "http://new.test/x"})
        assert removed.json() == {"ok": True}
        assert await started(w, await send(w, "go")) == []
        removed = await w.http.delete("/fn/remove", params={"url": "http://new.test/x"})
        assert removed.status_code == 404


async def test_functions_are_listed() -> None:
    async with world() as w:
        await register(
            w,
            config("shop-b", {"event": "go", "expression": "event.data.n == 1"}),
            config("shop-a", "go", somethingNew=True),
        )
        listed = (await w.http.get("/v1/apps/shop/functions")).json()
        assert [(one["slug"], one["name"]) for one in listed] == [
            ("shop-a", "the shop-a"),
            ("shop-b", "the shop-b"),
        ]
        assert "somethingNew" in listed[0]["refused"]
        assert listed[1]["triggers"] == [{"event": "go", "expression": "event.data.n == 1"}]
        assert listed[1]["steps"][0]["uri"] == f"{URL}?fnId=shop-b&stepId=step"
        assert (await w.http.get("/dev")).json()["functions"] == listed
        assert (await w.http.get("/v1/apps/store/functions")).status_code == 404


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("somethingNew", True),
    ],
)
async def test_a_function_that_wants_what_the_engine_cannot_do_is_not_started(
    option: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as w:
        await register(w, config("shop-limited", "go", **{option: value}))
        assert await started(w, await send(w, "go")) == []
        refused = await w.http.post("/invoke/shop-limited", json={})
        assert (refused.status_code, option in refused.json()["error"]) == (400, True)
        (record,) = [one for one in caplog.records if "not started" in one.getMessage()]
        assert (record.levelname, option in record.getMessage()) == ("WARNING", True)
        w.script = [answer([{"op": "Sleep", "id": B, "name": "1h"}])]
        await w.post(invoke(function="shop-limited"))
        await w.engine.idle()
        assert option in (await w.memos())[A]["error"]["message"]


async def test_registering_needs_the_key_and_an_app_that_may_be_called() -> None:
    keys: dict[str, Any] = {"signing_keys": (KEY,), "event_keys": ("key",)}
    body = {"appName": "shop", "url": URL, "functions": [config("shop-pack", "go")]}
    async with world(**keys, allow_hosts=("other.test",), private_hosts=False) as w:
        assert (await w.http.post("/fn/register", json=body)).status_code == 401
        w.http.headers["authorization"] = f"Bearer {KEY}"
        refused = await w.http.post("/fn/register", json=body)
        assert (refused.status_code, "app.test" in refused.text) == (403, True)
        kind = {"x-inngest-expected-server-kind": "dev"}
        refused = await w.http.post("/fn/register", json=body, headers=kind)
        assert refused.status_code == 400
        assert refused.json()["error"] == "Expected server kind dev, got cloud"
        assert (await w.http.get("/v1/apps/shop/functions")).status_code == 404


async def test_cancellations_and_retention_work_for_functions() -> None:
    async with world(retain=60.0) as w:
        await register(w, config("shop-pack", "go"))
        w.script = [answer([{"op": "Sleep", "id": B, "name": "1h"}])] * 2
        first, second = [await send(w, "go", {"n": n}) for n in range(2)]
        run = await only(w, first)
        app_id = (await w.http.get("/v1/stephttp/endpoints")).json()["data"][0]["app_id"]
        order = {"app_id": app_id, "function_id": "shop-pack", "if": "event.data.n == 0"}
        order["started_before"] = "2100-01-01T00:00:00Z"
        assert (await w.http.post("/v1/cancellations", json=order)).status_code == 200
        assert (await w.run(run["run_id"]))["status"] == "Cancelled"
        assert (await only(w, second))["status"] == "Running"
        w.clock.advance(200)
        await w.engine._retention.sweep(60.0)
        assert (await w.http.get(f"/v1/runs/{run['run_id']}")).status_code == 404


async def test_a_run_is_repeated_where_its_function_is_served_now(tmp_path: Path) -> None:
    path, new_url = tmp_path / "db", "http://new.test/x"
    async with world(path=path, script=[returns("old")]) as w:
        await register(w, config("shop-pack", "go"))
        run = await only(w, await send(w, "go"))
        moved = json.dumps(config("shop-pack", "go", retries=7)).replace(URL, new_url)
        await register(w, json.loads(moved), url=new_url)
        w.script = [returns("again")]
        rerun = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/rerun")
        assert rerun.status_code == 200, rerun.text
        await w.engine.idle()
        assert str(w.calls[-1].url) == f"{new_url}?fnId=shop-pack&stepId=step"
        clock = w.clock
    # What is known of the function stays what its app has said of it, also after a restart.
    async with world(clock, path, script=[returns("new"), returns("named")]) as w:
        await send(w, "go")
        assert (await w.http.post("/invoke/shop-pack", json={})).status_code == 200
        await w.engine.idle()
        assert [str(call.url) for call in w.calls] == [f"{new_url}?fnId=shop-pack&stepId=step"] * 2
        assert [body_of(call)["ctx"]["max_attempts"] for call in w.calls] == [8, 8]


async def test_an_endpoint_of_the_same_name_does_not_hide_a_function() -> None:
    async with world(script=[returns("done")]) as w:
        await register(w, config("shop-pack", "go"))
        w.clock.advance(5)
        await w.post(step_run(), data={"fn": "shop-pack"})
        invoked = await w.http.post("/invoke/shop-pack", json={})
        assert invoked.status_code == 200, invoked.text
        await w.engine.idle()
        assert output(await only(w, invoked.json()["id"])) == "done"


async def test_queries_of_urls_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with world() as w:
        await register(w, config("shop-pack", "go"), url=f"{URL}?bypass=secret")
        (record,) = [one for one in caplog.records if one.getMessage().startswith("app registered")]
        assert URL in str(vars(record))
        assert "secret" not in str(vars(record))
