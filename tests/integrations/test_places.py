"""Where an application sees a request, and from whom: the same before and after a wait."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

import stephttp
from stephttp import Provider, step
from stephttp._adapters.asgi.reentry import restored
from stephttp._adapters.asgi.request import neutral
from stephttp._adapters.wsgi import reentry as wsgi_reentry
from stephttp._adapters.wsgi import request as wsgi
from stephttp.sync import step as blocking
from tests.durable import APP, KEY, Durable, durable

NAP = timedelta(minutes=1)

# --- the caller's address ---

ADDRESSES = [
    (("1.2.3.4", 5), ("1.2.3.4", 5)),
    (["1.2.3.4", 5], ("1.2.3.4", 5)),
    (("1.2.3.4", "5"), ("1.2.3.4", 5)),
    (("1.2.3.4", None), ("1.2.3.4", 0)),
    (("1.2.3.4", "http"), ("1.2.3.4", 0)),
    (("::1", 5, 0, 0), ("::1", 5)),
    (("/run/app.sock", None), ("/run/app.sock", 0)),
    (("/run/app.sock",), ("/run/app.sock", 0)),
    (("", 0), ("", 0)),
    ((None, None), ("", 0)),
    ((), None),
    (None, None),
]


@pytest.mark.parametrize(("client", "expected"), ADDRESSES)
def test_an_address_is_read_in_any_form(client: Any, expected: Any) -> None:
    scope = {"method": "GET", "path": "/", "headers": [], "client": client}
    request = neutral(scope, b"")
    assert request.client == expected
    again = restored(scope, request)["client"]
    if client and len(client) == 2 and client[1] != "http" and client[0] is not None:
        assert tuple(again) == tuple(client), "in the form of the server"


@pytest.mark.parametrize("client", [("1.2.3.4", "5"), ("/run/app.sock", None), None])
async def test_a_run_waits_whatever_the_server_says_of_its_caller(client: Any) -> None:
    app = FastAPI()

    @app.get("/")
    async def handler(request: Request) -> list[Any]:
        await step.sleep("nap", NAP)
        return [list(request.scope["client"] or ())]

    def build(provider: Provider) -> Any:
        inner = provider.asgi(app)

        async def server(scope: Any, receive: Any, send: Any) -> None:
            await inner(
                {**scope, "client": client, "server": (client or ("x",))[:1]}, receive, send
            )

        return server

    async with durable(build) as world:
        answer = await world.follow(await world.client.get("/"))
    assert answer.json() == [list(client or ())]


ENVIRONS: list[dict[str, Any]] = [
    {"REMOTE_ADDR": "1.2.3.4", "REMOTE_PORT": "5"},
    {"REMOTE_ADDR": "1.2.3.4", "REMOTE_PORT": 5},
    {"REMOTE_ADDR": "1.2.3.4"},
    {"REMOTE_ADDR": "1.2.3.4", "REMOTE_PORT": "5", "REMOTE_HOST": "1.2.3.4"},
    {"REMOTE_ADDR": ""},
    {},
]


@pytest.mark.parametrize("given", ENVIRONS)
def test_an_environ_says_the_same_of_its_caller(given: dict[str, Any]) -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": io.BytesIO(), **given}
    request = wsgi.neutral(environ, b"")
    assert request.client == (("1.2.3.4", 5 if "REMOTE_PORT" in given else 0)
                              if given.get("REMOTE_ADDR") else None)  # fmt: skip
    again = wsgi_reentry.restored(environ, request)
    assert {name: value for name, value in again.items() if name.startswith("REMOTE_")} == given


def test_an_odd_port_of_an_environ_is_no_port() -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": io.BytesIO()}
    environ |= {"REMOTE_ADDR": "1.2.3.4", "REMOTE_PORT": "٣"}
    assert wsgi.neutral(environ, b"").client == ("1.2.3.4", 0)


# --- code inside of the middleware that changes the request ---


class InPlace:
    """Changes a scope as much middleware does: what it finds there is not the next one's."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = scope["headers"]
            secret = [pair for pair in headers if pair[0] == b"authorization"]
            headers.append((b"x-request-id", b"new"))
            for pair in secret:
                headers.remove(pair)
            scope["user"] = secret[0][1].decode()
            scope.setdefault("state", {})["seen"] = scope["path"]
            scope["path"] = scope["path"].removeprefix("/de")
            scope["raw_path"] = scope["raw_path"].removeprefix(b"/de")
            scope["query_string"] += b"&language=de"
            scope["scheme"], scope["client"] = "https", ("9.9.9.9", 9)
            if (b"x-http-method-override", b"PUT") in headers:
                scope["method"] = "PUT"
        await self.app(scope, receive, send)


