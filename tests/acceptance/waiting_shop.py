"""A shop whose callers wait, as ASGI (`app`) and WSGI (`application`); for test_result_clients.

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
    os.environ["SHOP_ORIGIN"], result_path=os.environ.get("RESULT_PATH"), hold=2
)


async def _checkout(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await step.wait_for_event("paid", event="order/paid", timeout=timedelta(hours=1))
    headers = [(b"content-type", b"text/plain"), (b"x-receipt", b"7")]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": b"receipt"})


def _nap(environ: Any, start_response: Any) -> list[bytes]:
    sync_step.sleep("nap", timedelta(seconds=1))
    start_response("201 Created", [("content-type", "text/plain"), ("x-receipt", "7")])
    return [b"receipt"]


app = provider.asgi(_checkout)
application = provider.wsgi(_nap)
