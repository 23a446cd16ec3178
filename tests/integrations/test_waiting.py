"""Our SDK with the engine where something from outside moves a run: invoked, woken, cancelled.

The caller is a hand-made endpoint, which speaks in ops; what it invokes is an application of ours.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Response
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from stephttp import step
from stephttp._wire.ids import hash_step_id
from tests.durable import APP, KEY, Durable, durable

CALLER = "01M81KWY2JTNRXZTV817ZB746V"
WAIT = hash_step_id("wait")


class Shop:
    """An application with a durable endpoint, and a caller beside it that is not ours."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.ran: list[Any] = []
        self.told: Any = None
        self.world: Durable

        @self.app.post("/orders", status_code=201)
        async def orders(request: Request, response: Response) -> dict[str, Any]:
            order = await request.json()
            await step.run("note", self.ran.append, order)
            if order.get("nap"):
                await step.sleep("nap", timedelta(minutes=1))
            if order.get("fail"):
                raise ValueError("no such thing")
            response.headers["x-order"] = str(order["id"])
            return {"id": order["id"], "steps": len(self.ran)}

    def build(self, provider: Any) -> Any:
        wrapped = provider.asgi(self.app)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            handler = self.caller if scope.get("path") == "/caller" else wrapped
            await handler(scope, receive, send)

        return app

    async def caller(self, scope: Scope, receive: Receive, send: Send) -> None:
        memos = (await self.world.api.get(f"/v0/runs/{CALLER}/actions")).json()
        self.told = memos.get(WAIT)
        op = {"id": hash_step_id("complete"), "op": "RunComplete", "data": {"status": 200}}
        answer = Response(json.dumps(op), 206, {"x-inngest-sdk": "by:hand"})
        await answer(scope, receive, send)


async def begin(world: Durable, shop: Shop, op: dict[str, Any]) -> None:
    """The run of the hand-made caller waits."""
    shop.world = world
    data = {"domain": APP, "method": "POST", "path": "/caller"}
    body = {"run_id": CALLER, "event": {"data": data}, "steps": [{"id": WAIT, **op}]}
    response = await world.api.post("/v1/checkpoint", json=body)
    assert response.status_code == 200, response.text
    await world.engine.idle()


def invoke(data: Any) -> dict[str, Any]:
    opts = {"function_id": "POST /orders", "payload": {"data": data}}
    return {"op": "InvokeFunction", "opts": opts}


async def known(world: Durable, shop: Shop) -> None:
    """Let the engine see the endpoint once."""
    response = await world.client.post("/orders", json={"id": 0})
    assert response.status_code == 201
    assert await world.provider.wait(5)
    shop.ran.clear()


@pytest.mark.parametrize("key", ["", KEY])
@pytest.mark.parametrize("nap", [False, True])
async def test_a_run_may_begin_with_a_re_entry(key: str, nap: bool) -> None:
    """No first request, so no capsule: the handler gets what the engine sends."""
    shop = Shop()
    async with durable(shop.build, key=key) as world:
        await known(world, shop)
        await begin(world, shop, invoke({"id": 7, "nap": nap}))
        if nap:
            assert shop.told is None
            await world.turn()
        assert shop.ran == [{"id": 7, "nap": nap}]
        answer = shop.told["data"]
        assert (answer["status"], json.loads(answer["body"])) == (201, {"id": 7, "steps": 1})
        assert answer["headers"]["x-order"] == "7"


async def test_an_invoked_handler_that_raises() -> None:
    shop = Shop()
    async with durable(shop.build) as world:
        await known(world, shop)
        await begin(world, shop, invoke({"id": 7, "fail": True}))
        assert "no such thing" in shop.told["error"]["message"]


async def test_an_event_reaches_a_run() -> None:
    shop = Shop()
    async with durable(shop.build) as world:
        opts = {"timeout": "1h", "if": "async.data.path == event.data.path"}
        await begin(world, shop, {"op": "WaitForEvent", "name": "shop/packed", "opts": opts})
        sent = await world.api.post(
            "/e/any",
            json=[{"name": "shop/packed", "data": {"path": path}} for path in ["/x", "/caller"]],
        )
        assert sent.status_code == 200
        await world.engine.idle()
        assert shop.told["data"] == {"path": "/caller"}


async def test_the_reader_of_a_cancelled_run_is_answered() -> None:
    shop = Shop()
    async with durable(shop.build) as world:
        first = await world.client.post("/orders", json={"id": 1, "nap": True})
        assert first.status_code == 303
        run_id = first.headers["x-run-id"]
        assert (await world.api.delete(f"/v1/runs/{run_id}")).status_code == 200
        final: httpx2.Response = await world.api.get(first.headers["location"])
        assert (final.status_code, final.json()["error"]["name"]) == (409, "CancelledError")
        assert shop.ran == [{"id": 1, "nap": True}]
