"""Where the unwinding of a handler ends: at its decorator, and nowhere else."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import flask
import litestar
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from litestar.di import NamedDependency, Provide
from litestar.dto import DataclassDTO
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.durable import durable
from tests.integrations.shops import NAP

log: list[str] = []


@dataclass
class Parcel:
    name: str


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


async def session() -> AsyncIterator[None]:
    """Clean-up that awaits, as that of a session that commits."""
    try:
        yield
    except BaseException as error:
        log.append(repr(error))
        raise
    await asyncio.sleep(0)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
    task = asyncio.current_task()
    assert task is not None
    log.append(f"committed, cancelling {task.cancelling()}")


LEFT_BEHIND = 1 if sys.version_info < (3, 13) else 0
"""What a failed task group leaves of `cancelling`, with or without us."""


async def plain() -> str:
    await step.sleep("nap", NAP)
    return "done"


async def side_by_side() -> str:
    async def slow() -> None:
        await asyncio.sleep(0)
        log.append("slow")

    await asyncio.gather(step.run("slow", slow), step.sleep("nap", NAP), step.sleep("too", NAP))
    log.clear()
    return "done"


async def in_a_group() -> str:
    async with asyncio.TaskGroup() as group:
        group.create_task(step.sleep("nap", NAP))
    return "done"


async def with_a_timeout() -> str:
    async with asyncio.timeout(3600):
        await step.sleep("nap", NAP)
    return "done"


async def swallows() -> str:
    with contextlib.suppress(BaseException):
        await step.sleep("nap", NAP)
        return "done"
    return "never"


async def raises_something_else() -> str:
    try:
        await step.sleep("nap", NAP)
    except BaseException:
        raise ValueError("of the handler's own") from None
    return "done"


async def after_a_failed_group() -> str:
    async def bug() -> None:
        await asyncio.sleep(0)
        raise ValueError

    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(bug())
    await step.sleep("nap", NAP)
    return "done"


def in_a_thread() -> str:
    blocking.sleep("nap", NAP)
    return "done"


def swallows_in_a_thread() -> Any:
    with contextlib.suppress(BaseException):
        blocking.sleep("nap", NAP)
        return "done"
    return None


def in_branches() -> str:
    blocking.parallel((lambda: blocking.sleep("nap", NAP), lambda: blocking.sleep("too", NAP)))
    return "done"


HANDLERS: list[Callable[[], Any]] = [
    plain, side_by_side, in_a_group, with_a_timeout, swallows, raises_something_else,
    after_a_failed_group, in_a_thread, swallows_in_a_thread, in_branches,
]  # fmt: skip


def bare(app: FastAPI, provider: Provider) -> Any:
    return provider.asgi(app)


def with_middleware(app: FastAPI, provider: Provider) -> Any:
    async def dispatch(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        log.append(f"answered with {response.status_code}")
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    return provider.asgi(app)


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
@pytest.mark.parametrize("wrap", [bare, with_middleware], ids=lambda wrap: wrap.__name__)
async def test_what_is_around_a_handler_sees_an_answer(
    wrap: Any, handler: Callable[[], Any]
) -> None:
    app = FastAPI()

    def build(provider: Provider) -> Any:
        app.get("/", dependencies=[Depends(session)])(provider.endpoint()(handler))
        return wrap(app, provider)

    async with durable(build) as world:
        first = await world.client.get("/")
        assert first.status_code == 303
        seen = sorted(line for line in log if line != "slow")
        left = LEFT_BEHIND if handler is after_a_failed_group else 0
        answered = [] if wrap is bare else ["answered with 202"]
        assert seen == [*answered, f"committed, cancelling {left}"]
        final = await world.follow(first)
        assert (final.status_code, final.json()) == (200, "done")


async def test_a_request_that_is_cancelled_by_others_is_cancelled() -> None:
    entered = asyncio.Event()

    async def endless() -> None:
        entered.set()
        await asyncio.Event().wait()

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/", dependencies=[Depends(session)])
        @provider.endpoint()
        async def handler() -> None:
            await asyncio.gather(step.sleep("nap", NAP), step.run("endless", endless))

        return provider.asgi(app)

    async with durable(build) as world:
        request = asyncio.create_task(world.client.get("/"))
        await entered.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert log == ["CancelledError()"]


async def test_a_cancellation_while_the_handler_cleans_up() -> None:
    cleaning = asyncio.Event()

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/", dependencies=[Depends(session)])
        @provider.endpoint()
        async def handler() -> None:
            try:
                await step.sleep("nap", NAP)
            finally:
                cleaning.set()
                await asyncio.Event().wait()

        return provider.asgi(app)

    async with durable(build) as world:
        request = asyncio.create_task(world.client.get("/"))
        await cleaning.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


@pytest.mark.parametrize("style", ["async", "def"])
async def test_a_decorated_handler_inside_another_one_is_no_boundary(style: str) -> None:
    def build(provider: Provider) -> Any:
        app = FastAPI()
        endpoint = provider.endpoint()
        inner, inner_def = endpoint(plain), endpoint(in_a_thread)

        @app.get("/async")
        @endpoint
        async def handler() -> str:
            answer = await inner()
            log.append(answer)
            return answer

        @app.get("/def")
        @endpoint
        def handler_def() -> str:
            answer = inner_def()
            log.append(answer)
            return answer

        return provider.asgi(app)

    async with durable(build) as world:
        first = await world.client.get(f"/{style}")
        assert log == []
        assert (await world.follow(first)).json() == "done"
        assert log == ["done"]


async def test_background_tasks_belong_to_the_call_that_answers() -> None:
    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/")
        @provider.endpoint()
        async def handler(tasks: BackgroundTasks) -> str:
            tasks.add_task(log.append, "task")
            return await plain()

        return provider.asgi(app)

    async with durable(build) as world:
        first = await world.client.get("/")
        assert log == []
        await world.follow(first)
        assert log == ["task"]


async def test_a_response_model_is_no_hindrance() -> None:
    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/", response_model=dict[str, int], status_code=201)
        @provider.endpoint()
        async def handler() -> dict[str, int]:
            await step.sleep("nap", NAP)
            return {"a": 1}

        return provider.asgi(app)

    async with durable(build) as world:
        final = await world.follow(await world.client.get("/"))
        assert (final.status_code, final.json()) == (201, {"a": 1})


async def test_failures_pass_the_boundary() -> None:
    tried: list[int] = []

    def build(provider: Provider) -> Any:
        app = FastAPI()

        def bug() -> None:
            tried.append(1)
            raise ValueError("final")

        @app.get("/")
        @provider.endpoint(retries=1)
        async def handler() -> None:
            await step.sleep("nap", NAP)
            await step.run("bug", bug)

        return provider.asgi(app)

    async with durable(build) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).status_code == 500
        assert await world.status(first) == "Failed"
    assert tried == [1, 1]


async def test_a_framework_that_is_not_known_is_unwound() -> None:
    """Nobody could say what it takes for an answer."""

    def build(provider: Provider) -> Any:
        @provider.endpoint()
        async def handler(request: object) -> str:
            return await plain()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                text = await handler(object())
            except BaseException as error:
                log.append(type(error).__name__)
                raise
            await PlainTextResponse(text)(scope, receive, send)

        return provider.asgi(app)

    async with durable(build) as world:
        first = await world.client.get("/")
        assert log == ["CancelledError"]
        assert (await world.follow(first)).text == "done"


async def test_a_data_transfer_object_of_litestar_has_no_place_for_a_placeholder() -> None:
    def build(provider: Provider) -> Any:
        async def unit() -> AsyncIterator[None]:
            async with contextlib.asynccontextmanager(session)():
                yield

        @litestar.get("/", return_dto=DataclassDTO[Parcel], dependencies={"unit": Provide(unit)})
        @provider.endpoint()
        async def handler(unit: NamedDependency[None]) -> Parcel:
            return Parcel(await plain())

        return provider.asgi(litestar.Litestar([handler], logging_config=None))

    async with durable(build) as world:
        first = await world.client.get("/")
        assert "CancelledError" in log[0]
        assert (await world.follow(first)).json() == {"name": "done"}


@pytest.mark.parametrize("style", ["async", "def"])
async def test_an_application_that_returns_only_when_the_connection_has_ended(style: str) -> None:
    """As Quart does from 0.23 on."""

    def build(provider: Provider) -> Any:
        inner = Starlette(routes=[Route("/", provider.endpoint()(handler))])

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope, receive, send)
            while (await receive())["type"] != "http.disconnect":
                pass
            log.append("hung up")

        return provider.asgi(app)

    async def on_loop(request: Any) -> PlainTextResponse:
        return PlainTextResponse(await plain())

    def in_thread(request: Any) -> PlainTextResponse:
        return PlainTextResponse(in_a_thread())

    handler: Any = on_loop if style == "async" else in_thread
    async with durable(build) as world:
        first = await world.client.get("/")
        assert log == ["hung up"]
        assert (await world.follow(first)).text == "done"


async def test_what_a_wsgi_application_leaves_in_its_context_stays_there() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="nothing")
    app = flask.Flask("app")
    found: list[str] = []

    @app.get("/<name>")
    def handler(name: str) -> Any:
        found.append(seen.get())
        seen.set(name)
        if name == "wait":
            blocking.sleep("nap", NAP)

        def body() -> Any:
            yield seen.get()

        return body()

    def build(provider: Provider) -> Any:
        outermost = provider.wsgi(app)

        def in_one_thread(environ: Any, start_response: Any) -> Any:
            def whole() -> list[bytes]:
                chunks = outermost(environ, start_response)
                body = list(chunks)
                getattr(chunks, "close", list)()
                return body

            return thread.submit(whole).result()

        return in_one_thread

    with ThreadPoolExecutor(1) as thread:
        async with durable(build, wsgi=True) as world:
            for name in ("wait", "plain", "wait"):
                answer = await world.client.get(f"/{name}")
                if name == "wait":
                    answer = await world.follow(answer)
                assert answer.text == name
    assert found == ["nothing"] * 5
