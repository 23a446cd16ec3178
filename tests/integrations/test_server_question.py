"""A process that does not know its server learns what it is only from the server itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

import stephttp
from stephttp import Provider, step
from tests.durable import durable
from tests.integrations.worlds import NAP
from tests.realserver import RealServer

FOREIGN = {
    "a gateway's 404": (404, "application/json", b'{"message":"no route"}'),
    "an empty 503": (503, "", b""),
    "a gateway's 200": (200, "application/json", b'{"healthy":true}'),
    "an empty 200": (200, "", b""),
    "a page": (200, "text/html", b"<p>It works"),
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_foreign_answer_says_nothing_of_our_engine(name: str) -> None:
    status, kind, body = FOREIGN[name]

    def build(provider: Provider) -> Any:
        app = FastAPI()
        pack = provider.endpoint(id="pack")(lambda: "packed")

        @app.post("/nap")
        async def nap() -> str:
            stephttp.configure(retries=1)
            await step.sleep("nap", NAP)
            return "ok"

        @app.post("/pack")
        async def packs() -> None:
            await step.invoke("pack", function=pack, timeout=timedelta(days=1))

        return provider.asgi(app)

    async with durable(build) as world:
        send, asked = world.to_engine.handle_async_request, list[str]()

        async def between(request: httpx2.Request) -> httpx2.Response:
            asked.append(request.url.path)
            if request.url.path == "/health":
                headers = {"content-type": kind} if kind else {}
                return httpx2.Response(status, headers=headers, content=body)
            return await send(request)

        world.to_engine.handle_async_request = between  # type: ignore[method-assign]
        keys = world.provider.runtime.checkpoints.keys
        for path in ("/nap", "/pack"):
            answer = await world.client.post(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert keys.features is None
        assert "/v1/http/runs" not in asked
        world.to_engine.handle_async_request = send  # type: ignore[method-assign]
        assert (await world.client.post("/nap")).status_code == 303
        assert keys.features


async def test_an_inngest_server_is_known_by_its_health_where_its_marks_are_dropped() -> None:
    server = RealServer()
    app = FastAPI()

    @app.get("/")
    async def nap() -> str:
        stephttp.configure(retries=1)
        await step.sleep("nap", NAP)
        return "ok"

    server.app = server.provider().asgi(app)
    send = server.settings.answer

    async def between(request: httpx2.Request) -> httpx2.Response:
        answer = await send(request)
        answer.headers.pop("x-inngest-server-kind", None)
        return answer

    server.settings.answer = between  # type: ignore[method-assign]
    assert (await server.finish(await server.client().get("/"))).json() == "ok"
    (run,) = server.runs.values()
    assert run.function.config.retries == 20
