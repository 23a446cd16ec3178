"""One application, three times: FastAPI with async tools, FastAPI with blocking ones, and Flask.

Its providers are made at import, as applications make them: with a production domain and a key, or
with nothing at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from fastapi import FastAPI, Request
from flask import Flask, request

import stephttp
from stephttp import step
from stephttp.sync import step as blocking

KEY = "ab" * 16
MONTH = timedelta(days=30)


class Bank:
    """A bank that is away for a while."""

    def __init__(self) -> None:
        self.failures = 0
        self.charged: list[str] = []

    def charge(self, order: str) -> dict[str, str]:
        """Charge an order."""
        if self.failures:
            self.failures -= 1
            raise TimeoutError("the bank does not answer")
        self.charged.append(order)
        return {"id": f"charge-{order}"}


def fastapi_shop() -> tuple[Any, Bank]:
    """The shop with `async def` handlers."""
    provider = stephttp.setup("https://shop.example.com", signing_key=KEY)
    app, bank = FastAPI(), Bank()
    app.add_middleware(stephttp.ASGIMiddleware, provider=provider)

    @app.post("/orders/{order}", status_code=201)
    @provider.endpoint(id="place-order", retries=3)
    async def place_order(order: str) -> dict[str, Any]:
        charge = await step.run("charge", bank.charge, order)
        mail, crm = await asyncio.gather(
            step.run("mail", lambda: "sent"), step.run("crm", lambda: "known")
        )
        await step.sleep("cool-off", MONTH)
        packed = await step.wait_for_event(
            "packed", event="order/packed", match={"data.id": order}, timeout=timedelta(days=3)
        )
        return {"charge": charge, "both": [mail, crm], "packed": packed is not None}

    @app.get("/approvals/{name}")
    async def approval(name: str) -> str:
        by = await step.wait_for_signal("by", signal=name, timeout=timedelta(days=3))
        return "rejected" if by is None else f"approved by {by.data}"

    @app.get("/plain")
    async def plain(request: Request) -> str:
        return request.headers.get("x-user", "anonymous")

    @app.get("/bug")
    async def bug() -> None:
        await step.run("fine", lambda: 1)
        raise ZeroDivisionError("a bug")

    return app, bank


def blocking_shop() -> tuple[Any, Bank]:
    """The shop with `def` handlers under ASGI."""
    provider = stephttp.setup("https://shop.example.com")
    app, bank = FastAPI(), Bank()
    handlers = _blocking_handlers(bank)
    app.post("/orders/{order}", status_code=201)(
        provider.endpoint(id="place-order", retries=3)(handlers["place_order"])
    )
    app.get("/approvals/{name}")(handlers["approval"])
    app.get("/bug")(handlers["bug"])

    @app.get("/plain")
    def plain(request: Request) -> str:
        return request.headers.get("x-user", "anonymous")

    return provider.asgi(app), bank


def flask_shop() -> tuple[Any, Bank]:
    """The shop under WSGI."""
    provider = stephttp.setup("https://shop.example.com", signing_key=KEY)
    app, bank = Flask("shop"), Bank()
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.wsgi_app = provider.wsgi(app.wsgi_app)  # type: ignore[method-assign]
    handlers = _blocking_handlers(bank)

    @app.post("/orders/<order>")
    @provider.endpoint(id="place-order", retries=3)
    def place_order(order: str) -> Any:
        return handlers["place_order"](order), 201

    @app.get("/approvals/<name>")
    def approval(name: str) -> str:
        return f'"{handlers["approval"](name)}"'

    @app.get("/bug")
    def bug() -> str:
        return str(handlers["bug"]())

    @app.get("/plain")
    def plain() -> str:
        return f'"{request.headers.get("x-user", "anonymous")}"'

    return app, bank


def _blocking_handlers(bank: Bank) -> dict[str, Callable[..., Any]]:
    def place_order(order: str) -> dict[str, Any]:
        charge = blocking.run("charge", bank.charge, order)
        both = blocking.parallel(
            (
                lambda: blocking.run("mail", lambda: "sent"),
                lambda: blocking.run("crm", lambda: "known"),
            )
        )
        blocking.sleep("cool-off", MONTH)
        packed = blocking.wait_for_event(
            "packed", event="order/packed", match={"data.id": order}, timeout=timedelta(days=3)
        )
        return {"charge": charge, "both": list(both), "packed": packed is not None}

    def approval(name: str) -> str:
        by = blocking.wait_for_signal("by", signal=name, timeout=timedelta(days=3))
        return "rejected" if by is None else f"approved by {by.data}"

    def bug() -> None:
        blocking.run("fine", lambda: 1)
        raise ZeroDivisionError("a bug")

    return {"place_order": place_order, "approval": approval, "bug": bug}
