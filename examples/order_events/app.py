"""An order that is packed by a function: a durable endpoint, and a function that an event starts.

    stephttp dev -- uvicorn examples.order_events.app:app

The function is one of PyPI `inngest`. With `StepMiddleware` it has the step tools of stephttp, so
that `tell` is written once, for it and for the endpoint.
"""

from __future__ import annotations

from datetime import timedelta

import inngest
import inngest.fast_api
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import stephttp
from stephttp import Event, step
from stephttp.integrations.inngest import StepMiddleware, setup

PACKING = timedelta(days=3)

client = inngest.Inngest(app_id="shop", middleware=[StepMiddleware])
provider = setup(client, "https://api.example.com")
app = FastAPI(title="Orders")
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)

messages: list[str] = []
"""All that `tell` has said. A step runs once, so each is there once."""


class Order(BaseModel):
    id: str
    item: str


class Parcel(BaseModel):
    order: Order
    shelf: int


class Receipt(BaseModel):
    charge: str
    shelf: int
    told: str


# The endpoint.


@app.post("/orders", status_code=201)
@provider.endpoint(id="place-order")
async def place_order(order: Order) -> Receipt:
    charge = await step.run("charge", charge_card, order)
    told = await tell("the customer", f"{order.item} is paid")
    await step.send_event("placed", Event(name="order/placed", data=order.model_dump()))
    packed = await step.wait_for_event(
        "packed", event="order/packed", match={"data.order.id": order.id}, timeout=PACKING
    )
    if packed is None:
        raise HTTPException(504, f"{order.item} was not packed in time")
    parcel = Parcel.model_validate(packed.data)
    return Receipt(charge=charge, shelf=parcel.shelf, told=told)


# The function.


@client.create_function(fn_id="pack", trigger=inngest.TriggerEvent(event="order/placed"))
async def pack(ctx: inngest.Context) -> str:
    order = Order.model_validate(ctx.event.data)
    parcel = await step.run("find-shelf", find_shelf, order)
    told = await tell("the warehouse", f"{parcel.order.item} is on shelf {parcel.shelf}")
    await step.send_event("packed", Event(name="order/packed", data=parcel.model_dump()))
    return told


# What both use: steps, and what they do.


async def tell(who: str, what: str) -> str:
    """Tell a person something, once, wherever this is called."""
    await step.sleep(f"wait for {who}", timedelta(milliseconds=100))
    return await step.run(f"tell {who}", write, who, what)


def charge_card(order: Order) -> str:
    return f"paid for {order.item}"


def find_shelf(order: Order) -> Parcel:
    return Parcel(order=order, shelf=len(order.item))


def write(who: str, what: str) -> str:
    messages.append(f"{who}: {what}")
    return messages[-1]


@app.get("/messages")
def all_messages() -> list[str]:
    return messages


inngest.fast_api.serve(app, client, [pack])
