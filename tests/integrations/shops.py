"""One shop in every framework: a request that writes an order, waits, and writes another one.

The code around the handler, or the handler itself, holds the transaction in which the steps write.
It commits at a normal end, and rolls back otherwise.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import falcon
import falcon.asgi
import flask
import quart
from fastapi import Depends, FastAPI, Request
from flask.views import MethodView
from litestar import Litestar, get
from litestar.di import NamedDependency, Provide
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stephttp import Provider, step
from stephttp.sync import step as blocking

NAP = timedelta(minutes=1)

Mark = Callable[[Any], Any]
"""Decorates a handler, or leaves it as it is."""

held: ContextVar[Any] = ContextVar("held")
"""The session of the current request, where a framework has no place for it."""


class Shop:
    """A database with orders, and what holds transactions on it."""

    def __init__(self, path: Path) -> None:
        self.engine = create_engine(f"sqlite:///{path}")
        self.async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        self.left: list[AsyncSession] = []
        """Sessions that the code around a handler may leave open."""
        self.left_by_threads: list[Session] = []
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)"))

    async def close(self) -> None:
        for session in self.left:
            await session.close()
        for one in self.left_by_threads:
            one.close()
        self.engine.dispose()
        await self.async_engine.dispose()

    def rows(self) -> list[tuple[int, str]]:
        with self.engine.connect() as connection:
            found = connection.execute(text("SELECT id, item FROM orders"))
            return [(row[0], row[1]) for row in found]

    @contextmanager
    def unit(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session
            session.commit()

    @asynccontextmanager
    async def async_unit(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.async_engine) as session:
            yield session
            await session.commit()


INSERT = text("INSERT INTO orders (item) VALUES (:item)")


def write(session: Session, item: str) -> int:
    result: Any = session.execute(INSERT, {"item": item})
    return int(result.lastrowid)


async def async_write(session: AsyncSession, item: str) -> int:
    result: Any = await session.execute(INSERT, {"item": item})
    return int(result.lastrowid)


def orders(session: Session, write: Callable[[Session, str], int] = write) -> list[int]:
    first = blocking.run("first", lambda: write(session, "book"))
    blocking.sleep("nap", NAP)
    return [first, blocking.run("second", lambda: write(session, "pen"))]


async def async_orders(session: AsyncSession) -> list[int]:
    first: int = await step.run("first", async_write, session, "book")
    await step.sleep("nap", NAP)
    return [first, await step.run("second", async_write, session, "pen")]


# --- FastAPI --------------------------------------------------------------------------------------


def fastapi_dependency_async(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = FastAPI()

    async def session() -> AsyncIterator[AsyncSession]:
        async with shop.async_unit() as opened:
            yield opened

    @app.get("/")
    @mark
    async def handler(db: Annotated[AsyncSession, Depends(session)]) -> list[int]:
        return await async_orders(db)

    return provider.asgi(app)


def fastapi_dependency_def(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = FastAPI()

    def session() -> Iterator[Session]:
        with shop.unit() as opened:
            yield opened

    @app.get("/")
    @mark
    def handler(db: Annotated[Session, Depends(session)]) -> list[int]:
        return orders(db)

    return provider.asgi(app)


def fastapi_middleware_async(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = FastAPI()

    @app.middleware("http")
    async def unit(request: Request, call_next: Any) -> Response:
        async with shop.async_unit() as request.state.db:
            response: Response = await call_next(request)
            return response

    @app.get("/")
    @mark
    async def handler(request: Request) -> list[int]:
        return await async_orders(request.state.db)

    return provider.asgi(app)


def fastapi_middleware_def(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = FastAPI()

    @app.middleware("http")
    async def unit(request: Request, call_next: Any) -> Response:
        with shop.unit() as request.state.db:
            response: Response = await call_next(request)
            return response

    @app.get("/")
    @mark
    def handler(request: Request) -> list[int]:
        return orders(request.state.db)

    return provider.asgi(app)


def fastapi_body_async(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = FastAPI()

    @app.get("/")
    @mark
    async def handler() -> list[int]:
        async with shop.async_unit() as db:
            return await async_orders(db)

    return provider.asgi(app)


def fastapi_body_def(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = FastAPI()

    @app.get("/")
    @mark
    def handler() -> list[int]:
        with shop.unit() as db:
            return orders(db)

    return provider.asgi(app)


# --- other frameworks on the event loop -----------------------------------------------------------


def around_asgi(shop: Shop, app: Any) -> Any:
    """A middleware that knows nothing of any framework."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        async with shop.async_unit() as db:
            held.set(db)
            await app(scope, receive, send)

    return middleware


def bare_asgi(shop: Shop, provider: Provider, mark: Mark) -> Any:
    @mark
    async def app(scope: Any, receive: Any, send: Any) -> None:
        answer = JSONResponse(await async_orders(held.get()))
        await answer(scope, receive, send)

    return provider.asgi(around_asgi(shop, app))


def starlette_middleware_async(shop: Shop, provider: Provider, mark: Mark) -> Any:
    @mark
    async def handler(request: Request) -> Response:
        return JSONResponse(await async_orders(held.get()))

    return provider.asgi(around_asgi(shop, Starlette(routes=[Route("/", handler)])))


def starlette_middleware_def(shop: Shop, provider: Provider, mark: Mark) -> Any:
    async def unit(request: Request, call_next: Any) -> Response:
        with shop.unit() as request.state.db:
            response: Response = await call_next(request)
            return response

    @mark
    def handler(request: Request) -> Response:
        return JSONResponse(orders(request.state.db))

    app = Starlette(routes=[Route("/", handler)])
    return provider.asgi(BaseHTTPMiddleware(app, dispatch=unit))


