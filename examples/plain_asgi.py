"""An order that is charged at once and shipped later, with nothing but ASGI.

    stephttp dev -- uvicorn examples.plain_asgi:app
    curl -i -L localhost:8000/orders/7 -H 'Content-Type: application/json' -d '{"item": "a book"}'

curl shows a 303, waits a second, and shows the handler's 201.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import stephttp
from stephttp import step

provider = stephttp.setup("https://api.example.com")

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@provider.endpoint()
async def orders(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP is spoken here")
    item: str = json.loads(await body_of(receive))["item"]
    receipt = await step.run("charge", charge, item)
    await step.sleep("pack", timedelta(seconds=1))
    parcel = await step.run("ship", ship, item)
    headers = [(b"content-type", b"application/json"), (b"location", scope["path"].encode())]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    answer = json.dumps({"receipt": receipt, "parcel": parcel}, separators=(",", ":"))
    await send({"type": "http.response.body", "body": answer.encode()})


async def body_of(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def charge(item: str) -> str:
    return f"paid for {item}"


async def ship(item: str) -> str:
    return f"{item} is on its way"


app = provider.asgi(orders)
