"""Work whose instructions are counted: `python -m benchmarks.counted TIMES`.

No sockets and no clock but the system's, so that the same work takes the same instructions.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.bench_core import one_run
from stephttp import step
from stephttp._client.flow import Flow
from stephttp.options import resolve
from stephttp.provider import Provider

STEPS = 10
_SETTINGS = resolve("http://app", base_url="http://engine", environ={"INNGEST_DEV": "1"})
_HEADERS = [(b"host", b"app"), (b"accept", b"*/*"), (b"user-agent", b"counted")]


def deliver(batch: Any) -> Flow[list[None]]:
    """A stand-in for the server, which accepts what the outbox sends."""
    yield from ()
    return [None] * len(batch)


provider = Provider(_SETTINGS)
provider.runtime.outbox.deliver = deliver
provider.runtime.outbox.batches = lambda: True


async def price(item: str) -> int:
    return len(item)


async def reserve(item: str, cents: int) -> dict[str, str | int]:
    return {"item": item, "cents": cents}


async def handler(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/steps":
        cents = await step.run("price", price, "book")
        await step.run("reserve", reserve, "book", cents)
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


app = provider.asgi(handler)


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    pass


async def request(path: str) -> None:
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": _HEADERS, "client": ("127.0.0.1", 4000), "scheme": "http",
        "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)


async def core() -> None:
    one_run(STEPS)


async def empty_core() -> None:
    one_run(0)


WORK: dict[str, Callable[[], Awaitable[None]]] = {
    "core": core,
    "empty-core": empty_core,
    "plain": lambda: request("/plain"),
    "steps": lambda: request("/steps"),
}


def mark() -> None:
    """Start a new count: callgrind watches for this system call, which nothing else makes."""
    os.getppid()


async def main(times: int) -> None:
    for work in WORK.values():  # so that all start with warm caches
        for _ in range(20):
            await work()
    await provider.wait()
    for work in WORK.values():
        mark()
        for number in range(times):
            await work()
            if number % 16 == 15:
                await asyncio.sleep(0)
        await provider.wait()
    mark()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
