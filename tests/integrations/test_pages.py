"""Something between application and engine answers with a page of its own: that is no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask

from stephttp import Checkpointing, step
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import Durable, durable

STATUSES = pytest.mark.parametrize("status", [200, 403, 404, 409, 410, 429, 502])
KEY = {"idempotency-key": "k"}


class Shop:
    def __init__(self) -> None:
        self.charged: list[str] = []
        self.before: Callable[[], Any] = lambda: None

    def on_loop(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/{path}")
        async def order(path: str) -> str:
            await step.run("before", self.before)
            await step.run("charge", self.charged.append, path)
            if path == "nap":
                await step.sleep("nap", timedelta(minutes=1))
                await step.run("print", self.charged.append, "print")
            return path

        return provider.asgi(app)

    def in_threads(self, provider: Provider) -> Any:
        app = Flask("shop")

        @app.post("/<path>")
        def order(path: str) -> str:
            blocking.run("before", self.before)
            blocking.run("charge", self.charged.append, path)
            if path == "nap":
                blocking.sleep("nap", timedelta(minutes=1))
                blocking.run("print", self.charged.append, "print")
            return f'"{path}"'

        return provider.wsgi(app)


class Between:
    """Answers instead of the engine, as long as `status` is set."""

    def __init__(self, world: Durable) -> None:
        self.status: int | None = None
        self.headers = {"content-type": "text/html"}
        self._engine = world.to_engine.handle_async_request
        world.to_engine.handle_async_request = self.answer  # type: ignore[method-assign]

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        if self.status is None:
            return await self._engine(request)
        page = httpx2.ByteStream(b"<h1>sorry</h1>")
        return httpx2.Response(self.status, headers=self.headers, stream=page)


@STATUSES
@pytest.mark.parametrize("wsgi", [False, True])
@pytest.mark.parametrize("known", [False, True])
async def test_a_page_does_not_take_the_protection_of_keys_away(
    status: int, wsgi: bool, known: bool
) -> None:
    shop = Shop()
    build = shop.in_threads if wsgi else shop.on_loop
    async with durable(build, wsgi=wsgi, idempotency_header="Idempotency-Key") as world:
        between = Between(world)
        if known:
            assert (await world.client.post("/first", headers={**KEY, "a": "1"})).status_code == 200
            shop.charged.clear()
        between.status = status
        refused = await world.client.post("/order", headers={"idempotency-key": "o"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert shop.charged == []
        between.status = None
        pair = [world.client.post("/order", headers={"idempotency-key": "o"}) for _ in range(2)]
        answers = await asyncio.gather(*pair)
        assert {(answer.status_code, answer.json()) for answer in answers} == {(200, "order")}
    assert shop.charged == ["order"]


@STATUSES
@pytest.mark.parametrize("known", [False, True])
async def test_a_page_neither_acknowledges_nor_refuses_a_finished_run(
    status: int, known: bool
) -> None:
    shop = Shop()
    async with durable(shop.on_loop) as world:
        between = Between(world)
        if known:
            await world.client.post("/first")
            assert await world.provider.wait()
        between.status = status
        answer = await world.client.post("/order")
        assert answer.status_code == 200
        assert not await world.provider.wait(0.01)
        between.status = None
        assert await world.provider.wait()
        assert await world.status(answer) == "Completed"


@STATUSES
async def test_a_page_does_not_hold_up_a_run_that_is_called_again(status: int) -> None:
    shop = Shop()
    async with durable(shop.on_loop) as world:
        between = Between(world)
        between.status = status
        refused = await world.client.post("/nap")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        between.status = None
        first = await world.client.post("/nap")
        between.status = status
        await world.turn()
        between.status = None
        assert (await world.follow(first)).json() == "nap"
    assert shop.charged == ["nap", "nap", "print"]


@pytest.mark.parametrize("wsgi", [False, True])
async def test_a_page_is_not_passed_on_as_the_result(wsgi: bool) -> None:
    shop = Shop()
    build = shop.in_threads if wsgi else shop.on_loop
    async with durable(build, wsgi=wsgi, result_path="/result") as world:
        between = Between(world)
        first = await world.client.post("/nap")
        assert first.status_code == 303
        between.status = 200
        page = await world.client.get(first.headers["location"], headers={"prefer": "wait=0"})
        assert (page.status_code, "sorry" in page.text) == (202, False)
        between.status = None
        await world.turn()
        result = await world.client.get(first.headers["location"])
        assert (result.status_code, result.json()) == (200, "nap")


@pytest.mark.parametrize("wsgi", [False, True])
async def test_a_run_whose_caller_was_refused_is_not_left_running(wsgi: bool) -> None:
    shop = Shop()
    build = shop.in_threads if wsgi else shop.on_loop
    async with durable(build, wsgi=wsgi, checkpointing=Checkpointing.safe) as world:
        between = Between(world)
        await world.provider.runtime.drive(world.provider.runtime.checkpoints.renew([], 1000))
        send, loop = world.to_engine.handle_async_request, asyncio.get_running_loop()

        def opened() -> Any:  # the engine has the run, and the process knows that
            taken = world.provider.wait(10)
            return asyncio.run_coroutine_threadsafe(taken, loop).result() if wsgi else taken

        async def until_opened(request: httpx2.Request) -> httpx2.Response:
            if b'"Sleep"' in request.content:
                between.status = 502
            return await send(request)

        shop.before = opened
        world.to_engine.handle_async_request = until_opened  # type: ignore[method-assign]
        refused = await world.client.post("/nap")
        assert refused.status_code == 503
        between.status = None
        world.to_engine.handle_async_request = send  # type: ignore[method-assign]
        assert await world.provider.wait()
        assert await world.status(refused) == "Failed"
        assert shop.charged == ["nap"]
