"""An order that is charged at once and shipped later, with Starlette.

    stephttp dev -- uvicorn examples.starlette_app:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

from datetime import timedelta

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")


@provider.endpoint()
async def place_order(request: Request) -> JSONResponse:
    order_id, order = request.path_params["order_id"], await request.json()
    receipt = await step.run("charge", charge, order["item"])
    await step.sleep("pack", timedelta(seconds=1))
    parcel = await step.run("ship", ship, order["item"])
    return JSONResponse(
        {"receipt": receipt, "parcel": parcel}, 201, {"Location": f"/orders/{order_id}"}
    )


async def charge(item: str) -> str:
    return f"paid for {item}"


async def ship(item: str) -> str:
    return f"{item} is on its way"


app = Starlette(
    routes=[Route("/orders/{order_id:int}", place_order, methods=["POST"])],
    middleware=[Middleware(stephttp.ASGIMiddleware, provider=provider)],
)
