"""Replays run no body of a step, also where the run has ended, and the code has not."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import flask
import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI
from msgspec.structs import replace

import stephttp
from stephttp import step
from stephttp.errors import UsageError
from stephttp.sync import step as blocking
from stephttp.testing import DurableClient, History
from stephttp.testing.history import ExportedRequest, ExportedRun
from stephttp.testing.replay import Replayer
from stephttp.testing.takeover import runtimes_of

ran: list[str] = []
ended = threading.Event()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    ran.clear()
    ended.clear()


def history(path: str = "/orders", number: int = 0) -> History:
    """A run that has come to no step yet."""
    run = ExportedRun(
        f"01ARZ3NDEKTSV4RRFFQ69G5FA{number}", path[1:], "waiting", "2026-01-01T00:00:00Z"
    )
    return History(run, ExportedRequest("GET", path, "http://app.test"), [])


def of_fastapi(**options: Any) -> FastAPI:
    provider = stephttp.setup("http://app.test", base_url="http://127.0.0.1:1")
    app = FastAPI(**options)
    app.add_middleware(stephttp.ASGIMiddleware, provider=provider)
    return app


async def mail() -> None:
    try:
        await step.run("mail", ran.append, "mail")
    except Exception:
        ran.append("error of mail")


def mail_blocking() -> None:
    try:
        blocking.run("mail-blocking", ran.append, "mail-blocking")
    except Exception:
        ran.append("error of mail-blocking")


@pytest.mark.parametrize("task", [mail, mail_blocking])
def test_steps_behind_the_response_do_not_run(task: object) -> None:
    app = of_fastapi()

    @app.get("/orders")
    async def orders(later: BackgroundTasks) -> str:
        later.add_task(task)  # type: ignore[arg-type]
        return "done"

    with Replayer(app) as replayer:
        assert replayer.replay(history()).safe
    assert ran == []


def test_steps_of_tasks_that_outlive_the_replay_do_not_run() -> None:
    app = of_fastapi()
    go = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def detached() -> None:
        await go.wait()
        await mail()

    @app.get("/orders")
    async def orders() -> str:
        tasks.append(asyncio.create_task(detached()))
        return "done"

    @app.get("/end")
    async def end() -> str:
        go.set()
        await asyncio.wait(tasks)
        return "done"

    with Replayer(app) as replayer:
        assert replayer.replay(history()).safe
        assert replayer.replay(history("/end", 1)).safe
    assert ran == []
    assert tasks[0].done()


@pytest.mark.parametrize("when", ["between two replays", "after the last"])
def test_code_that_outlives_a_replay_does_not_reach_the_server(when: str) -> None:
    go, answers = threading.Event(), list[Any]()

    with socket.create_server(("127.0.0.1", 0)) as server:
        origin = f"http://127.0.0.1:{server.getsockname()[1]}"
        provider = stephttp.setup("http://app.test", base_url=origin)
        app = FastAPI()

        def later() -> None:
            go.wait()
            answers.append(provider.send_event_sync("orders/seen", {}))

        thread = threading.Thread(target=later)

        @app.get("/orders")
        async def orders() -> str:
            thread.start()
            return "done"

        with Replayer(provider.asgi(app), for_good=True) as replayer:
            assert replayer.replay(history()).safe
            if when == "between two replays":
                go.set()
                thread.join()
        go.set()
        thread.join()
        assert answers == ["replayed-0"]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_steps_when_a_response_of_wsgi_is_closed_do_not_run() -> None:
    flasks = flask.Flask("orders")
    provider = stephttp.setup("http://app.test", base_url="http://127.0.0.1:1")

    @flasks.get("/orders")
    def orders() -> flask.Response:
        response = flask.Response("done")
        response.call_on_close(mail_blocking)
        return response

    with Replayer(provider.wsgi(flasks)) as replayer:
        assert replayer.replay(history()).safe
    assert ran == []


def test_handlers_that_wake_up_too_late_run_no_steps() -> None:
    app = of_fastapi()
    wake = threading.Event()

    @app.get("/orders")
    def orders() -> str:
        wake.wait()
        try:
            mail_blocking()
        finally:
            ended.set()
        return "done"

    @app.get("/abandoned")
    async def abandoned() -> str:
        await anyio.to_thread.run_sync(orders, abandon_on_cancel=True)
        return "done"

    for number, path in enumerate(("/abandoned", "/orders")):
        wake.clear()
        ended.clear()
        with Replayer(app, patience=0.1) as replayer:
            assert "0.1 s of real time" in replayer.replay(history(path, number)).unchecked
            wake.set()
            ended.wait()
    assert ran == []


def test_steps_of_requests_that_the_lifespan_makes_do_not_run() -> None:
    """An application that calls itself when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
            await client.get("/orders")
        yield

    app = of_fastapi(lifespan=lifespan)

    @app.get("/orders")
    async def orders(later: BackgroundTasks) -> str:
        later.add_task(mail)
        return "done"

    with pytest.raises(UsageError, match="comes to a step when it starts"), Replayer(app):
        pass
    assert ran == []


def test_always_replay_runs_steps_behind_the_response_once() -> None:
    app = of_fastapi()

    @app.get("/orders")
    async def orders(later: BackgroundTasks) -> str:
        await step.run("charge", ran.append, "charge")
        later.add_task(mail)
        later.add_task(mail_blocking)
        return "done"

    with DurableClient(app, always_replay=True) as client:
        assert client.get("/orders").status_code == 200
    assert ran == ["charge", "mail", "mail-blocking"]


def test_a_provider_is_given_back_in_any_order() -> None:
    runtime = stephttp.setup("http://app.test", base_url="http://127.0.0.1:1").runtime
    before = vars(runtime).copy()
    first, second, third = (
        runtime.replaced(replace(runtime.settings, base_url=f"http://{name}.test"))
        for name in ("first", "second", "third")
    )
    for one in (first, second, third):
        one.__enter__()
    second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    assert runtime.settings.base_url == "http://third.test"
    third.__exit__(None, None, None)
    assert vars(runtime) == before


def test_a_replay_that_does_not_end_is_the_last_one() -> None:
    stopped = threading.Event()
    waiting: list[asyncio.Future[None]] = []
    called: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        called.append("stop")

    app = of_fastapi(lifespan=lifespan)
    (runtime,) = runtimes_of(app)
    before = vars(runtime).copy()

    @app.get("/orders")
    async def orders() -> str:
        called.append("orders")
        waiting.append(asyncio.get_running_loop().create_future())
        while not waiting[0].done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(waiting[0])
        return "done"

    @app.get("/stops")
    async def stops() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        called.append("stops")
        stopped.set()
        return "done"

    with Replayer(app, patience=0.1) as replayer:
        assert "0.1 s of real time" in replayer.replay(history("/stops")).unchecked
        assert stopped.is_set()  # it was waited for
        assert vars(runtime) == before
        assert "0.1 s of real time" in replayer.replay(history(number=1)).unchecked
        assert "has not ended" in replayer.replay(history("/stops", 2)).unchecked
        thread = next(one for one in threading.enumerate() if one.name == "stephttp-testing")
    assert called == ["stops", "orders"]
    assert runtime.settings.base_url == "http://stephttp.replay"  # it is still at work
    waiting[0].get_loop().call_soon_threadsafe(waiting[0].set_result, None)
    thread.join()
    assert called[2:] == ["stop"]
    assert vars(runtime) == before
