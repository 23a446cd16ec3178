"""An order that is charged at once and shipped later, with Falcon under ASGI.

    stephttp dev -- uvicorn examples.falcon_asgi:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

from datetime import timedelta

import falcon
import falcon.asgi

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")


class Orders:
    @provider.endpoint()
    async def on_post(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, order_id: int
    ) -> None:
        item: str = (await req.get_media())["item"]
        receipt = await step.run("charge", charge, item)
        await step.sleep("pack", timedelta(seconds=1))
        parcel = await step.run("ship", ship, item)
        resp.status = falcon.HTTP_201
        resp.location = f"/orders/{order_id}"
        resp.media = {"receipt": receipt, "parcel": parcel}


async def charge(item: str) -> str:
    return f"paid for {item}"


async def ship(item: str) -> str:
    return f"{item} is on its way"


api = falcon.asgi.App()
api.add_route("/orders/{order_id:int}", Orders())
app = provider.asgi(api)
