"""An order that is charged at once and shipped later, with Falcon under WSGI.

    stephttp dev -- gunicorn --threads 4 examples.falcon_wsgi:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

from datetime import timedelta

import falcon

import stephttp
from stephttp.sync import step

provider = stephttp.setup("https://api.example.com")


class Orders:
    @provider.endpoint()
    def on_post(self, req: falcon.Request, resp: falcon.Response, order_id: int) -> None:
        item: str = req.get_media()["item"]
        receipt = step.run("charge", charge, item)
        step.sleep("pack", timedelta(seconds=1))
        parcel = step.run("ship", ship, item)
        resp.status = falcon.HTTP_201
        resp.location = f"/orders/{order_id}"
        resp.media = {"receipt": receipt, "parcel": parcel}


def charge(item: str) -> str:
    return f"paid for {item}"


def ship(item: str) -> str:
    return f"{item} is on its way"


api = falcon.App()
api.add_route("/orders/{order_id:int}", Orders())
app = provider.wsgi(api)
