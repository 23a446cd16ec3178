"""Calls of an endpoint by one HTTP client, in a process of its own; and the endpoint.

python -m benchmarks.calls stephttp|aiohttp URL CONCURRENCY CALLS

It prints the microseconds of this process's processor time for a call.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from stephttp.engine.outbound.client import Client
from stephttp.engine.outbound.connection import HTTPRequest, decoded
from stephttp.engine.outbound.egress import Egress, parse_rule
from stephttp.engine.rules.answers import HTTPResponse

BODY = b'{"ctx":{"run_id":"01HZ0000000000000000000000"},"steps":{"price":"%s"}}' % (b"x" * 960)
SENT = {
    "user-agent": "Inngest",
    "accept-encoding": "gzip",
    "content-type": "application/json",
    "x-run-id": "01HZ0000000000000000000000",
    "x-request-id": "01HZ0000000000000000000001",
    "x-inngest-signature": "t=1732462323&s=" + "5" * 64,
    "x-inngest-generation-id": "1",
    "x-stephttp-attempt": "0",
    "x-inngest-job-id": "01HZ0000000000000000000002",
    "x-inngest-req-version": "2",
    "traceparent": "00-0000018f000000000000000000000000-0123456789abcdef-01",
    "x-inngest-step-id": "step",
}
ANSWERED = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
    (b"x-inngest-sdk", b"stephttp:0.1"),
    (b"x-inngest-req-version", b"2"),
    (b"x-run-id", b"01HZ0000000000000000000000"),
]
LIMIT = 8 * 1024 * 1024
WARM_UP = 500
TIMEOUT = 7200.0
CONNECT_TIMEOUT = 10.0
KEEP_ALIVE = 1.0


async def endpoint(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers as an endpoint does."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 206, "headers": ANSWERED})
    await send({"type": "http.response.body", "body": BODY})


def ours(
    egress: Egress, concurrency: int
) -> tuple[Callable[[HTTPRequest], Awaitable[HTTPResponse]], Any]:
    """Return the engine's client, as `Caller.call` uses it."""
    client = Client(egress, CONNECT_TIMEOUT, concurrency, KEEP_ALIVE)

    async def call(request: HTTPRequest) -> HTTPResponse:
        async with asyncio.timeout(TIMEOUT):
            return decoded(await client.send(request, LIMIT), LIMIT)

    return call, client


def theirs(egress: Egress) -> tuple[Callable[[HTTPRequest], Awaitable[HTTPResponse]], Any]:
    """Return aiohttp's client, which has its own timeouts and decodes bodies."""
    # Not a plain import, because only the benchmarks have aiohttp, and mypy would look for it.
    peer: Any = importlib.import_module("benchmarks.peers.aiohttp_client")
    client = peer.Client(egress, CONNECT_TIMEOUT, TIMEOUT, KEEP_ALIVE)
    return (lambda request: client.send(request, LIMIT)), client


async def measure(which: str, url: str, concurrency: int, calls: int) -> float:
    """Return the microseconds of processor time a call."""
    egress = Egress([parse_rule("127.0.0.1")], private=False)
    call, client = ours(egress, concurrency) if which == "stephttp" else theirs(egress)
    request = HTTPRequest("POST", url, "/orders/a%2Fb?fnId=app-order&stepId=step", SENT, BODY)

    async def worker(count: int) -> None:
        for _ in range(count):
            answer = await call(request)
            assert (answer.status, len(answer.body)) == (206, len(BODY))

    async def load(count: int) -> None:
        await asyncio.gather(*(worker(count // concurrency) for _ in range(concurrency)))

    await load(WARM_UP)
    began = time.process_time()
    await load(calls)
    used = time.process_time() - began
    await client.close()
    return used / (calls // concurrency * concurrency) * 1e6


if __name__ == "__main__":
    which, url, concurrency, calls = sys.argv[1:]
    print(uvloop.run(measure(which, url, int(concurrency), int(calls))))