class InPlaceWSGI:
    """Does the same to an environ."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        environ["HTTP_X_REQUEST_ID"] = environ.get("HTTP_X_REQUEST_ID", "") + "new"
        environ["user"] = environ.pop("HTTP_AUTHORIZATION")
        environ["seen"] = environ["PATH_INFO"]
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/de")
        environ["QUERY_STRING"] += "&language=de"
        environ["wsgi.url_scheme"], environ["REMOTE_ADDR"] = "https", "9.9.9.9"
        environ["REQUEST_METHOD"] = environ.get("HTTP_X_HTTP_METHOD_OVERRIDE", "POST")
        return self.app(environ, start_response)


def in_place_asgi(provider: Provider) -> Any:
    async def order(request: Request) -> JSONResponse:
        scope = request.scope
        look = [request.path_params["id"], request.method, scope["user"], scope["state"]["seen"],
                request.headers.getlist("x-request-id"), "authorization" in request.headers,
                str(request.url.query), request.url.scheme, scope["client"][0]]  # fmt: skip
        before = await step.run("look", lambda: look)
        await step.sleep("nap", NAP)
        return JSONResponse([before, look])

    app = Starlette(routes=[Route("/orders/{id}", order, methods=["PUT"])])
    return provider.asgi(InPlace(app))


def in_place_wsgi(provider: Provider) -> Any:
    app = flask.Flask("app")

    @app.put("/orders/<id>")
    def order(id: str) -> Any:
        request = flask.request
        look = [id, request.method, request.environ["user"], request.environ["seen"],
                request.headers.getlist("x-request-id"), "authorization" in request.headers,
                request.query_string.decode(), request.scheme, request.remote_addr]  # fmt: skip
        before = blocking.run("look", lambda: look)
        blocking.sleep("nap", NAP)
        return flask.jsonify([before, look])

    return provider.wsgi(InPlaceWSGI(app))


@pytest.mark.parametrize("build", [in_place_asgi, in_place_wsgi])
async def test_changes_are_made_again_to_what_the_caller_sent(build: Any) -> None:
    async with durable(build, key=KEY, dev=True, wsgi=build is in_place_wsgi) as world:
        headers = {"authorization": "Bearer x", "x-http-method-override": "PUT"}
        first = await world.client.post("/de/orders/7?a=1", headers=headers)
        before, after = (await world.follow(first)).json()
        assert world.reentries[-1].url.raw_path == b"/de/orders/7?a=1"
    assert before == after
    assert after == [
        "7", "PUT", "Bearer x", "/de/orders/7", ["new"], False, "a=1&language=de", "https",
        "9.9.9.9",
    ]  # fmt: skip


# --- behind a proxy that takes a prefix off ---


def look(request: Request) -> list[str]:
    return [request.scope["root_path"], request.scope["path"], request.url.path]


async def nap(request: Request) -> JSONResponse:
    before = await step.run("look", look, request)
    await step.sleep("nap", NAP)
    return JSONResponse([before, look(request)], headers={"content-location": "?a"})


class Cycle:
    """Of Uvicorn, which puts its root path in front of the path."""

    def __init__(self, receive: Any) -> None:
        self._receive = receive

    async def receive(self) -> Any:
        return await self._receive()


Cycle.__module__ = "uvicorn.protocols.http.h11_impl"


def rooted(app: Any, *, prepended: bool) -> Any:
    """A server with `--root-path /api`."""

    async def server(scope: Any, receive: Any, send: Any) -> None:
        scope = {**scope, "root_path": "/api"}
        if prepended:
            scope |= {"path": "/api" + scope["path"], "raw_path": b"/api" + scope["raw_path"]}
            receive = Cycle(receive).receive
        await app(scope, receive, send)

    return server


def fastapi_app(provider: Provider) -> Any:
    """An application that says itself where it is."""
    app = FastAPI()
    app.root_path = "/api"  # the argument is deprecated
    app.add_route("/nap", nap)
    app.add_middleware(stephttp.ASGIMiddleware, provider=provider)
    return app


def starlette_app(provider: Provider) -> Any:
    return provider.asgi(Starlette(routes=[Route("/nap", nap)]))


def mounted_app(provider: Provider) -> Any:
    return Starlette(routes=[Mount("/sub", starlette_app(provider))])


def uvicorn(app: Callable[[Provider], Any]) -> Callable[[Provider], Any]:
    return lambda provider: rooted(app(provider), prepended=True)


def hypercorn(app: Callable[[Provider], Any]) -> Callable[[Provider], Any]:
    return lambda provider: rooted(app(provider), prepended=False)


class StrippingProxy(httpx2.AsyncBaseTransport):
    """Takes `/api` off the paths; requests for others do not reach the application."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner
        self.called: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.called.append(request.url.path)
        if not request.url.path.startswith("/api/"):
            return httpx2.Response(404, request=request)
        url = request.url.copy_with(raw_path=request.url.raw_path.removeprefix(b"/api"))
        body = await request.aread()
        headers = [*request.headers.raw, (b"x-forwarded-prefix", b"/api")]
        stripped = httpx2.Request(request.method, url, headers=headers, content=body)
        return await self._inner.handle_async_request(stripped)


