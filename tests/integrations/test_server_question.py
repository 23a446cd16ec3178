"""A process that does not know its server learns what it is only from the server itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask

import stephttp
from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.durable import durable
from tests.integrations.worlds import NAP
from tests.realserver import SERVER, RealServer

FOREIGN = {
    "a gateway's 404": (404, "application/json", b'{"message":"no route"}'),
    "an empty 503": (503, "", b""),
    "a gateway's 200": (200, "application/json", b'{"healthy":true}'),
    "an empty 200": (200, "", b""),
    "JSON that is nested too deeply": (200, "application/json", b"[" * 100_000),
    "a page": (200, "text/html", b"<p>It works"),
    "a page's 404": (404, "text/html", b"<p>Not found"),
    "a login": (302, "text/html", b""),
}
KINDS = pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])


def foreign(name: str) -> httpx2.Response:
    """The answer of something between."""
    status, kind, body = FOREIGN[name]
    headers = {"content-type": kind} if kind else {}
    return httpx2.Response(status, headers=headers, content=body)


def behind(send: Callable[..., Any], name: str = "", *, marks: bool = True) -> Any:
    """Put a gateway before a server.

    Args:
        send: to the server.
        name: of what answers for the health of the server.
        marks: whether the marks of an Inngest server are passed on.
    """

    async def between(request: httpx2.Request) -> httpx2.Response:
        hidden = name and request.url.path == "/health"
        answer: httpx2.Response = foreign(name) if hidden else await send(request)
        if not marks:
            answer.headers.pop("x-inngest-server-kind", None)
        return answer

    return between


def naps(provider: Provider, *, wsgi: bool) -> Any:
    """An application with an endpoint whose first request waits."""
    if wsgi:
        flask = Flask("app")

        @flask.get("/nap")
        def plain() -> str:
            blocking.sleep("nap", NAP)
            return "ok"

        return provider.wsgi(flask)
    app = FastAPI()

    @app.get("/nap")
    async def nap() -> str:
        await step.sleep("nap", NAP)
        return "ok"

    return provider.asgi(app)


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_foreign_answer_says_nothing_of_our_engine(name: str) -> None:
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
            return foreign(name)

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


@KINDS
@pytest.mark.parametrize("name", FOREIGN)
async def test_our_engine_is_known_where_a_gateway_hides_its_health(name: str, wsgi: bool) -> None:
    async with durable(partial(naps, wsgi=wsgi), wsgi=wsgi) as world:
        send = behind(world.to_engine.handle_async_request, name)
        world.to_engine.handle_async_request = send  # type: ignore[method-assign]
        final = await world.follow(await world.client.get("/nap"))
        assert (final.status_code, final.text.strip('"')) == (200, "ok")


@KINDS
@pytest.mark.parametrize("name", FOREIGN)
async def test_an_inngest_server_is_known_where_a_gateway_hides_its_health(
    name: str, wsgi: bool
) -> None:
    server = RealServer(wsgi=wsgi)
    server.app = naps(server.provider(), wsgi=wsgi)
    send = behind(server.settings.answer, name)
    server.settings.answer = send  # type: ignore[method-assign]
    final = await server.finish(await server.client().get("/nap"))
    assert (final.status_code, final.text.strip('"')) == (200, "ok")
    (run,) = server.runs.values()
    assert run.function.config.retries == 20


@KINDS
async def test_a_marked_answer_of_any_kind_teaches_what_the_server_is(wsgi: bool) -> None:
    """That of a run which has ended, here: then nothing is asked."""
    server = RealServer(wsgi=wsgi)
    provider = server.provider(track_all_endpoints=True)
    server.app = naps(provider, wsgi=wsgi)
    assert (await server.client().get("/other")).status_code == 404
    assert await provider.wait(5)
    assert (await server.finish(await server.client().get("/nap"))).status_code == 200
    assert "/health" not in [call.url.path for call in server.api]


@KINDS
@pytest.mark.parametrize("name", FOREIGN)
async def test_what_hides_every_sign_of_a_server_is_named_with_the_remedy(
    name: str, wsgi: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = RealServer(wsgi=wsgi)
    server.app = naps(server.provider(), wsgi=wsgi)
    send = behind(server.settings.answer, name, marks=False)
    server.settings.answer = send  # type: ignore[method-assign]
    answer = await server.client().get("/nap")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    (said,) = [one.getMessage() for one in caplog.records if "must wait" in one.getMessage()]
    assert f"what answers at {SERVER} does not say which server it is (GET /health: " in said
    assert f"answered {FOREIGN[name][0]}" in said
    assert "pass on /health and /v0/runs, and the header x-stephttp-features or x-inngest" in said
    assert not server.runs


async def test_an_inngest_server_is_known_by_its_health_where_its_marks_are_dropped() -> None:
    server = RealServer()
    app = FastAPI()

    @app.get("/")
    async def nap() -> str:
        stephttp.configure(retries=1)
        await step.sleep("nap", NAP)
        return "ok"

    server.app = server.provider().asgi(app)
    send = behind(server.settings.answer, marks=False)
    server.settings.answer = send  # type: ignore[method-assign]
    assert (await server.finish(await server.client().get("/"))).json() == "ok"
    (run,) = server.runs.values()
    assert run.function.config.retries == 20
