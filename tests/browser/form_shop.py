"""A shop with a plain form, whose handler waits for the payment; for test_waiting_page."""

from __future__ import annotations

import os
from datetime import timedelta

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

import stephttp
from stephttp import step

provider = stephttp.setup(os.environ["SHOP_ORIGIN"], result_path="/_result", hold=2)
app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


@app.get("/")
async def form() -> HTMLResponse:
    return HTMLResponse(
        "<!doctype html><title>Shop</title>"
        "<form method=post action=/orders><button>Order</button></form>"
    )


@app.post("/orders")
@provider.endpoint(id="place-order")
async def order() -> HTMLResponse:
    await step.run("charge-card", lambda: 7)
    await step.wait_for_event("paid", event="order/paid", timeout=timedelta(days=3))
    return HTMLResponse("<!doctype html><h1>Thank you</h1>", 201, {"x-receipt": "7"})
