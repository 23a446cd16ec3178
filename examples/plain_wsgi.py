"""An order that is charged at once and shipped later, with nothing but WSGI.

    stephttp dev -- gunicorn --threads 4 examples.plain_wsgi:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import stephttp
from stephttp.sync import step

provider = stephttp.setup("https://api.example.com")


@provider.endpoint()
def orders(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    item: str = json.loads(environ["wsgi.input"].read(length))["item"]
    receipt = step.run("charge", charge, item)
    step.sleep("pack", timedelta(seconds=1))
    parcel = step.run("ship", ship, item)
    headers = [("Content-Type", "application/json"), ("Location", environ["PATH_INFO"])]
    start_response("201 Created", headers)
    answer = json.dumps({"receipt": receipt, "parcel": parcel}, separators=(",", ":"))
    return [answer.encode()]


def charge(item: str) -> str:
    return f"paid for {item}"


def ship(item: str) -> str:
    return f"{item} is on its way"


app = provider.wsgi(orders)
