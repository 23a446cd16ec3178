"""An order that is charged at once and shipped later, with Quart.

    stephttp dev -- uvicorn examples.quart_app:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

from datetime import timedelta

from quart import Quart, request

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")
app = Quart(__name__)
app.asgi_app = provider.asgi(app.asgi_app)  # type: ignore[method-assign]


@app.post("/orders/<int:order_id>")
@provider.endpoint()
async def place_order(order_id: int) -> tuple[dict[str, str], int, dict[str, str]]:
    item: str = (await request.get_json())["item"]
    receipt = await step.run("charge", charge, item)
    await step.sleep("pack", timedelta(seconds=1))
    parcel = await step.run("ship", ship, item)
    return {"receipt": receipt, "parcel": parcel}, 201, {"Location": f"/orders/{order_id}"}


async def charge(item: str) -> str:
    return f"paid for {item}"


async def ship(item: str) -> str:
    return f"{item} is on its way"
