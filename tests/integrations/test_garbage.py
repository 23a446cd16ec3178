"""A request must leave nothing behind that only the garbage collector finds: with a cycle in it,
all that the framework made for the request would stay until then."""

import asyncio
import gc
import weakref
from contextvars import Context, copy_context
from typing import Any

import pytest

from stephttp import step
from stephttp._adapters.asgi.messages import Receive, Scope, Send
from stephttp._run.first_call import FirstCall
from stephttp.options import resolve
from stephttp.provider import Provider
from tests.durable import durable
from tests.integrations.test_checkpointing import delivered
from tests.integrations.test_idempotency import HEADER, Shop, post


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
    provider.runtime.outbox.put = lambda item: True  # type: ignore[method-assign]
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


class Known(dict[str, Any]):
    """A scope that can be looked for."""


@pytest.mark.parametrize("steps", [0, 1])
async def test_a_copied_context_does_not_keep_the_request(steps: int) -> None:
    kept: list[Context] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for number in range(steps):
            await step.run("double", double, number)
        kept.append(copy_context())  # as every timer and every task does
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    settings = resolve("http://app", base_url="http://engine", environ={"INNGEST_DEV": "1"})
    provider = Provider(settings)
    provider.runtime.outbox.put = lambda item: True  # type: ignore[method-assign]
    scope = Known(type="http", method="POST", path="/", headers=[(b"host", b"app")])
    alive = weakref.ref(scope)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 1000, "more_body": False}

    async def send(message: Any) -> None:
        pass

    await provider.asgi(handler)(scope, receive, send)
    del scope
    assert kept
    assert alive() is None


async def test_a_stored_answer_leaves_no_reference_cycles() -> None:
    async with durable(Shop().build, idempotency_header=HEADER) as world:
        await post(world)
        await delivered(world)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                await post(world)
            gc.collect()
            left = [one for one in gc.garbage if isinstance(one, FirstCall)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []
