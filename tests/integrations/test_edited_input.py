"""A run that is repeated from a step on, with another input for that step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI

import stephttp
from stephttp import step, sync
from stephttp._core.ids import hash_step_id
from stephttp._core.inputs import with_input
from stephttp.engine.reruns import Edit
from stephttp.errors import UsageError
from stephttp.provider import Provider
from tests.durable import durable


@dataclass
class Order:
    item: str
    count: int = 1


def price(order: Order, currency: str = "EUR") -> str:
    assert isinstance(order, Order)
    return f"{order.count} {order.item} in {currency}"


def app(provider: Provider) -> FastAPI:
    api = FastAPI()
    api.add_middleware(stephttp.ASGIMiddleware, provider=provider)

    @api.post("/async")
    async def asynchronous() -> list[str]:
        first = await step.run("first", lambda: "kept")
        return [first, await step.run("price", price, Order("lamp")), await step.run("end", str)]

    @api.post("/sync")
    def blocking() -> list[str]:
        first = sync.step.run("first", lambda: "kept")
        return [first, sync.step.run("price", price, Order("lamp")), sync.step.run("end", str)]

    return api


@pytest.mark.parametrize("path", ["/async", "/sync"])
@pytest.mark.parametrize(
    ("given", "priced"),
    [
        (b'[{"item": "book", "count": 2}]', "2 book in EUR"),
        (b'[{"item": "book"}, "USD"]', "1 book in USD"),
        (b'{"item": "pen"}', "1 pen in EUR"),
    ],
)
async def test_the_step_runs_with_the_input_that_it_is_given(
    path: str, given: bytes, priced: str
) -> None:
    async with durable(app, track_all_endpoints=True) as world:
        first = await world.client.post(path)
        assert first.json() == ["kept", "1 lamp in EUR", ""]
        assert await world.provider.wait(5)
        edit = Edit(step_id=hash_step_id("price"), input=given)
        new = await world.engine.actions.rerun(first.headers["x-run-id"], edit)
        await world.engine.idle()
        answered = (await world.engine.reader.run(new)).result
        assert answered is not None
        assert answered.body.decode() == f'["kept","{priced}",""]'


@pytest.mark.parametrize("given", [b"[1]", b'[{"item": 3}]'])
def test_an_input_that_does_not_fit_says_so(given: bytes) -> None:
    with pytest.raises(UsageError, match="the input given to step 'price' does not fit"):
        with_input(price, given, "price")()


@pytest.mark.parametrize(("body", "result"), [(lambda order: order, "a"), (str.upper, "A")])
def test_bodies_that_do_not_tell_what_they_take_get_plain_values(
    body: Callable[..., Any], result: str
) -> None:
    assert with_input(body, b'["a"]', "s")() == result
