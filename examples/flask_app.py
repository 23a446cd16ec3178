"""An order that is charged at once and shipped later, with Flask.

    stephttp dev -- gunicorn --threads 4 examples.flask_app:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

from datetime import timedelta

from flask import Flask, request

import stephttp
from stephttp.sync import step

provider = stephttp.setup("https://api.example.com")
app = Flask(__name__)
app.wsgi_app = provider.wsgi(app.wsgi_app)  # type: ignore[method-assign]


@app.post("/orders/<int:order_id>")
@provider.endpoint()
def place_order(order_id: int) -> tuple[dict[str, str], int, dict[str, str]]:
    item: str = request.get_json()["item"]
    receipt = step.run("charge", charge, item)
    step.sleep("pack", timedelta(seconds=1))
    parcel = step.run("ship", ship, item)
    return {"receipt": receipt, "parcel": parcel}, 201, {"Location": f"/orders/{order_id}"}


def charge(item: str) -> str:
    return f"paid for {item}"


def ship(item: str) -> str:
    return f"{item} is on its way"
