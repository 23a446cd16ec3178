"""The applications under test. Same work, with and without stephttp."""

from __future__ import annotations

from fastapi import FastAPI

import stephttp
from stephttp import step

bare = FastAPI()
durable = FastAPI()
durable.add_middleware(stephttp.ASGIMiddleware, provider=stephttp.setup("https://api.example.com"))


async def price(item: str) -> int:
    return len(item)


async def reserve(item: str, cents: int) -> dict[str, str | int]:
    return {"item": item, "cents": cents}


@bare.get("/orders/{item}")
async def bare_order(item: str) -> dict[str, str | int]:
    return await reserve(item, await price(item))


@durable.get("/orders/{item}")
async def durable_order(item: str) -> dict[str, str | int]:
    cents = await step.run("price", price, item)
    return await step.run("reserve", reserve, item, cents)


@bare.get("/items/{item}")
@durable.get("/items/{item}")
async def plain_item(item: str) -> dict[str, str | int]:
    """An endpoint without steps."""
    return {"item": item, "cents": len(item)}


@bare.get("/grow/{steps}/{size}")
async def bare_growing(steps: int, size: int) -> dict[str, int]:
    return {"size": sum([len(await text(size)) for _ in range(steps)])}


@durable.get("/grow/{steps}/{size}")
async def growing(steps: int, size: int) -> dict[str, int]:
    """So many steps, each with a result of so many bytes."""
    return {"size": sum([len(await step.run("text", text, size)) for _ in range(steps)])}


async def text(size: int) -> str:
    return "x" * size