def behind_proxy(world: Durable) -> StrippingProxy:
    """Put a proxy in front of the application, for callers and for the engine."""
    proxy = StrippingProxy(world.to_app.inner())
    world.to_app.inner = lambda **_: proxy  # type: ignore[method-assign]
    world.client = httpx2.AsyncClient(transport=proxy, base_url=APP)
    return proxy


APPS = {
    "FastAPI": (fastapi_app, ""),
    "Uvicorn": (uvicorn(starlette_app), ""),
    "Uvicorn, mounted": (uvicorn(mounted_app), "/sub"),
    "Hypercorn": (hypercorn(starlette_app), ""),
    "FastAPI on Uvicorn": (uvicorn(fastapi_app), ""),
}


@pytest.mark.parametrize(("build", "mount"), APPS.values(), ids=list(APPS))
@pytest.mark.parametrize("key", ["", KEY])
@pytest.mark.parametrize("options", [{"serve_origin": APP}, {"serve_prefix": "/api"}])
async def test_the_engine_comes_through_the_proxy(
    build: Any, mount: str, key: str, options: Any
) -> None:
    async with durable(build, key=key, **options) as world:
        proxy = behind_proxy(world)
        answer = await world.follow(await world.client.get(f"/api{mount}/nap"))
        before, after = answer.json()
        assert before == after
        assert answer.headers["content-location"] == f"{APP}/api{mount}/nap?a"
        assert set(proxy.called) == {f"/api{mount}/nap"}
        await world.client.aclose()


