"""The application of `apps.py` under Flask."""

from __future__ import annotations

from flask import Flask

import stephttp
from stephttp.sync import step

bare = Flask("bare")
durable = Flask("durable")
provider = stephttp.setup("https://api.example.com")
durable.wsgi_app = provider.wsgi(durable.wsgi_app)  # type: ignore[method-assign]


def price(item: str) -> int:
    return len(item)


def reserve(item: str, cents: int) -> dict[str, str | int]:
    return {"item": item, "cents": cents}


@bare.get("/orders/<item>")
def bare_order(item: str) -> dict[str, str | int]:
    return reserve(item, price(item))


@durable.get("/orders/<item>")
def durable_order(item: str) -> dict[str, str | int]:
    cents = step.run("price", price, item)
    return step.run("reserve", reserve, item, cents)
