"""What a process declares as retries while it does not know its server: a real one keeps the number
for all runs of the endpoint, and our engine has that of each run (docs/protocol.md 13.6, R1)."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask, request

import stephttp
from stephttp import Checkpointing, Provider, step
from stephttp.sync import step as blocking
from tests.durable import durable
from tests.integrations.worlds import NAP
from tests.realserver import RealServer

OPTIONS: dict[str, dict[str, Any]] = {
    "at the end": {},
    "at once": {"checkpointing": Checkpointing.safe},
}
"""When a run is reported."""
KINDS = pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
WHEN = pytest.mark.parametrize("when", OPTIONS)


class Shop:
    """An endpoint that fails `failures` times after a wait; without one it has no retries."""

    def __init__(self, wsgi: bool, failures: int = 0) -> None:
        self.wsgi, self.failures = wsgi, failures

    def fail(self) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError
        return "ok"

    def build(self, provider: Provider) -> Any:
        if self.wsgi:
            flask = Flask("app")

            @flask.get("/")
            def plain() -> str:
                waits = "waits" in request.args
                stephttp.configure(id="shop", retries=3 if waits else 0)
                blocking.run("a", str)
                if waits:
                    blocking.sleep("nap", NAP)
                return self.fail() if waits else "ended"

            return provider.wsgi(flask)
        app = FastAPI()

        @app.get("/")
        async def handler(waits: str = "") -> str:
            stephttp.configure(id="shop", retries=3 if waits else 0)
            await step.run("a", str)
            if waits:
                await step.sleep("nap", NAP)
            return self.fail() if waits else "ended"

        return provider.asgi(app)


@KINDS
@WHEN
async def test_r1_runs_that_end_in_a_new_process_leave_the_waiting_ones_their_retries(
    wsgi: bool, when: str
) -> None:
    server, shop = RealServer(wsgi=wsgi), Shop(wsgi, failures=3)

    async def deploy() -> Provider:
        provider = server.provider(**OPTIONS[when])
        server.app = shop.build(provider)
        return provider

    await deploy()
    waiting = await server.client().get("/?waits=1")
    for _ in range(2):
        provider = await deploy()
        assert (await server.client().get("/")).status_code == 200
        assert await provider.wait(5)
    assert (await server.finish(waiting)).status_code == 200
    sent = [call for call in server.api if call.url.path == "/v1/http/runs"]
    assert len(sent) == len(server.runs) == 3
    assert {json.loads(call.content)["retries"] for call in sent} == {20}


@KINDS
@WHEN
async def test_our_engine_gets_the_number_of_each_run(wsgi: bool, when: str) -> None:
    async with durable(Shop(wsgi).build, wsgi=wsgi, **OPTIONS[when]) as world:
        send, seen = world.to_engine.handle_async_request, list[tuple[int, int, int]]()

        async def reads(request: httpx2.Request) -> httpx2.Response:
            answer = await send(request)
            if request.url.path == "/v1/http/runs":
                body = json.loads(request.content)
                run = await world.api.get(f"/v1/stephttp/runs/{body['run_id']}")
                declared = body["retries"], body.get("own_retries", body["retries"])
                seen.append((*declared, run.json()["data"]["retries"]))
            return answer

        world.to_engine.handle_async_request = reads  # type: ignore[method-assign]
        for path, retries in (("/", 0), ("/?waits=1", 3)):
            await world.client.get(path)
            await world.provider.wait(5)
            # As the process dies after any of them, the engine continues the run as this says.
            assert {one[1:] for one in seen} == {(retries, retries)}
            # A run that waits may have asked before what the server is.
            assert seen[0][0] in ({20} if path == "/" else {20, retries})
            seen.clear()
            await world.restart_app()
