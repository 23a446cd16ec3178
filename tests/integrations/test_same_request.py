"""What a handler sees of its request after a wait, in each framework: path and query in any script,
method and body, also where the server mixes up the methods of an endpoint.
"""

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
import litestar
import pytest
import quart
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from fastapi import FastAPI, Request
from litestar.params import FromPath

import stephttp
from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.django_settings import configured
from tests.durable import APP, durable
from tests.realserver import RealServer

NAP = timedelta(minutes=1)
PREFIX = "/équipe"
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]
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

    @app.api_route("/hello/{name}", methods=METHODS)
    async def hello(name: str, request: Request) -> dict[str, Any]:
        body = (await request.body()).decode()
        return said(await nap(name), request.query_params["q"], request.method, body)

    return app


def of_litestar() -> Any:
    @litestar.route(
        "/hello/{name:str}", http_method=["GET", "POST", "PUT", "DELETE", "PATCH"], status_code=200
    )
    async def hello(name: FromPath[str], request: litestar.Request[Any, Any, Any]) -> Any:
        body = (await request.body()).decode()
        return said(await nap(name), request.query_params["q"], request.method, body)

    return litestar.Litestar([hello])


def of_quart() -> Any:
    app = quart.Quart("app")

    @app.route("/hello/<name>", methods=[*METHODS])
    async def hello(name: str) -> dict[str, Any]:
        request = quart.request
        body = str(await request.get_data(as_text=True))
        return said(await nap(name), request.args["q"], request.method, body)

    return app


def of_flask() -> Any:
    app = flask.Flask("app")

    @app.route("/hello/<name>", methods=METHODS)
    def hello(name: str) -> dict[str, Any]:
        request = flask.request
        body = request.get_data().decode()
        return said(nap_now(name), request.args["q"], request.method, body)

    return app


class Hello:
    """A resource of Falcon."""

    def __call__(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        body = req.bounded_stream.read().decode()
        resp.media = said(nap_now(name), req.get_param("q") or "", req.method, body)

    on_get = on_post = on_put = on_delete = on_patch = __call__


class HelloOnLoop:
    """The same under ASGI."""

    async def on_get(self, req: Any, resp: Any, name: str) -> None:
        body = (await req.stream.read()).decode()
        resp.media = said(await nap(name), req.get_param("q") or "", req.method, body)

    on_post = on_put = on_delete = on_patch = on_get


def of_falcon(*, on_loop: bool) -> Any:
    app: Any = falcon.asgi.App() if on_loop else falcon.App()
    app.add_route("/hello/{name}", HelloOnLoop() if on_loop else Hello())
    return app


def of_django(*, on_loop: bool) -> Any:
    def hello(request: HttpRequest, name: str) -> JsonResponse:
        body = request.body.decode()
        return JsonResponse(said(nap_now(name), request.GET["q"], request.method, body))

    async def hello_on_loop(request: HttpRequest, name: str) -> JsonResponse:
        body = request.body.decode()
        return JsonResponse(said(await nap(name), request.GET["q"], request.method, body))

    urls.urlpatterns = [path("hello/<name>", hello_on_loop if on_loop else hello)]
    return get_asgi_application() if on_loop else get_wsgi_application()


def said(name: str, q: str, method: str | None, body: str) -> dict[str, Any]:
    return {"name": name, "q": q, "method": method, "body": body}


KINDS: dict[str, tuple[bool, Callable[[], Any]]] = {
    "fastapi": (False, of_fastapi),
    "litestar": (False, of_litestar),
    "quart": (False, of_quart),
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
                expected = said(unquote(name), unquote(name), "GET", "")
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
        assert (final.status_code, final.json()) == (200, said("И", "И", "GET", ""))
        (sent,) = server.reentries
        assert str(sent.url) == f"{APP}/hello/%D0%98?q=%D0%98"
    await provider.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_methods_that_a_real_server_mixes_up_are_restored(kind: str) -> None:
    """It has one method for all runs of an id: here that of the last one to begin."""
    wsgi, make = KINDS[kind]
    server = RealServer(wsgi=wsgi)
    provider = server.provider()
    with django_settings() if kind.startswith("django") else nullcontext():
        app = provider.wsgi(named(make(), wsgi)) if wsgi else provider.asgi(named(make(), wsgi))
        server.app = app
        client, first = server.client(), dict[str, Any]()
        for method in METHODS:
            content = None if method == "GET" else f"{method}, as it was sent"
            first[method] = await client.request(method, f"/hello/{method}?q=1", content=content)
        for method in METHODS:
            final = await server.finish(first[method])
            body = "" if method == "GET" else f"{method}, as it was sent"
            assert (final.status_code, final.json()) == (200, said(method, "1", method, body))
        called = {sent.method for sent in server.reentries}
        assert (len(server.reentries), called) == (len(METHODS), {"PATCH"})
    await provider.aclose()


def named(app: Any, wsgi: bool) -> Any:
    """The application with one id for all of its methods."""

    def on_wsgi(environ: dict[str, Any], start_response: Any) -> Any:
        stephttp.configure(id="hello")
        return app(environ, start_response)

    async def on_asgi(scope: Any, receive: Any, send: Any) -> None:
        stephttp.configure(id="hello")
        await app(scope, receive, send)

    return on_wsgi if wsgi else on_asgi
