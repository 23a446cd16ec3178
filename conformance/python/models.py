"""Functions whose steps and results are pydantic models, as coroutines and blocking."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field

with warnings.catch_warnings():
    # It defines its models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest


class Line(BaseModel):
    """A line of an order."""

    unit_price: Decimal
    count: int


class Order(BaseModel):
    """An order."""

    placed: datetime
    lines: list[Line] = Field(min_length=1)


PLACED = datetime(2026, 3, 1, 12, tzinfo=UTC)
LINES = [Line(unit_price=Decimal("1.10"), count=2), Line(unit_price=Decimal("0.30"), count=1)]


def seen(order: Order) -> Any:
    """Say what an order is made of, with the types that only models have."""
    total = sum((line.unit_price * line.count for line in order.lines), Decimal())
    return {"types": [type(order).__name__, type(order.lines[0]).__name__], "total": str(total)}


def blocking(client: inngest.Inngest) -> Iterator[inngest.Function[Any]]:
    """Functions that block."""

    def function(fn_id: str, **options: Any) -> Any:
        trigger = inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}")
        return client.create_function(fn_id=fn_id, trigger=trigger, retries=0, **options)

    @function("order", output_type=Order)
    def order(ctx: inngest.ContextSync) -> Order:
        lines = ctx.step.run("lines", lambda: LINES, output_type=list[Line])
        return ctx.step.run(
            "order", lambda: Order(placed=PLACED, lines=lines[:1] + lines), output_type=Order
        )

    @function("models")
    def models(ctx: inngest.ContextSync) -> Any:
        return seen(ctx.step.invoke("order", function=order))

    yield from (order, models)


def coroutines(client: inngest.Inngest) -> Iterator[inngest.Function[Any]]:
    """Functions that are coroutines."""

    def function(fn_id: str, **options: Any) -> Any:
        trigger = inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}")
        return client.create_function(fn_id=fn_id, trigger=trigger, retries=0, **options)

    async def find() -> list[Line]:
        return LINES

    async def place(lines: list[Line]) -> Order:
        return Order(placed=PLACED, lines=lines[:1] + lines)

    @function("order", output_type=Order)
    async def order(ctx: inngest.Context) -> Order:
        lines = await ctx.step.run("lines", find, output_type=list[Line])
        return await ctx.step.run("order", place, lines, output_type=Order)

    @function("models")
    async def models(ctx: inngest.Context) -> Any:
        return seen(await ctx.step.invoke("order", function=order))

    yield from (order, models)
