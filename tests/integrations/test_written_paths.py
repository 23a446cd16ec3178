"""Paths and queries in any script, in each framework: the run comes back to the same request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import falcon
import falcon.asgi
import flask
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from fastapi import FastAPI, Request

from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.django_settings import configured
from tests.durable import APP, durable
from tests.realserver import RealServer

NAP = timedelta(minutes=1)
PREFIX = "/équipe"
urls: Any = ModuleType("urls")


def nap_now(name: str) -> str:
    value = blocking.run("keep", lambda: name)
    blocking.sleep("nap", NAP)
    return value


async def nap(name: str) -> str:
    value = await step.run("keep", lambda: name)
    await step.sleep("nap", NAP)
    return value


def of_fastapi() -> Any:
    app = FastAPI()

    @app.get("/hello/{name}")
    async def hello(name: str, request: Request) -> dict[str, Any]:
        return {"name": await nap(name), "q": request.query_params["q"]}

    return app


def of_flask() -> Any:
    app = flask.Flask("app")

    @app.get("/hello/<name>")
    def hello(name: str) -> dict[str, Any]:
        return {"name": nap_now(name), "q": flask.request.args["q"]}

    return app


def of_falcon(*, on_loop: bool) -> Any:
    class Hello:
        def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
            resp.media = {"name": nap_now(name), "q": req.get_param("q")}

    class HelloOnLoop:
        async def on_get(
            self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str
        ) -> None:
            resp.media = {"name": await nap(name), "q": req.get_param("q")}

    app: Any = falcon.asgi.App() if on_loop else falcon.App()
    app.add_route("/hello/{name}", HelloOnLoop() if on_loop else Hello())
    return app


def of_django(*, on_loop: bool) -> Any:
    def hello(request: HttpRequest, name: str) -> JsonResponse:
        return JsonResponse({"name": nap_now(name), "q": request.GET["q"]})

    async def hello_on_loop(request: HttpRequest, name: str) -> JsonResponse:
        return JsonResponse({"name": await nap(name), "q": request.GET["q"]})

    urls.urlpatterns = [path("hello/<name>", hello_on_loop if on_loop else hello)]
    return get_asgi_application() if on_loop else get_wsgi_application()


KINDS: dict[str, tuple[bool, Callable[[], Any]]] = {
    "fastapi": (False, of_fastapi),
    "flask": (True, of_flask),
    "falcon": (False, lambda: of_falcon(on_loop=True)),
    "falcon-wsgi": (True, lambda: of_falcon(on_loop=False)),
    "django": (False, lambda: of_django(on_loop=True)),
    "django-wsgi": (True, lambda: of_django(on_loop=False)),
}


def behind_prefix(app: Any, wsgi: bool, kind: str) -> Any:
    """The application as a server calls it that has a root path."""

    def on_wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        prefix = PREFIX.encode().decode("latin-1")
        inner = environ["PATH_INFO"].removeprefix(prefix)
        return app(environ | {"SCRIPT_NAME": prefix, "PATH_INFO": inner}, start_response)

    async def on_asgi(scope: Any, receive: Any, send: Any) -> None:
        own = {"root_path": PREFIX}
        if kind == "falcon":  # it takes the path for what is behind that
            own["path"] = scope["path"].removeprefix(PREFIX)
        await app({**scope, **own}, receive, send)

    return on_wsgi if wsgi else on_asgi


def django_settings() -> Any:
    return configured(
        SECRET_KEY="no secret",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls,
        INSTALLED_APPS=[],
        MIDDLEWARE=[],
    )


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["", "root-path"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_path_in_any_script_is_called_again(kind: str, prefix: str) -> None:
    wsgi, make = KINDS[kind]

    def build(provider: Provider) -> Any:
        app = provider.wsgi(make()) if wsgi else provider.asgi(make())
        return behind_prefix(app, wsgi, kind) if prefix else app

    with django_settings() if kind.startswith("django") else nullcontext():
        async with durable(build, wsgi=wsgi) as world:
            for name in ("%D0%98", "И é", "Ã©", "%2D"):
                first = await world.client.get(f"{prefix}/hello/{name}?q={name}")
                final = await world.follow(first)
                expected = {"name": unquote(name), "q": unquote(name)}
                assert (final.status_code, final.json()) == (200, expected)
                run = await world.api.get(f"/v1/runs/{first.headers['x-run-id']}")
                assert run.json()["data"]["function"] == f"GET {prefix}/hello/{{name}}"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_path_in_any_script_is_called_again_by_a_real_server(kind: str) -> None:
    wsgi, make = KINDS[kind]
    server = RealServer(wsgi=wsgi)
    provider = server.provider()
    with django_settings() if kind.startswith("django") else nullcontext():
        server.app = provider.wsgi(make()) if wsgi else provider.asgi(make())
        first = await server.client().get("/hello/И?q=%D0%98")
        final = await server.finish(first)
        assert (final.status_code, final.json()) == (200, {"name": "И", "q": "И"})
        (sent,) = server.reentries
        assert str(sent.url) == f"{APP}/hello/%D0%98?q=%D0%98"
    await provider.aclose()
