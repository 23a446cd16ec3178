"""A request must leave nothing behind that only the garbage collector finds: with a cycle in it,
all that the framework made for the request would stay until then."""

import asyncio
import gc
from typing import Any

from stephttp import step
from stephttp._asgi.common import Receive, Scope, Send
from stephttp.options import resolve
from stephttp.provider import Provider


async def double(number: int) -> int:
    return 2 * number


async def handler(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/steps":
        await step.run("double", double, 2)
        await asyncio.gather(step.run("a", double, 3), step.run("b", double, 4))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


async def test_requests_leave_no_reference_cycles() -> None:
    settings = resolve("http://app", base_url="http://engine", environ={"INNGEST_DEV": "1"})
    provider = Provider(settings)
    provider.outbox.put = lambda item: True  # type: ignore[method-assign]
    app = provider.asgi(handler)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    async def request(path: str) -> None:
        headers = [(b"host", b"app")]
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
        await app(scope, receive, send)

    for path in ("/plain", "/steps"):
        await request(path)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                await request(path)
            left = gc.collect()
        finally:
            gc.enable()
        assert left < 10, f"{path}: {left} objects of 10 requests were left"
