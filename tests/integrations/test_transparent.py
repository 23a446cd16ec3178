"""What is not ours to touch: extensions, streams, callers that leave, parts of an application."""

import asyncio
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import FileResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import stephttp
from stephttp import step
from tests.durable import durable

NAP = timedelta(minutes=1)
SOURCE = Path(__file__).read_bytes()


def http(method: str = "GET", **more: Any) -> dict[str, Any]:
    scope = {"type": "http", "method": method, "path": "/", "headers": [], "query_string": b""}
    return {**scope, **more}


async def conversation(app: Any, scope: dict[str, Any]) -> list[Any]:
    """What an application sends to a server that offers it everything."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("steps", [False, True])
async def test_messages_of_extensions_pass_as_they_are(steps: bool) -> None:
    extensions: dict[str, Any] = {
        "http.response.push": {}, "http.response.trailers": {}, "http.response.early_hint": {},
        "http.response.debug": {}, "http.response.zerocopysend": {},
    }  # fmt: skip
    messages: list[Any] = [
        {"type": "http.response.debug", "info": {"template": "t"}},
        {"type": "http.response.early_hint", "links": [b"</style.css>"]},
        {"type": "http.response.push", "path": "/style.css", "headers": [(b"accept", b"*/*")]},
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"te", b"x")],
            "trailers": True,
        },
        {"type": "http.response.zerocopysend", "file": 1, "offset": 0, "count": 3},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b"},
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
    ]
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["extensions"])
        if steps:
            await step.run("a", lambda: 1)
        for message in messages:
            await send(message)

    async with durable(lambda provider: provider.asgi(app)) as world:
        sent = await conversation(world.to_app.app, http(extensions=extensions))
        assert seen == [extensions]
        start = sent[3]
        assert start.pop("headers")[0] == (b"te", b"x")
        assert start == {"type": "http.response.start", "status": 200, "trailers": True}
        assert sent[:3] + sent[4:] == messages[:3] + messages[4:]
        assert await world.provider.wait()
        assert len(world.to_engine.requests) == int(steps)


async def test_a_file_that_the_server_sends_by_its_path() -> None:
    app = FastAPI()

    @app.get("/")
    async def file() -> FileResponse:
        return FileResponse(await step.run("find", lambda: __file__))

    async with durable(lambda provider: provider.asgi(app)) as world:
        sent = await conversation(
            world.to_app.app, http(extensions={"http.response.pathsend": {}}, root_path="")
        )
        assert sent[1] == {"type": "http.response.pathsend", "path": __file__}


async def test_a_file_after_a_sleep() -> None:
    app = FastAPI()

    @app.get("/")
    async def file() -> FileResponse:
        await step.sleep("nap", NAP)
        return FileResponse(__file__)

    async with durable(lambda provider: provider.asgi(app)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.content == SOURCE
        assert final.headers["content-type"].startswith("text/x-python")


async def test_a_stream_of_more_than_is_kept_is_not_kept() -> None:
    """64 MiB pass, chunk by chunk; a run that used a step keeps at most `max_body_bytes`."""
    chunk, chunks = bytes(1024 * 1024), 64
    passed: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await step.run("a", lambda: 1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(chunks):
            await send({"type": "http.response.body", "body": chunk[:], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        passed.append(len(message.get("body", b"")))

    async with durable(lambda provider: provider.asgi(app), max_body_bytes=1000) as world:
        tracemalloc.start()
        try:
            await world.to_app.app(http(), receive, send)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sum(passed) == chunks * len(chunk)
        assert peak < 8 * len(chunk)
        assert await world.provider.wait()
        (checkpoint,) = world.to_engine.requests
        assert len(checkpoint.content) < 10_000


async def test_a_caller_that_leaves_while_a_step_runs_is_seen_and_the_run_goes_on() -> None:
    app = FastAPI()
    inside, go_on = asyncio.Event(), asyncio.Event()
    seen: list[bool] = []

    async def slow() -> str:
        inside.set()
        await go_on.wait()
        return "done"

    @app.get("/")
    async def handler(request: Request) -> str:
        result = await step.run("slow", slow)
        seen.append(await request.is_disconnected())
        return result

    left = False

    async def receive() -> Any:
        if left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with durable(lambda provider: provider.asgi(app)) as world:
        request = asyncio.create_task(world.to_app.app(http(root_path=""), receive, send))
        await inside.wait()
        left = True
        go_on.set()
        await request
        assert seen == [True]
        assert await world.provider.wait()
        (run,) = (await world.api.get("/v1/runs")).json()["data"]
        assert run["status"] == "Completed"


async def test_background_tasks_run_once_after_the_last_call() -> None:
    app, log = FastAPI(), list[str]()

    async def later(text: str) -> None:
        log.append(await step.run("later", lambda: text))
        try:
            await step.sleep("too late", NAP)
        except stephttp.CannotWaitError:
            log.append("cannot wait")

    @app.post("/{naps}")
    async def handler(naps: int, tasks: BackgroundTasks) -> str:
        tasks.add_task(later, "task")
        for n in range(naps):
            await step.sleep(f"nap-{n}", NAP)
        log.append("answered")
        return "ok"

    async with durable(lambda provider: provider.asgi(app)) as world:
        assert (await world.client.post("/0")).json() == "ok"
        assert log == ["answered", "task", "cannot wait"]
        log.clear()
        assert (await world.follow(await world.client.post("/2"))).json() == "ok"
        assert log == ["answered", "task", "cannot wait"]


async def test_routers_mounted_applications_and_def_dependencies_after_a_sleep() -> None:
    log: list[str] = []

    def session(request: Request) -> Any:  # in a worker thread
        log.append("open")
        yield request.headers["authorization"]
        log.append("close")

    sub, router = FastAPI(), APIRouter(prefix="/items")

    @router.put("/{item_id}")
    async def put(
        item_id: int, request: Request, who: Annotated[str, Depends(session)]
    ) -> dict[str, Any]:
        await step.sleep("nap", NAP)
        return {
            "tenant": request.path_params["tenant"], "item": item_id, "who": who,
            "body": await request.json(), "url": str(request.url),
        }  # fmt: skip

    sub.include_router(router)
    app = FastAPI()
    app.mount("/of/{tenant}", sub)

    async with durable(lambda provider: provider.asgi(app)) as world:
        first = await world.client.put(
            "/of/acme/items/7", json=[1], headers={"authorization": "Bearer me"}
        )
        final = await world.follow(first)
        assert final.json() == {
            "tenant": "acme", "item": 7, "who": "Bearer me", "body": [1],
            "url": "http://app.test/of/acme/items/7",
        }  # fmt: skip
        assert log == ["open", "open", "close"]


async def test_starlette_with_def_endpoints_mounts_and_background_tasks() -> None:
    from stephttp.sync import step as blocking_step

    log: list[str] = []

    def endpoint(request: StarletteRequest) -> JSONResponse:
        name = blocking_step.run("name", lambda: request.path_params["name"])
        blocking_step.sleep("nap", NAP)
        return JSONResponse(name, background=BackgroundTask(log.append, name))

    app = Starlette(routes=[Mount("/sub", routes=[Route("/{name}", endpoint)])])
    async with durable(lambda provider: provider.asgi(app)) as world:
        assert (await world.follow(await world.client.get("/sub/ada"))).json() == "ada"
        assert log == ["ada"]
