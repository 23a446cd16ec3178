"""An order that is charged at once and shipped later, with Litestar.

    stephttp dev -- uvicorn examples.litestar_app:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

from dataclasses import dataclass
from datetime import timedelta

from litestar import Litestar, Response, post
from litestar.params import FromPath, JSONBody

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")


@dataclass
class Order:
    item: str


@post("/orders/{order_id:int}")
@provider.endpoint()
async def place_order(order_id: FromPath[int], data: JSONBody[Order]) -> Response[dict[str, str]]:
    receipt = await step.run("charge", charge, data)
    await step.sleep("pack", timedelta(seconds=1))
    parcel = await step.run("ship", ship, data)
    return Response(
        {"receipt": receipt, "parcel": parcel}, headers={"Location": f"/orders/{order_id}"}
    )


async def charge(order: Order) -> str:
    return f"paid for {order.item}"


async def ship(order: Order) -> str:
    return f"{order.item} is on its way"


app = provider.asgi(Litestar([place_order]))
