"""Functions and endpoints invoke each other."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from stephttp.engine.rules.functions.starting import INVOKED
from tests.engine.functions.support import (
    body_of,
    config,
    fails,
    invoke,
    only,
    output,
    register,
    returns,
    send,
)
from tests.engine.support import A, B, answer, world


@pytest.mark.parametrize(
    ("reply", "memo"),
    [
        (returns({"status": 201, "body": "mine"}), {"data": {"status": 201, "body": "mine"}}),
        (
            fails(400, headers={"x-inngest-no-retry": "true"}, stack="in line 1", code="c"),
            {
                "error": {
                    "code": "c", "data": None, "message": "no", "name": "ValueError",
                    "stack": "in line 1",
                }
            },
        ),
    ],
)  # fmt: skip
async def test_a_function_invokes_another(reply: httpx2.Response, memo: Any) -> None:
    async with world(script=[answer([invoke()]), reply, returns("parent")]) as w:
        await register(w, config("shop-parent", "go"), config("shop-child", "never"))
        parent = await only(w, await send(w, "go"))
        assert output(parent) == "parent"
        event = body_of(w.calls[1])["event"]
        assert (event["name"], event["data"]["n"]) == (INVOKED, 1)
        own = event["data"]["_inngest"]
        assert own["correlation_id"] == f"{parent['run_id']}.{A}"
        assert own["fn_id"] == "shop-child"
        assert body_of(w.calls[2])["steps"] == {A: memo}


async def test_an_invoked_function_may_take_too_long() -> None:
    hang = {"op": "Sleep", "id": B, "name": "1h"}
    script = [answer([invoke(timeout="5s")]), answer([hang]), returns("gave up"), returns("late")]
    async with world(script=script) as w:
        await register(w, config("shop-parent", "go"), config("shop-child", "never"))
        event_id = await send(w, "go")
        await w.after(5)
        assert "Timed out waiting" in body_of(w.calls[2])["steps"][A]["error"]["message"]
        assert output(await only(w, event_id)) == "gave up"
        await w.after(3600)
        assert len(w.calls) == 4


async def test_endpoints_and_functions_invoke_each_other() -> None:
    done = {"status": 201, "headers": {"x-a": "b"}, "body": "hi"}
    complete = {"op": "RunComplete", "id": "c", "data": done}
    async with world() as w:
        await register(w, config("shop-child", "go"))
        w.script = [returns({"packed": True}), answer(complete)]
        await w.post(invoke(), data={"fn": "order"})
        await w.engine.idle()
        assert body_of(w.calls[0])["event"]["data"]["n"] == 1
        assert w.calls[1].url.path == "/orders"

        w.script = [answer([invoke(function="order")]), answer(complete), returns("done")]
        event_id = await send(w, "go")
        called = w.calls[3]
        assert (called.url.path, json.loads(called.content)) == ("/orders", {"n": 1})
        assert body_of(w.calls[4])["steps"] == {A: {"data": done}}
        assert output(await only(w, event_id)) == "done"


async def test_an_endpoint_gets_what_an_invoked_function_returned() -> None:
    async with world(script=[returns({"packed": True})]) as w:
        await register(w, config("shop-child", "go"))
        w.script += [answer([{"op": "Sleep", "id": B, "name": "1h"}])]
        await w.post(invoke())
        await w.engine.idle()
        assert (await w.memos())[A] == {"data": {"packed": True}}


async def test_a_function_is_invoked_by_its_id() -> None:
    async with world(script=[returns("good")]) as w:
        await register(w, config("shop-pack", "order/paid"))
        response = await w.http.post(
            "/invoke/shop-pack", json={"data": {"n": 1}, "user": {"id": 7}}
        )
        assert response.json()["status"] == 200
        await w.engine.idle()
        event = body_of(w.calls[0])["event"]
        assert (event["name"], event["data"], event["user"]) == (INVOKED, {"n": 1}, {"id": 7})
        assert output(await only(w, response.json()["id"])) == "good"
        refused = await w.http.post("/invoke/shop-unpack", json={})
        assert (refused.status_code, "no function" in refused.text) == (404, True)
        await w.post(data={"fn": "order"})
        assert (await w.http.post("/invoke/order", json={})).status_code == 404
        assert (await w.http.post("/invoke/shop-pack", json=[])).status_code == 400


async def test_a_payload_that_is_nested_too_deeply_fails_the_step() -> None:
    deep: Any = 1
    for _ in range(101):
        deep = {"a": deep}
    script = [answer([invoke(payload={"data": deep})]), returns("told")]
    async with world(script=script) as w:
        await register(w, config("shop-parent", "go"), config("shop-child", "never"))
        assert output(await only(w, await send(w, "go"))) == "told"
        error = body_of(w.calls[1])["steps"][A]["error"]
        assert "payload.data: nested more than 100 levels deep" in error["message"]
