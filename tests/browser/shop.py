"""The application of the browser tests and the screenshots: a shop whose orders do a bit of all,
and a function that starts with events."""

from __future__ import annotations

import asyncio
import os
import warnings
from datetime import timedelta
from typing import Any

from fastapi import FastAPI, HTTPException, Request

import stephttp
from stephttp import step

with warnings.catch_warnings():
    # It defines its models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest
    import inngest.fast_api

app = FastAPI()
provider = stephttp.setup(os.environ["SHOP_ORIGIN"])
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


@app.post("/orders", status_code=201)
@provider.endpoint(id="place-order", retries=2)
async def place_order(order: dict[str, Any]) -> dict[str, Any]:
    """Charges a card, waits for the parcel to be packed, and ships it."""
    receipt = await step.run("charge-card", charge, order)
    stock, _ = await asyncio.gather(
        step.run("reserve-stock", reserve, order), step.run("confirm-by-mail", mail, order)
    )
    packed = await step.wait_for_event(
        "parcel-packed",
        event="order/packed",
        if_exp=f"async.data.order == '{order['id']}'",
        timeout=timedelta(days=3),
    )
    parcel = await step.run("ship", ship, order)
    return {"receipt": receipt, "stock": stock, "parcel": parcel, "packed": packed is not None}


@app.post("/signups", status_code=201)
@provider.endpoint(id="sign-up")
async def sign_up(user: dict[str, Any]) -> dict[str, Any]:
    """Sleeps, which is what can be resumed at once."""
    created = await step.run("create-user", create, user)
    await step.sleep("cool-off", timedelta(seconds=float(user.get("wait", 3600))))
    sent = await step.run("welcome-mail", mail, user)
    return {"user": created, "sent": sent}


@app.post("/imports")
@provider.endpoint(id="import-catalogue", retries=3)
async def import_catalogue(job: dict[str, Any]) -> dict[str, Any]:
    """Fails some times, or for good."""
    rows = await step.run("download", download, job)
    saved = await step.run("save-rows", save, job)
    return {"rows": rows, "saved": saved}


@app.get("/prices/{sku}")
@provider.endpoint(id="get-price")
async def get_price(sku: str, request: Request) -> dict[str, Any]:
    """Never waits."""
    price = await step.run("look-up", look_up, sku)
    if price is None:
        raise HTTPException(404, "no such article")
    return {"sku": sku, "price": price}


functions = inngest.Inngest(app_id="shop", is_production=False)


@functions.create_function(
    fn_id="send-invoice",
    name="Send an invoice",
    trigger=[
        inngest.TriggerEvent(event="order/paid", expression="event.data.total > 0"),
        inngest.TriggerEvent(event="order/changed"),
    ],
    concurrency=[inngest.Concurrency(limit=3, key="event.data.customer")],
    priority=inngest.Priority(run="event.data.urgent ? 120 : 0"),
    retries=2,
)
async def send_invoice(ctx: inngest.Context) -> dict[str, Any]:
    """Starts with an event."""
    total = ctx.event.data.get("total", 0)
    sent = await ctx.step.run("mail-invoice", mail, dict(ctx.event.data))
    return {"total": total, "sent": sent}


@functions.create_function(
    fn_id="print-label",
    trigger=inngest.TriggerEvent(event="parcel/packed"),
    throttle=inngest.Throttle(limit=1, period=timedelta(hours=1), key="event.data.printer"),
)
async def print_label(ctx: inngest.Context) -> None:
    """Waits for its turn."""


@functions.create_function(
    fn_id="clean-up",
    trigger=inngest.TriggerEvent(event="day/ended"),
    debounce=inngest.Debounce(period=timedelta(hours=1)),
)
async def clean_up(ctx: inngest.Context) -> None:
    """Starts late, and is there to be paused."""


inngest.fast_api.serve(app, functions, [send_invoice, print_label, clean_up])


async def charge(order: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.03)
    return {"id": f"ch_{order['id']}", "amount": order.get("amount", 4200), "currency": "EUR"}


async def reserve(order: dict[str, Any]) -> list[str]:
    await asyncio.sleep(0.02)
    return [str(item) for item in order.get("items", [])]


async def mail(to: dict[str, Any]) -> str:
    await asyncio.sleep(0.045)
    return "250 2.0.0 queued"


async def ship(order: dict[str, Any]) -> str:
    await asyncio.sleep(0.015)
    return f"parcel for {order['id']}"


async def create(user: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.02)
    return {"id": 17, "name": user.get("name", "")}


async def download(job: dict[str, Any]) -> int:
    await asyncio.sleep(0.06)
    return 1250


_tries: dict[str, int] = {}


async def save(job: dict[str, Any]) -> int:
    await asyncio.sleep(0.02)
    name = str(job.get("name"))
    _tries[name] = _tries.get(name, 0) + 1
    if _tries[name] <= int(job.get("failures", 0)):
        raise ConnectionError("could not connect to db.internal:5432: timeout after 20 ms")
    return 1250


async def look_up(sku: str) -> int | None:
    await asyncio.sleep(0.004)
    return None if sku.startswith("missing") else 1999
