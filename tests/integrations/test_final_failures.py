"""Failures that are final: the exception itself in that call, and no further call for it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, HTTPException
from werkzeug.exceptions import Conflict

from stephttp import step
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import durable

NAP = timedelta(minutes=1)
Build = Callable[[Provider], Any]


class CardDeclined(Exception):
    pass


class Shop:
    """The same endpoints under ASGI and WSGI; `calls` has what ran."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def note(self, name: str, error: Exception | None = None) -> None:
        self.calls.append(name)
        if error is not None:
            raise error

    def asgi(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/pay")
        @provider.endpoint(retries=1)
        async def pay() -> None:
            self.note("handler")
            await step.run("pay", self.note, "pay", HTTPException(409, "no money"))

        @app.get("/kind")
        @provider.endpoint(retries=1)
        async def kind() -> str:
            try:
                await step.run("pay", self.note, "pay", CardDeclined("no funds"))
            except CardDeclined:
                return "declined"
            return "paid"

        return provider.asgi(app)

    def wsgi(self, provider: Provider) -> Any:
        app = flask.Flask("shop")

        @app.get("/pay")
        @provider.endpoint(retries=1)
        def pay() -> str:
            self.note("handler")
            blocking.run("pay", self.note, "pay", Conflict("no money"))
            return ""

        @app.get("/kind")
        @provider.endpoint(retries=1)
        def kind() -> str:
            try:
                blocking.run("pay", self.note, "pay", CardDeclined("no funds"))
            except CardDeclined:
                return "declined"
            return "paid"

        return provider.wsgi(app)


async def answer_to(shop: Shop, wsgi: bool, path: str) -> tuple[httpx2.Response, str]:
    """What the caller of an endpoint gets in the end, and how the run ended."""
    async with durable(shop.wsgi if wsgi else shop.asgi, wsgi=wsgi) as world:
        first = await world.client.get(path)
        return await world.follow(first), await world.status(first)


@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_the_last_failure_of_a_step_with_retries_is_the_exception_itself(wsgi: bool) -> None:
    shop = Shop()
    answer, _ = await answer_to(shop, wsgi, "/pay")
    assert (answer.status_code, "no money" in answer.text) == (409, True)
    assert shop.calls == ["handler", "pay"] * 2


@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_the_handler_can_catch_the_last_failure_by_its_kind(wsgi: bool) -> None:
    answer, status = await answer_to(Shop(), wsgi, "/kind")
    assert (answer.text.strip('"'), status) == ("declined", "Completed")
