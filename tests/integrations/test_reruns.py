"""Runs that are run again, with the real SDK: what it restores, what it runs, what it is given."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from datetime import timedelta
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Body, FastAPI, Header
from pydantic import BaseModel

import stephttp
from stephttp import step
from stephttp.middleware import Middleware, StepMemo
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import KEY, Durable, durable


class Order(BaseModel):
    item: str
    pieces: int = 1


def shop(ran: list[str]) -> Callable[[Provider], Any]:
    """An application that notes what it runs."""
    app = FastAPI()

    async def charge(order: Order, *, currency: str) -> str:
        ran.append(f"charge {order.pieces} {order.item} {currency}")
        return f"paid {order.item}"

    async def ship(receipt: str) -> str:
        ran.append(f"ship {receipt}")
        return receipt.upper()

    def pack(order: Order) -> str:
        ran.append(f"pack {order.pieces}")
        return order.item

    @app.post("/orders", status_code=201)
    async def place(
        order: Annotated[Order, Body()], authorization: Annotated[str, Header()]
    ) -> dict[str, str]:
        receipt = await step.run("charge", charge, order, currency="EUR")
        await step.sleep("nap", timedelta(minutes=1))
        parcel = await step.run("ship", ship, receipt)
        return {"parcel": parcel, "for": authorization}

    @app.post("/packs")
    def packs(order: Annotated[Order, Body()]) -> str:
        return blocking.run("pack", pack, order)

    return lambda provider: provider.asgi(app)


async def again(world: Durable, run_id: str, **edit: Any) -> str:
    """Run a run again, to its end; the new run."""
    answer = await world.api.post(f"/v1/stephttp/runs/{run_id}/rerun", json=edit)
    assert answer.status_code == 200, answer.text
    made: str = answer.json()["data"]["run_id"]
    await world.engine.idle()
    while (await detail(world, made))["state"] in ("running", "waiting"):
        await world.turn()
    return made


async def detail(world: Durable, run_id: str) -> Any:
    return (await world.api.get(f"/v1/stephttp/runs/{run_id}")).json()["data"]


async def order(world: Durable) -> str:
    """Place an order, to its end; its run."""
    headers = {"authorization": "Bearer me"}
    response = await world.client.post("/orders", json={"item": "book"}, headers=headers)
    await world.follow(response)
    return response.headers["x-run-id"]


def body_of(run: Any) -> bytes:
    """The answer that a run ended with."""
    return base64.b64decode(run["response"]["body"])


@pytest.mark.parametrize("key", ["", KEY])
async def test_all_of_it_with_the_headers_of_the_first_caller(key: str) -> None:
    ran: list[str] = []
    async with durable(shop(ran), key=key) as world:
        first = await order(world)
        made = await again(world, first)
        run = await detail(world, made)
        assert (run["state"], run["response"]["status"], run["rerun_of"]) == (
            "completed", 201, first,
        )  # fmt: skip
        assert body_of(run) == b'{"parcel":"PAID BOOK","for":"Bearer me"}'
        assert ran == ["charge 1 book EUR", "ship paid book"] * 2
        # And once more, of the rerun.
        assert body_of(await detail(world, await again(world, made))) == body_of(run)


async def test_from_a_step_on() -> None:
    ran: list[str] = []
    async with durable(shop(ran), key=KEY) as world:
        first = await order(world)
        ship = (await step_ids(world, first))["ship"]
        ran.clear()
        made = await again(world, first, step_id=ship)
        assert ran == ["ship paid book"]
        assert (await detail(world, made))["state"] == "completed"


async def test_with_another_output() -> None:
    ran: list[str] = []
    async with durable(shop(ran)) as world:
        first = await order(world)
        charge = (await step_ids(world, first))["charge"]
        ran.clear()
        made = await again(world, first, step_id=charge, output="paid a horse")
        assert ran == ["ship paid a horse"]
        assert body_of(await detail(world, made)).startswith(b'{"parcel":"PAID A HORSE"')


class Copying(Middleware):
    """Puts back what it is given, as middleware does that encrypts."""

    def transform_input(self, steps: Mapping[str, StepMemo]) -> None:
        for memo in steps.values():
            memo.data = copy(memo.data)


@pytest.mark.parametrize("middleware", [[], [Copying]])
async def test_with_another_input(middleware: list[type[Middleware]]) -> None:
    ran: list[str] = []
    async with durable(shop(ran), middleware=middleware) as world:
        first = await order(world)
        charge = (await step_ids(world, first))["charge"]
        ran.clear()
        edited = [{"item": "pen", "pieces": 3}]
        made = await again(world, first, step_id=charge, input=edited)
        # As its type says; keyword arguments are the handler's own.
        assert ran == ["charge 3 pen EUR", "ship paid pen"]
        (shown,) = [s for s in (await detail(world, made))["step_list"] if s["id"] == "charge"]
        assert (shown["edited"], shown["output"]) == (edited, "paid pen")


async def test_a_blocking_step_with_another_input() -> None:
    ran: list[str] = []
    async with durable(shop(ran)) as world:
        response = await world.client.post("/packs", json={"item": "pen", "pieces": 2})
        assert response.status_code == 200
        assert await world.provider.wait(10)
        first = response.headers["x-run-id"]
        pack = (await step_ids(world, first))["pack"]
        made = await again(world, first, step_id=pack, input=[{"item": "cup", "pieces": 9}])
        assert ran == ["pack 2", "pack 9"]
        assert body_of(await detail(world, made)) == b'"cup"'


async def test_an_input_that_does_not_fit_fails_the_step() -> None:
    ran: list[str] = []
    async with durable(shop(ran)) as world:
        first = await order(world)
        charge = (await step_ids(world, first))["charge"]
        ran.clear()
        made = await again(world, first, step_id=charge, input=[{"pieces": "many"}])
        run = await detail(world, made)
        assert (run["state"], ran) == ("failed", [])
        (failed,) = [s for s in run["step_list"] if s["id"] == "charge"]
        assert "the edited input of step 'charge' does not fit" in failed["error"]["message"]


async def test_an_input_that_does_not_fit_fails_a_blocking_step() -> None:
    ran: list[str] = []
    async with durable(shop(ran)) as world:
        response = await world.client.post("/packs", json={"item": "pen"})
        assert await world.provider.wait(10)
        first = response.headers["x-run-id"]
        pack = (await step_ids(world, first))["pack"]
        made = await again(world, first, step_id=pack, input=[{"pieces": "many"}])
        run = await detail(world, made)
        assert (run["state"], ran) == ("failed", ["pack 1"])
        assert (
            "the edited input of step 'pack' does not fit"
            in run["step_list"][0]["error"]["message"]
        )


@pytest.mark.parametrize(
    ("key", "options", "shown"),
    [
        ("", {}, True),
        ("", {"middleware": [stephttp.Middleware]}, False),
        ("", {"middleware": [stephttp.Middleware], "record_inputs": True}, True),
        ("", {"record_inputs": False}, False),
        (KEY, {}, False),
        (KEY, {"record_inputs": True}, True),
    ],
)
async def test_what_steps_are_called_with_is_recorded_where_it_is_wanted(
    key: str, options: dict[str, Any], shown: bool
) -> None:
    def app(provider: Provider) -> Any:
        api = FastAPI()

        def fail(order: Order) -> None:
            raise LookupError(order.item)

        @api.post("/all")
        async def all_kinds(order: Annotated[Order, Body()]) -> None:
            await step.run("plain", lambda *args: None, order, 2, "three")
            await step.run("large", lambda text: None, "x" * 70_000)
            await step.run("odd", lambda thing: None, object())
            await step.run("none", lambda: None)
            with suppress(LookupError):
                await step.run("fails", fail, order)

        @api.post("/blocking")
        def blocking_one(order: Annotated[Order, Body()]) -> None:
            blocking.run("plain", lambda *args: None, order, 2, "three")

        return provider.asgi(api)

    async with durable(app, key=key, **options) as world:
        inputs = {}
        for path in ("/all", "/blocking"):
            response = await world.client.post(path, json={"item": "pen"})
            assert response.status_code == 200
            assert await world.provider.wait(10)
            steps = (await detail(world, response.headers["x-run-id"]))["step_list"]
            inputs[path] = {one["id"]: (one["opts"] or {}).get("input") for one in steps}
    pen = {"item": "pen", "pieces": 1}
    plain, failed = ([pen, 2, "three"], [pen]) if shown else (None, None)
    assert inputs["/blocking"] == {"plain": plain}
    assert inputs["/all"] == {
        "plain": plain, "large": None, "odd": None, "none": None, "fails": failed,
    }  # fmt: skip


async def test_a_run_that_never_waited_is_run_again_with_another_body() -> None:
    ran: list[str] = []
    async with durable(shop(ran)) as world:
        response: httpx2.Response = await world.client.post("/packs", json={"item": "pen"})
        assert await world.provider.wait(10)
        await again(
            world, response.headers["x-run-id"], body="eyJpdGVtIjoiY3VwIiwicGllY2VzIjo0fQ=="
        )
        assert ran == ["pack 1", "pack 4"]


async def step_ids(world: Durable, run_id: str) -> dict[str, str]:
    return {step["id"]: step["step_id"] for step in (await detail(world, run_id))["step_list"]}
