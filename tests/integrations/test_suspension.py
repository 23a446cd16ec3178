"""However the application is built and whatever it catches: the run's state decides."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

import stephttp
from stephttp import step
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.durable import durable

NAP = timedelta(minutes=1)

log: list[str] = []


async def session() -> AsyncIterator[None]:
    log.append("open")
    try:
        yield
    finally:
        log.append("close")


def bug() -> None:
    raise RuntimeError("an ordinary bug")


async def plain() -> str:
    try:
        await step.run("before", log.append, "before")
        await step.sleep("nap", NAP)
    finally:
        log.append("finally")
    return "done"


async def task_group() -> str:
    async def slow() -> None:
        await asyncio.sleep(0)
        log.append("before")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("before", slow))
            group.create_task(step.sleep("nap", NAP))
            group.create_task(step.sleep("nap too", NAP))
    finally:
        log.append("finally")
    return "done"


async def swallows() -> str:
    await step.run("before", log.append, "before")
    try:
        for _ in range(5):
            try:
                await step.sleep("nap", NAP)
                return "done"
            except BaseException:
                with contextlib.suppress(BaseException):
                    await step.run("after", log.append, "must not run")
    finally:
        log.append("finally")
    return "never"


async def swallows_everything_it_can() -> Response:
    await step.run("before", log.append, "before")
    try:
        await step.sleep("nap", NAP)
    except BaseException:
        log.append("finally")
        return Response("from a handler that was overtaken", 418)
    log.append("finally")
    return Response('"done"', media_type="application/json")


async def after_a_failed_task_group() -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(bug))
    except* RuntimeError:
        await step.run("before", log.append, "before")
    try:
        await step.sleep("nap", NAP)
    finally:
        log.append("finally")
    return "done"


async def shielded() -> str:
    await step.run("before", log.append, "before")
    try:
        await asyncio.wait_for(step.sleep("nap", NAP), timeout=3600)
    finally:
        log.append("finally")
    return "done"


async def waits_in_a_task_of_its_own() -> str:
    await step.run("before", log.append, "before")
    nap = asyncio.create_task(step.sleep("nap", NAP))
    await asyncio.sleep(0)
    log.append("finally")
    if not nap.done():
        return "not waited for"
    return "done"


def in_the_thread_pool() -> str:
    try:
        sync_step.run("before", log.append, "before")
        sync_step.sleep("nap", NAP)
    finally:
        log.append("finally")
    return "done"


def swallows_in_the_thread_pool() -> str:
    sync_step.run("before", log.append, "before")
    result = "never"
    try:
        sync_step.sleep("nap", NAP)
        result = "done"
    except BaseException:
        with contextlib.suppress(BaseException):
            sync_step.run("after", log.append, "must not run")
    log.append("finally")
    return result


async def a_step_that_fails_first() -> str:
    stephttp.configure(retries=1)
    await step.run("before", log.append, "before")

    def once() -> None:
        if log.count("failed") == 0:
            log.append("failed")
            raise ConnectionError

    try:
        await step.run("flaky", once)
    finally:
        log.append("finally")
    return "done"


HANDLERS: list[Callable[[], Any]] = [
    plain,
    task_group,
    swallows,
    swallows_everything_it_can,
    after_a_failed_task_group,
    shielded,
    waits_in_a_task_of_its_own,
    in_the_thread_pool,
    swallows_in_the_thread_pool,
    a_step_that_fails_first,
]


async def pass_on(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    return await call_next(request)


async def turn_into_500(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    try:
        return await call_next(request)
    except BaseException:
        return Response("caught by a middleware", 500)


def bare(app: FastAPI, provider: Provider) -> Any:
    return provider.asgi(app)


def inside(app: FastAPI, provider: Provider) -> Any:
    """`BaseHTTPMiddleware` between us and the application, as `@app.middleware("http")` makes."""
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(stephttp.ASGIMiddleware, provider=provider)
    return app


def greedy(app: FastAPI, provider: Provider) -> Any:
    return provider.asgi(BaseHTTPMiddleware(app, dispatch=turn_into_500))


def outside(app: FastAPI, provider: Provider) -> Any:
    return BaseHTTPMiddleware(provider.asgi(app), dispatch=pass_on)


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
@pytest.mark.parametrize("wrap", [bare, inside, greedy, outside], ids=lambda wrap: wrap.__name__)
async def test_the_same_redirect_each_time(
    wrap: Callable[[FastAPI, Provider], Any], handler: Callable[[], Any]
) -> None:
    app = FastAPI()
    app.get("/", dependencies=[Depends(session)])(handler)
    log.clear()
    async with durable(lambda provider: wrap(app, provider)) as world:
        first = await world.client.get("/")
        assert first.status_code == 303
        assert first.json()["status"] == "running"
        assert log.count("before") == 1
        assert (log.count("open"), log.count("finally"), log.count("close")) == (1, 1, 1)
        final = await world.follow(first)
        assert (final.status_code, final.json()) == (200, "done")
        assert log.count("before") == 1
        assert (log.count("open"), log.count("finally"), log.count("close")) == (2, 2, 2)
        assert "must not run" not in log


@pytest.mark.parametrize("wrap", [bare, inside, outside], ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("kind", ["async", "def", "in a task group"])
async def test_an_ordinary_bug_is_still_a_500(
    wrap: Callable[[FastAPI, Provider], Any], kind: str
) -> None:
    app = FastAPI()

    @app.get("/async")
    async def in_async() -> None:
        await step.run("a", log.append, "x")
        bug()

    @app.get("/def")
    def in_def() -> None:
        sync_step.run("a", log.append, "x")
        bug()

    @app.get("/in a task group")
    async def in_group() -> None:
        await step.run("a", log.append, "x")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(bug))

    async with durable(lambda provider: wrap(app, provider)) as world:
        transport = httpx2.ASGITransport(world.to_app.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
            answer = await client.get(f"/{kind}")
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")
        assert await world.provider.wait()
        assert len(world.to_engine.requests) == 1, "the run was recorded"


async def test_a_timeout_of_the_handlers_own_is_not_taken_for_a_suspension() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler() -> str:
        try:
            async with asyncio.timeout(0):
                await step.run("endless", asyncio.Event().wait)
        except TimeoutError:
            return await step.run("plan b", lambda: "in time")
        return ""

    async with durable(lambda provider: provider.asgi(app)) as world:
        answer = await world.client.get("/")
        assert (answer.status_code, answer.json()) == (200, "in time")
        assert await world.provider.wait()
        assert set(await world.steps(answer)) == {"plan b"}


@pytest.mark.parametrize("where", ["in a step", "between steps", "in a sleep"])
async def test_a_request_that_is_cancelled_from_outside_is_cancelled(where: str) -> None:
    app = FastAPI()
    inside_now = asyncio.Event()

    async def wait_for_ever() -> None:
        inside_now.set()
        await asyncio.Event().wait()

    @app.get("/")
    async def handler() -> None:
        if where == "in a step":
            await step.run("endless", wait_for_ever)
        elif where == "between steps":
            await wait_for_ever()
        else:
            await asyncio.gather(step.sleep("nap", NAP), step.run("endless", wait_for_ever))

    async with durable(lambda provider: provider.asgi(app)) as world:
        request = asyncio.create_task(world.client.get("/"))
        await inside_now.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_a_bug_beside_a_wait_shows_once_the_wait_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()

    async def buggy() -> None:
        bug()

    @app.get("/")
    async def handler() -> None:
        await asyncio.gather(step.sleep("nap", NAP), buggy())

    async with durable(lambda provider: provider.asgi(app)) as world:
        first = await world.client.get("/")
        assert "an ordinary bug" in caplog.text
        assert (await world.follow(first)).status_code == 500


async def test_after_the_response_has_begun_steps_run_but_none_can_wait() -> None:
    app = FastAPI()
    errors: list[str] = []

    @app.get("/")
    async def handler() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            yield (await step.run("late", lambda: "b")).encode()
            try:
                await step.sleep("nap", NAP)
            except stephttp.CannotWaitError as error:
                errors.append(str(error))
            yield b"c"

        return StreamingResponse(body())

    async with durable(lambda provider: provider.asgi(app)) as world:
        answer = await world.client.get("/")
        assert (answer.status_code, answer.text) == (200, "abc")
        (error,) = errors
        assert "step 'nap' has to wait, but the response has started" in error
        assert await world.provider.wait()
        assert "late" in await world.steps(answer)


async def test_head_cannot_wait() -> None:
    app = FastAPI()

    @app.head("/")
    async def handler() -> Response:
        with pytest.raises(stephttp.CannotWaitError, match="HEAD"):
            await step.sleep("nap", NAP)
        return Response(status_code=204)

    async with durable(lambda provider: provider.asgi(app)) as world:
        assert (await world.client.head("/")).status_code == 204


async def test_nested_steps_are_refused() -> None:
    app = FastAPI()

    async def outer() -> None:
        await step.run("inner", lambda: 1)

    @app.get("/")
    async def handler(response: Response) -> str:
        try:
            await step.run("outer", outer)
        except stephttp.NestedStepError as error:
            return str(error)
        return ""

    async with durable(lambda provider: provider.asgi(app)) as world:
        answer = await world.client.get("/")
        assert "step 'inner' was called inside the body of step 'outer'" in answer.json()


async def test_outside_a_request_run_just_runs_and_waiting_tools_explain() -> None:
    async def double(n: int) -> int:
        return 2 * n

    stephttp.configure(id="nobody")
    assert await step.run("a", double, 2) == 4
    assert await step.run("b", lambda n: n, n=3) == 3
    assert sync_step.run("c", lambda: 5) == 5
    with pytest.raises(stephttp.OutsideRunError, match=r"step\.sleep .*provider\.asgi"):
        await step.sleep("nap", NAP)
    with pytest.raises(stephttp.OutsideRunError, match=r"step\.sleep_until"):
        sync_step.sleep_until("nap", datetime.now(UTC))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"retries": -1}, "retries"), ({"retries": 21}, "retries"), ({"id": ""}, "id")],
)
def test_configure_refuses_nonsense(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        stephttp.configure(**options)


async def test_configure_twice_warns() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler(_: Annotated[None, Depends(session)]) -> int:
        stephttp.configure(id="a")
        with pytest.warns(UserWarning, match="twice"):
            stephttp.configure(id="b")
        return 1

    async with durable(lambda provider: provider.asgi(app)) as world:
        assert (await world.client.get("/")).json() == 1


async def test_an_application_that_listens_for_the_end_of_the_connection() -> None:
    """As Quart and Django do: the handler in one task, the listener in another, and no clean-up
    but at the end of either."""
    log.clear()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

        async def listen() -> str:
            return f"{(await receive())['type']}, {(await receive())['type']}"

        async def handle() -> None:
            await plain()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})

        listening, handling = asyncio.create_task(listen()), asyncio.create_task(handle())
        await asyncio.wait({listening, handling}, return_when=asyncio.FIRST_COMPLETED)
        for task in (listening, handling):
            task.cancel()
        heard, answered = await asyncio.gather(listening, handling, return_exceptions=True)
        log.append(f"{heard!r} {answered!r}")

    async with durable(lambda provider: provider.asgi(app)) as world:
        first = await world.client.get("/")
        assert log == ["before", "finally", "'http.disconnect, http.disconnect' CancelledError('')"]
        assert (await world.follow(first)).text == "done"
        assert log[3:] == ["finally", "'http.disconnect, http.disconnect' None"]


@pytest.mark.parametrize("beside", [True, False], ids=["beside the handler", "after it"])
async def test_an_application_that_returns_only_when_the_connection_has_ended(beside: bool) -> None:
    """As Quart does from 0.23 on."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            while (message := await receive())["type"] == "http.request":
                pass
            heard.append(message["type"])

        async def handle() -> None:
            await step.sleep("nap", NAP)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"do", "more_body": True})
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"ne"})

        if beside:
            async with asyncio.TaskGroup() as tasks:
                handling = tasks.create_task(handle())
                await listen()
                handling.cancel()
        else:
            await handle()
            await listen()

    async with durable(lambda provider: provider.asgi(app)) as world:
        first = await world.client.get("/")
        assert heard == ["http.disconnect"] * beside, "otherwise, nothing listened yet"
        heard.clear()
        assert (await world.follow(first)).text == "done"
        assert heard == ["http.disconnect"]
