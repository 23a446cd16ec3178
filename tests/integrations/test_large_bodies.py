"""A body that is too large to travel with a run: a 413, and never a step without a record."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import django
import flask
import httpx2
import pytest
from anyio import from_thread
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from fastapi import FastAPI, UploadFile
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import stephttp
from stephttp import Checkpointing, step
from stephttp.middleware import Middleware
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import APP, ENGINE, KEY, Durable, durable

NAP = timedelta(minutes=1)
LIMIT, LARGE = 1000, b"x" * 5000
done: list[str] = []
"""The steps that ran."""

WAYS = ("waits", "late", "retries", "quick")
"""Routes: it waits, after it has read the body; it reads the body after its first step; it declares
retries; it never waits."""


async def on_loop(way: str, read: Callable[[], Awaitable[bytes]]) -> str:
    if way == "retries":
        stephttp.configure(retries=1)
    body = b"" if way == "late" else await read()
    await step.run("store", done.append, way)
    body = body or await read()
    if way != "quick":
        await step.sleep("scan", NAP)
    return str(len(body))


def in_thread(way: str, read: Callable[[], bytes]) -> str:
    if way == "retries":
        stephttp.configure(retries=1)
    body = b"" if way == "late" else read()
    blocking.run("store", done.append, way)
    body = body or read()
    if way != "quick":
        blocking.sleep("scan", NAP)
    return str(len(body))


def way_of(request: Any) -> str:
    return str(request.path).strip("/")


async def starlette_endpoint(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await on_loop(request.url.path.strip("/"), request.body))


def fastapi_app(provider: Provider) -> Any:
    app = FastAPI()
    for way in WAYS:
        app.post(f"/{way}", response_class=PlainTextResponse)(fastapi_handler(way))
    return provider.asgi(app)


def fastapi_handler(way: str) -> Callable[..., Any]:
    async def handler(request: Request) -> str:
        return await on_loop(way, request.body)

    return handler


def threads_app(provider: Provider) -> Any:
    app = FastAPI()
    for way in WAYS:
        app.post(f"/{way}", response_class=PlainTextResponse)(def_handler(way))
    return provider.asgi(app)


def def_handler(way: str) -> Callable[..., Any]:
    def handler(request: Request) -> str:
        return in_thread(way, lambda: from_thread.run(request.body))

    return handler


def starlette_app(provider: Provider) -> Any:
    routes = [Route(f"/{way}", starlette_endpoint, methods=["POST"]) for way in WAYS]
    return provider.asgi(Starlette(routes=routes))


def flask_app(provider: Provider) -> Any:
    app = flask.Flask("bodies")

    def view(way: str) -> str:
        return in_thread(way, flask.request.get_data)

    for way in WAYS:
        app.post(f"/{way}", defaults={"way": way}, endpoint=way)(view)
    return provider.wsgi(app)


async def django_async(request: HttpRequest) -> HttpResponse:
    async def read() -> bytes:
        return request.body

    return HttpResponse(await on_loop(way_of(request), read))


def django_blocking(request: HttpRequest) -> HttpResponse:
    return HttpResponse(in_thread(way_of(request), lambda: request.body))


def django_asgi(provider: Provider) -> Any:
    return provider.asgi(with_views(django_async, ASGIHandler))


def django_wsgi(provider: Provider) -> Any:
    return provider.wsgi(with_views(django_blocking, WSGIHandler))


def with_views(view: Callable[..., Any], handler: Any) -> Any:
    """A Django application; its settings are global, so they are set for each request."""
    urls = sys.modules[f"{__name__}.{view.__name__}"] = ModuleType(view.__name__)
    urls.urlpatterns = [path(way, view) for way in WAYS]  # type: ignore[attr-defined]
    if not settings.configured:
        settings.configure(SECRET_KEY="tests")
        django.setup()
    name = f"{__name__}.{view.__name__}"
    chosen = override_settings(ROOT_URLCONF=name, MIDDLEWARE=[], ALLOWED_HOSTS=["*"])
    with chosen:
        app = handler()

    def wsgi(environ: Any, start: Any) -> Any:
        with chosen:
            return app(environ, start)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        with chosen:
            await app(scope, receive, send)

    return wsgi if handler is WSGIHandler else asgi


APPS = {
    "fastapi": fastapi_app,
    "def": threads_app,
    "starlette": starlette_app,
    "flask": flask_app,
    "django-asgi": django_asgi,
    "django-wsgi": django_wsgi,
}
WSGI = {"flask", "django-wsgi"}


async def pieces() -> AsyncIterator[bytes]:
    """A body whose length is not announced."""
    for _ in range(5):
        yield LARGE[:1000]


async def run_of(world: Durable, answer: httpx2.Response) -> Any:
    assert await world.provider.wait()
    found = await world.api.get(f"/v1/stephttp/runs/{answer.headers['x-run-id']}")
    return found.json()["data"]


async def fails_on_record(world: Durable, answer: httpx2.Response, steps: list[str]) -> None:
    """The answer is a 413, and the run is recorded as failed, with its steps and the reason."""
    assert answer.status_code == 413
    assert "5000 bytes" in answer.json()["error"]
    assert "may have 1000" in answer.json()["error"]
    run = await run_of(world, answer)
    assert (run["status"], run["error"]["name"]) == ("Failed", "CannotWaitError")
    assert run["error"]["message"].startswith(f"step {'scan'!r} has to wait, but the request's")
    assert [one["id"] for one in run["step_list"]] == steps
    assert run["response"]["status"] == 413


# A server of WSGI reads a body whose length is not announced before it calls the application.
KINDS = [(kind, False) for kind in APPS] + [(kind, True) for kind in APPS if kind not in WSGI]


@pytest.mark.parametrize(("kind", "chunked"), KINDS)
async def test_no_step_runs_without_a_record(kind: str, chunked: bool) -> None:
    done.clear()

    def post(way: str) -> Awaitable[httpx2.Response]:
        return world.client.post(f"/{way}", content=pieces() if chunked else LARGE)

    async with durable(APPS[kind], wsgi=kind in WSGI, max_body_bytes=LIMIT) as world:
        quick = await post("quick")
        assert (quick.status_code, quick.text) == (200, "5000")
        assert (await run_of(world, quick))["status"] == "Completed"

        refused = await post("retries")
        assert refused.status_code == 413
        assert done == ["quick"]

        for way in ("waits", "late"):
            done.clear()
            await fails_on_record(world, await post(way), ["store"])
            assert done == [way]
            again = await post(way)
            assert (again.status_code, done) == (413, [way])
            assert (await run_of(world, again)) is None
            # Smaller ones wait, and have their body afterwards.
            answer = await world.follow(await world.client.post(f"/{way}", content=LARGE[:900]))
            assert answer.text == "900"
        assert (await post("quick")).text == "5000"


@pytest.mark.parametrize("mode", [Checkpointing.performant, Checkpointing.safe])
@pytest.mark.parametrize("kind", ["multipart", "own retries"])
async def test_what_else_a_large_body_can_come_to(kind: str, mode: Checkpointing) -> None:
    app, ends = FastAPI(), []

    class Watch(Middleware):
        def after_call(self, end: Any) -> None:
            ends.append((end.response and end.response.status, end.run_ended))

    def decline() -> None:
        raise ValueError("declined")

    @app.post("/multipart")
    async def multipart(file: UploadFile) -> str:
        await step.run("store", done.append, "multipart")
        await step.sleep("scan", NAP)
        return str(len(await file.read()))

    @app.post("/own retries")
    async def own_retries(file: UploadFile) -> str:
        await step.options(retries=2).run("scan", decline)
        return "unreachable"

    async with durable(
        lambda provider: provider.asgi(app),
        max_body_bytes=LIMIT,
        middleware=[Watch],
        checkpointing=mode,
    ) as world:
        answer = await world.client.post(f"/{kind}", files={"file": LARGE})
        assert answer.status_code == 413
        run = await run_of(world, answer)
        assert run["status"] == "Failed"
        shown = [(one["id"], one["state"]) for one in run["step_list"]]
        assert shown == [("store", "completed") if kind == "multipart" else ("scan", "failed")]
        assert ends == [(413, True)]


@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
async def test_eight_mebibytes_wait_on_our_engine(hidden: bool) -> None:
    app, sent = FastAPI(), bytes(range(256)) * 32 * 1024

    @app.post("/")
    async def handler(request: Request) -> bool:
        stephttp.configure(retries=1, omit_request_body=hidden)
        await step.sleep("nap", NAP)
        return await request.body() == sent

    async with durable(lambda provider: provider.asgi(app), key=KEY) as world:
        answer = await world.follow(await world.client.post("/", content=sent))
        assert answer.json() is True
        assert (await world.client.post("/", content=sent + b"1")).status_code == 413


@pytest.mark.parametrize("known", [False, True])
async def test_an_inngest_server_takes_less_and_is_not_asked(known: bool) -> None:
    """The server of others is known by its answers, which announce nothing."""
    asked: list[tuple[str, int]] = []

    async def server(request: httpx2.Request) -> httpx2.Response:
        asked.append((request.url.path, len(request.content)))
        data = {"fn_id": "f", "app_id": "a", "run_id": "r", "token": "t"}
        marks = {"x-inngest-server-kind": "cloud"}
        return httpx2.Response(200, headers=marks, json={"data": data})

    app = FastAPI()

    @app.post("/")
    async def handler() -> None:
        await step.run("store", done.append, "store")
        await step.sleep("nap", NAP)

    provider = Provider(
        resolve(APP, base_url=ENGINE, environ={"INNGEST_DEV": "1"}),
        transport=httpx2.MockTransport(server),
    )
    transport = httpx2.ASGITransport(app=provider.asgi(app))
    async with httpx2.AsyncClient(transport=transport, base_url=APP) as client:
        if known:
            assert (await client.post("/", content=b"x")).status_code == 303
        done.clear()
        asked.clear()
        answer = await client.post("/", content=b"x" * 4_000_000)
        assert answer.status_code == 413
        assert await provider.aclose()
    if known:  # the endpoint has waited
        assert (done, asked) == ([], [])
    else:
        assert done == ["store"]
        assert [path for path, _ in asked] == ["/health", "/v1/http/runs"]
        assert asked[1][1] < 10_000
