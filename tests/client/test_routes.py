"""How the frameworks' ways to write a route become one."""

import json
from typing import Any

import falcon
import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from flask import Flask
from litestar import Litestar, get
from litestar.params import FromPath
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from werkzeug.routing import Map

import stephttp
from stephttp import step
from stephttp._adapters.asgi.request import route_of as asgi_route
from stephttp._adapters.route_templates import simplified
from stephttp._adapters.wsgi.request import route_of as wsgi_route
from stephttp.sync import step as blocking_step
from tests.durable import durable


@pytest.mark.parametrize(
    ("written", "simple"),
    [
        ("/users/{id}", "/users/{id}"),
        ("/users/{id:int}/{rest:path}", "/users/{id}/{rest}"),
        ("/a/{when:dt('%Y-%m')}", "/a/{when}"),
        ("/users/<id>", "/users/{id}"),
        ("/users/<int:id>/x", "/users/{id}/x"),
        ("/a/<any(b, c):which>", "/a/{which}"),
        ("/a/<string(length=2):lang>/", "/a/{lang}/"),
        ("users/<uuid:id>/", "/users/{id}/"),
        (r"^users/(?P<id>[0-9]{1,4}(a|b)?)/$", "/users/{id}/"),
        (r"api/^a\.b/(?P<x>[)]+)\Z", "/api/a.b/{x}"),
        (r"^bio/(\w+)/(?:old|new)/?$", "/bio/{}/{}/"),
        (r"^[a-z]/x$", "/{}/x"),
        (r"^y/\d{4}/(?P<month>\d{2})/?$", "/y/{}/{month}/"),
        ("", "/"),
        ("/", "/"),
    ],
)
def test_templates_are_written_alike(written: str, simple: str) -> None:
    assert simplified(written) == simple


async def endpoint(request: Request) -> PlainTextResponse:
    await step.run("a", lambda: 1)
    return PlainTextResponse("ok")


async def named(app: Any, path: str) -> str:
    """The name of the endpoint that a request was recorded under."""
    async with durable(lambda provider: provider.asgi(app)) as world:
        answer = await world.client.get(path)
        assert answer.status_code == 200, answer.text
        assert await world.provider.wait()
        (checkpoint,) = world.to_engine.requests
        sent = json.loads(checkpoint.content)["event"]["data"]
        assert (sent["method"], sent["path"]) == ("GET", path), "what the server calls again"
        run = await world.api.get(f"/v1/runs/{answer.headers['x-run-id']}")
        function: str = run.json()["data"]["function"]
        assert sent["fn"] == function
        return function


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/7", "GET /a/{id}"),
        ("/static/a/7", "GET /static/a/{id}"),
        ("/of/acme/a/7", "GET /of/{tenant}/a/{id}"),
        ("/of/of/a/of", "GET /of/{tenant}/a/{id}"),
        ("/twice/x/y/y/a/7", "GET /twice/{one}/y/{two}/a/{id}"),
    ],
)
async def test_mounted_parts_of_starlette(path: str, expected: str) -> None:
    routes = [Route("/a/{id}", endpoint)]
    inner = Mount("/y/{two}", routes=routes)
    app = Starlette(
        routes=[
            *routes,
            Mount("/static", app=Starlette(routes=routes)),
            Mount("/of/{tenant}", routes=routes),
            Mount("/twice/{one}", routes=[inner]),
        ]
    )
    assert await named(app, path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/plain/7", "GET /plain/{id}"),
        ("/v1/items/7", "GET /v1/items/{id}"),
        ("/sub/v1/items/7", "GET /sub/v1/items/{id}"),
        ("/of/acme/v1/items/7", "GET /of/{tenant}/v1/items/{id}"),
    ],
)
async def test_routers_and_mounted_applications_of_fastapi(path: str, expected: str) -> None:
    def build() -> FastAPI:
        app, outer, inner = FastAPI(), APIRouter(prefix="/v1"), APIRouter()

        @app.get("/plain/{id}")
        @inner.get("/{id}")
        async def get_item(id: int) -> int:
            return await step.run("a", lambda: 1)

        outer.include_router(inner, prefix="/items")
        app.include_router(outer)
        return app

    app = build()
    app.mount("/sub", build())
    app.mount("/of/{tenant}", build())
    assert await named(app, path) == expected