def starlette_class(shop: Shop, provider: Provider, mark: Mark) -> Any:
    class Orders(HTTPEndpoint):
        @mark
        async def get(self, request: Request) -> Response:
            return JSONResponse(await async_orders(held.get()))

    return provider.asgi(around_asgi(shop, Starlette(routes=[Route("/", Orders)])))


def litestar_dependency_async(shop: Shop, provider: Provider, mark: Mark) -> Any:
    async def session() -> AsyncIterator[AsyncSession]:
        async with shop.async_unit() as opened:
            yield opened

    @get("/", dependencies={"db": Provide(session)})
    @mark
    async def handler(db: NamedDependency[Any]) -> list[int]:
        return await async_orders(db)

    return provider.asgi(Litestar([handler], logging_config=None))


def litestar_dependency_def(shop: Shop, provider: Provider, mark: Mark) -> Any:
    def session() -> Iterator[Session]:
        with shop.unit() as opened:
            yield opened

    @get("/", dependencies={"db": Provide(session)}, sync_to_thread=True)
    @mark
    def handler(db: NamedDependency[Any]) -> list[int]:
        return orders(db)

    return provider.asgi(Litestar([handler], logging_config=None))


def quart_teardown(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = quart.Quart("shop")

    @app.before_request
    async def open_session() -> None:
        quart.g.stack = AsyncExitStack()
        quart.g.db = await quart.g.stack.enter_async_context(shop.async_unit())

    @app.teardown_request
    async def close_session(error: BaseException | None) -> None:
        error = error or sys.exception()
        await quart.g.stack.__aexit__(type(error) if error else None, error, None)

    @app.get("/")
    @mark
    async def handler() -> list[int]:
        return await async_orders(quart.g.db)

    return provider.asgi(app)


class FalconUnit:
    """Falcon's middleware. It learns of an error, but not of a `BaseException`."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.db = Session(self.shop.engine)
        self.shop.left_by_threads.append(req.context.db)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Any, req_succeeded: bool
    ) -> None:
        if req_succeeded:
            req.context.db.commit()
        req.context.db.close()

    async def process_request_async(self, req: Any, resp: Any) -> None:
        req.context.db = AsyncSession(self.shop.async_engine)
        self.shop.left.append(req.context.db)

    async def process_response_async(
        self, req: Any, resp: Any, resource: Any, req_succeeded: bool
    ) -> None:
        if req_succeeded:
            await req.context.db.commit()
        await req.context.db.close()


def falcon_asgi(shop: Shop, provider: Provider, mark: Mark) -> Any:
    class Orders:
        @mark
        async def on_get(self, req: Any, resp: Any) -> None:
            resp.media = await async_orders(req.context.db)

    app = falcon.asgi.App(middleware=[FalconUnit(shop)])
    app.add_route("/", Orders())
    return provider.asgi(app)


def falcon_wsgi(shop: Shop, provider: Provider, mark: Mark) -> Any:
    class Orders:
        @mark
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            resp.media = orders(req.context.db)

    app = falcon.App(middleware=[FalconUnit(shop)])
    app.add_route("/", Orders())
    return provider.wsgi(app)


# --- WSGI -----------------------------------------------------------------------------------------


def bare_wsgi(shop: Shop, provider: Provider, mark: Mark) -> Any:
    @mark
    def app(environ: Any, start_response: Any) -> list[bytes]:
        answer = flask.json.dumps(orders(environ["db"])).encode()
        start_response("200 OK", [("content-type", "application/json")])
        return [answer]

    def middleware(environ: Any, start_response: Any) -> Any:
        with shop.unit() as environ["db"]:
            return app(environ, start_response)

    return provider.wsgi(middleware)


def flask_app(shop: Shop) -> flask.Flask:
    app = flask.Flask("shop")
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.before_request
    def open_session() -> None:
        flask.g.db = Session(shop.engine)

    @app.teardown_request
    def close_session(error: BaseException | None) -> None:
        if error is None:
            flask.g.db.commit()
        flask.g.db.close()

    return app


def flask_teardown(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = flask_app(shop)
    app.get("/")(mark(lambda: orders(flask.g.db)))
    return provider.wsgi(app)


def flask_async(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = flask_app(shop)

    @app.get("/")
    @mark
    async def handler() -> list[int]:
        first = await step.run("first", write, flask.g.db, "book")
        await step.sleep("nap", NAP)
        return [first, await step.run("second", write, flask.g.db, "pen")]

    return provider.wsgi(app)


def flask_class(shop: Shop, provider: Provider, mark: Mark) -> Any:
    class Orders(MethodView):
        @mark
        def get(self) -> list[int]:
            return orders(flask.g.db)

    app = flask_app(shop)
    app.add_url_rule("/", view_func=Orders.as_view("orders"))
    return provider.wsgi(app)


def flask_body(shop: Shop, provider: Provider, mark: Mark) -> Any:
    app = flask.Flask("shop")
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.get("/")
    @mark
    def handler() -> list[int]:
        with shop.unit() as db:
            return orders(db)

    return provider.wsgi(app)


AROUND = [
    fastapi_dependency_async, fastapi_dependency_def, fastapi_middleware_async,
    fastapi_middleware_def, bare_asgi, starlette_middleware_async, starlette_middleware_def,
    starlette_class, litestar_dependency_async, litestar_dependency_def, quart_teardown,
    falcon_asgi, falcon_wsgi, bare_wsgi, flask_teardown, flask_async, flask_class,
]  # fmt: skip
"""The code around the handler commits."""

BODY = [fastapi_body_async, fastapi_body_def, flask_body]
"""The handler itself does."""

WSGI = frozenset({falcon_wsgi, bare_wsgi, flask_teardown, flask_async, flask_class, flask_body})
