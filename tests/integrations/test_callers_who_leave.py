"""Callers who leave while a step runs: what was begun continues, in every framework."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
import quart
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, JsonResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from stephttp import step
from stephttp.provider import Provider
from tests.django_settings import configured
from tests.durable import Durable, durable

BODY = b"an order"


class Work:
    """What all handlers do.

    Attributes:
        began, gate: set when the first step has begun; set to let it end.
        done: what was done, in all calls.
    """

    def __init__(self) -> None:
        self.began, self.gate = asyncio.Event(), asyncio.Event()
        self.done: list[str] = []

    async def __call__(self, read: Callable[[], Awaitable[bytes]] | None = None) -> str:
        body = b"" if read is None else await read()

        async def charge() -> None:
            self.began.set()
            await self.gate.wait()
            self.done.append(f"charged {body.decode()}".strip())

        await step.run("charge", charge)
        await step.sleep("pack", timedelta(seconds=1))
        await step.run("ship", self.done.append, "shipped")
        return "done"


def of_starlette(work: Work, provider: Provider, *, reads: bool) -> Any:
    async def order(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await work(request.body if reads else None))

    route = Route("/", order, methods=["GET", "DELETE", "POST"])
    return provider.asgi(Starlette(routes=[route]))


def of_starlette_behind_middleware(work: Work, provider: Provider, *, reads: bool) -> Any:
    return BaseHTTPMiddleware(of_starlette(work, provider, reads=reads), lambda r, call: call(r))


def of_quart(work: Work, provider: Provider, *, reads: bool) -> Any:
    app = quart.Quart("leaving")

    async def order() -> str:
        async def body() -> bytes:
            data = await quart.request.get_data()
            assert isinstance(data, bytes)
            return data

        return await work(body if reads else None)

    app.route("/", methods=["GET", "DELETE", "POST"])(order)
    return provider.asgi(app.asgi_app)


def of_django(work: Work, provider: Provider, *, reads: bool) -> Any:
    async def order(request: HttpRequest) -> JsonResponse:
        async def body() -> bytes:
            return request.body

        return JsonResponse(await work(body if reads else None), safe=False)

    urls = ModuleType("urls_of_leaving")
    urls.urlpatterns = [path("", order)]  # type: ignore[attr-defined]
    sys.modules["urls_of_leaving"] = urls
    return provider.asgi(ASGIHandler())


APPS = [of_starlette, of_starlette_behind_middleware, of_quart, of_django]


class Caller:
    """One who sends a request, and may leave.

    Attributes:
        call: the request under way.
        left: what the server says when the caller has left; it keeps nothing that was not read.
    """

    def __init__(self, app: Any, method: str) -> None:
        headers = [(b"content-length", b"%d" % len(BODY))] if method == "POST" else []
        scope = {
            "type": "http", "method": method, "path": "/", "raw_path": b"/", "query_string": b"",
            "headers": headers, "http_version": "1.1", "scheme": "http", "client": ("1.1.1.1", 1),
            "server": ("app.test", 80), "root_path": "",
        }  # fmt: skip
        self.left = asyncio.Event()
        self._body = BODY if method == "POST" else b""
        self._read = False
        self.call = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._read and not self.left.is_set():
            self._read = True
            return {"type": "http.request", "body": self._body}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        """No one hears it."""


@asynccontextmanager
async def serving(build: Any, work: Work, *, reads: bool) -> AsyncGenerator[Durable]:
    given = {"ROOT_URLCONF": "urls_of_leaving", "MIDDLEWARE": [], "ALLOWED_HOSTS": ["*"]}
    with configured(SECRET_KEY="not one", **given):
        async with durable(lambda provider: build(work, provider, reads=reads)) as world:
            yield world


@pytest.mark.parametrize("build", APPS)
@pytest.mark.parametrize(
    ("method", "reads"), [("GET", False), ("DELETE", False), ("POST", True), ("POST", False)]
)
async def test_what_was_begun_continues(build: Any, method: str, reads: bool) -> None:
    work = Work()
    async with serving(build, work, reads=reads) as world:
        caller = Caller(world.to_app.app, method)
        await work.began.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        caller.left.set()
        for _ in range(20):
            await asyncio.sleep(0)
        work.gate.set()
        await asyncio.wait_for(caller.call, 20)
        await world.turn()
        body = f" {BODY.decode()}" if reads else ""
        assert work.done == [f"charged{body}", "shipped"]