@pytest.mark.parametrize(("build", "mount"), APPS.values(), ids=list(APPS))
@pytest.mark.parametrize("key", ["", KEY])
async def test_the_engine_comes_as_callers_do_without_a_proxy(
    build: Any, mount: str, key: str
) -> None:
    async with durable(build, key=key, serve_prefix="" if key else None) as world:
        answer = await world.follow(await world.client.get(f"{mount}/nap"))
        before, after = answer.json()
        assert before == after
        assert {request.url.path for request in world.reentries} == {f"{mount}/nap"}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("key", ["", KEY])
@pytest.mark.parametrize("direct", [False, True])
async def test_script_name_is_a_root_path_too(
    inside: bool, mounted: bool, key: str, direct: bool
) -> None:
    """`ProxyFix` around the SDK, or within it, where only a setting can say the prefix."""

    def build(provider: Provider) -> Any:
        app = flask.Flask("app")

        @app.get("/nap")
        def nap() -> Any:
            request = flask.request
            look = [request.script_root, request.path, request.base_url]
            before = blocking.run("look", lambda: look)
            blocking.sleep("nap", NAP)
            return flask.jsonify([before, look])

        if inside:
            app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]
        app.wsgi_app = provider.wsgi(app.wsgi_app)  # type: ignore[method-assign]
        served: Any = DispatcherMiddleware(flask.Flask("none"), {"/sub": app}) if mounted else app
        return served if inside else ProxyFix(served, x_prefix=1)

    mount = "/sub" if mounted else ""
    options: dict[str, Any] = {"serve_prefix": "/api"} if inside else {"serve_origin": APP}
    async with durable(build, wsgi=True, key=key, **({} if direct else options)) as world:
        proxy = None if direct else behind_proxy(world)
        path = f"{mount}/nap" if direct else f"/api{mount}/nap"
        answer = await world.follow(await world.client.get(path))
        before, after = answer.json()
        assert before == after
        assert after[1] == "/nap"
        assert after[2].endswith("/nap")
        if proxy is not None:
            assert set(proxy.called) == {path}
            await world.client.aclose()


async def test_a_call_of_another_path_is_refused() -> None:
    """What a prefix makes equal is the prefix alone."""
    async with durable(uvicorn(starlette_app), key=KEY) as world:
        await world.follow(await world.client.get("/nap"))
        call = world.reentries[-1]
        for path, status in (
            ("/other", 401),
            ("/api/other", 401),
            ("/nap/api", 401),
            ("/nap", 206),
        ):
            url = call.url.copy_with(path=path)
            again = await world.client.request("GET", url, headers=call.headers.raw)
            assert again.status_code == status, path


@pytest.mark.parametrize("prefix", ["api", "/a b", "/%20"])
def test_a_prefix_is_the_beginning_of_a_path(prefix: str) -> None:
    with pytest.raises(stephttp.ConfigurationError, match="serve_prefix"):
        stephttp.setup(APP, serve_prefix=prefix)


# --- whether the caller is still there ---


@pytest.mark.parametrize(("method", "read"), [("GET", False), ("POST", False), ("POST", True)])
@pytest.mark.parametrize("outside", [False, True])
async def test_the_question_whether_the_caller_left_takes_nothing_away(
    method: str, read: bool, outside: bool
) -> None:
    async def report(request: Request) -> JSONResponse:
        if request.url.query:
            assert await request.body() == b"a body"
        gone = await request.is_disconnected()
        await step.sleep("nap", NAP)
        return JSONResponse([gone, await request.is_disconnected()])

    async def pass_by(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    def build(provider: Provider) -> Any:
        app = FastAPI()
        app.add_route("/", report, methods=["GET", "POST"])
        app.add_middleware(stephttp.ASGIMiddleware, provider=provider)
        if outside:
            app.middleware("http")(pass_by)
        return app

    async with durable(build) as world:
        body, path = ("", "/") if method == "GET" else ("a body", "/?read" if read else "/")
        answer = await world.follow(await world.client.request(method, path, content=body))
        assert world.reentries[0].content.startswith(body.encode())
    assert answer.json() == [False, False]