async def test_what_older_versions_of_starlette_leave() -> None:
    """They name no route, but the endpoint and the router."""
    routes = [Route("/b/{id}", endpoint), Route("/a/{id}", endpoint)]
    app = Starlette(routes=[Mount("/of/{tenant}", routes=routes), *routes])
    found: list[str] = []

    async def older(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if scope["type"] == "http":
            scope.pop("route", None)
            found.append(asgi_route(app, scope))

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=older), base_url="http://x.test"
    ) as client:
        for path in ("/a/7", "/of/acme/a/7", "/missing"):
            await client.get(path)
    assert found == ["/a/{id}", "/of/{tenant}/a/{id}", ""]


async def test_behind_middleware_of_the_application() -> None:
    async def passing(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app = Starlette(routes=[Route("/a/{id}", endpoint)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    assert await named(app, "/a/7") == "GET /a/{id}"


async def test_a_durable_application_inside_another() -> None:
    inner = Starlette(routes=[Route("/a/{id}", endpoint)])
    async with durable(
        lambda provider: Starlette(routes=[Mount("/of/{tenant}", app=provider.asgi(inner))])
    ) as world:
        answer = await world.client.get("/of/acme/a/7")
        assert await world.provider.wait()
        run = await world.api.get(f"/v1/runs/{answer.headers['x-run-id']}")
        assert run.json()["data"]["function"] == "GET /of/{tenant}/a/{id}"


async def test_quart_and_litestar() -> None:
    quart = Quart(__name__)

    @quart.get("/a/<int:id>")
    async def of_quart(id: int) -> str:
        return str(await step.run("a", lambda: 1))

    @get("/b/{id:int}")
    async def of_litestar(id: FromPath[int]) -> int:
        return await step.run("a", lambda: 1)

    assert await named(quart, "/a/7") == "GET /a/{id}"
    assert await named(Litestar([of_litestar], logging_config=None), "/b/7") == "GET /b/{id}"


def test_what_is_not_known_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    scope = {"method": "GET", "path": "/a/7", "headers": []}
    assert asgi_route(lambda scope, receive, send: None, scope) == ""
    assert asgi_route(Quart(__name__), scope) == "", "no such route"
    assert asgi_route(None, {**scope, "route": object()}) == "", "not as we know it"
    mounted = {**scope, "route": Mount("/static", app=StaticFiles(directory="."))}
    assert asgi_route(None, mounted) == ""
    loop: Any = PlainTextResponse("x")
    loop.app = loop
    assert asgi_route(loop, scope) == ""


def test_wsgi_applications() -> None:
    flask, of_falcon = Flask(__name__), falcon.App()
    seen: list[str] = []

    def wrapped(environ: Any, start_response: Any) -> Any:
        body = inner(environ, start_response)
        seen.append(wsgi_route(inner, environ, environ))
        return body

    def name(id: int) -> str:
        return str(id)

    inner = flask.wsgi_app
    flask.add_url_rule("/a/<int:id>", view_func=name)
    flask.wsgi_app = wrapped  # type: ignore[method-assign]
    flask.test_client().get("/a/7", base_url="http://x.test/mounted")
    flask.test_client().get("/b/7")
    assert seen == ["/mounted/a/{id}", ""]
    of_falcon.add_route("/b/{id:int}", object())
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/b/7", "SCRIPT_NAME": "/x"}
    assert wsgi_route(of_falcon, environ, environ) == "/x/b/{id}"


async def test_flask_is_asked_for_the_route_of_a_request_once() -> None:
    asked = 0

    class Routes(Map):
        def bind(self, *given: Any, **more: Any) -> Any:
            nonlocal asked
            asked += 1  # Flask itself binds them to an environ
            return super().bind(*given, **more)

    class Application(Flask):
        url_map_class = Routes

    def endpoint_of_flask(id: int) -> str:
        return str(blocking_step.run("a", lambda: id))

    app = Application(__name__)
    app.add_url_rule("/a/<int:id>", view_func=endpoint_of_flask)
    async with durable(lambda provider: provider.wsgi(app.wsgi_app), wsgi=True) as world:
        assert (await world.client.get("/a/7")).text == "7"
        assert await world.provider.wait()
        (checkpoint,) = world.to_engine.requests
        assert json.loads(checkpoint.content)["event"]["data"]["fn"] == "GET /a/{id}"
    assert not asked


async def test_an_id_goes_before_the_route_and_both_before_the_path() -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/named":
            stephttp.configure(id="mine")
        await endpoint(Request(scope, receive))
        await PlainTextResponse("ok")(scope, receive, send)

    async with durable(lambda provider: provider.asgi(plain)) as world:
        for path, fn in (("/named", "mine"), ("/a/7", "")):
            await world.client.get(path)
            assert await world.provider.wait()
            sent = json.loads(world.to_engine.requests[-1].content)["event"]["data"]
            assert (sent["path"], sent["fn"]) == (path, fn)
