"""A shop whose callers wait, as ASGI (`app`) and WSGI (`application`); for `result_places`.

`RESULT_PATH` says whether it serves results itself.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import stephttp
from stephttp import step
from stephttp.provider import Provider
from stephttp.sync import step as sync_step

provider: Provider = stephttp.setup(
    os.environ["SHOP_ORIGIN"], result_path=os.environ.get("RESULT_PATH"), hold=10
)


FORM = b"""<!doctype html><title>Shop</title><link rel=icon href=data:,>
<form method=post action=/checkout><button>Order</button></form>"""


async def _shop(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["method"] == "GET":
        await _answer(send, 200, [(b"content-type", b"text/html")], FORM)
    else:
        await _checkout(send)


async def _checkout(send: Any) -> None:
    await step.run("charge-card", lambda: 7)
    await step.wait_for_event("paid", event="order/paid", timeout=timedelta(hours=1))
    headers = [(b"content-type", b"text/plain"), (b"x-receipt", b"7")]
    await _answer(send, 201, headers, b"receipt")


async def _answer(send: Any, status: int, headers: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _nap(environ: Any, start_response: Any) -> list[bytes]:
    sync_step.sleep("nap", timedelta(seconds=1))
    start_response("201 Created", [("content-type", "text/plain"), ("x-receipt", "7")])
    return [b"receipt"]


app = provider.asgi(_shop)
application = provider.wsgi(_nap)
