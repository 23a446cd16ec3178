"""What an application does behind its response: the caller has the answer first, whatever comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
import quart
from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.durable import Durable, durable

NAP = timedelta(minutes=1)


class Log:
    """What happened, in its order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def task(self, kind: str) -> None:
        self.lines.append(f"{kind} task")
        if kind == "bad":
            raise ValueError("behind the response")

    def fastapi(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/{kind}/{waits}")
        @provider.endpoint(retries=3)
        async def handler(kind: str, waits: int, tasks: BackgroundTasks) -> str:
            tasks.add_task(self.task, kind)  # before the wait: only the last call has a response
            await step.run("look", str)
            if waits:
                await step.sleep("nap", NAP)
            return "done"

        return provider.asgi(app)

    def quart(self, provider: Provider) -> Any:
        app = quart.Quart("app")

        @app.get("/<kind>/<int:waits>")
        @provider.endpoint(retries=3)
        async def handler(kind: str, waits: int) -> Any:
            await step.run("look", str)
            if waits:
                await step.sleep("nap", NAP)
            app.add_background_task(self.task, kind)
            return quart.jsonify("done")

        return provider.asgi(app)

    def flask(self, provider: Provider) -> Any:
        app = flask.Flask("app")

        @app.get("/<kind>/<int:waits>")
        @provider.endpoint(retries=3)
        def handler(kind: str, waits: int) -> Any:
            blocking.run("look", str)
            if waits:
                blocking.sleep("nap", NAP)
            response = flask.jsonify("done")
            response.call_on_close(lambda: self.task(kind))
            return response

        return provider.wsgi(app)


async def answered(world: Durable, first: httpx2.Response) -> httpx2.Response:
    return await world.follow(first) if first.status_code == 303 else first


async def ask(world: Durable, path: str) -> httpx2.Response:
    """The first answer; what fails behind it reaches the server, as it does without the SDK."""
    transport = world.to_app.inner()
    async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
        return await client.get(path)


@pytest.mark.parametrize("waits", [0, 1])
@pytest.mark.parametrize("kind", ["good", "bad"])
@pytest.mark.parametrize("framework", ["fastapi", "quart", "flask"])
async def test_it_is_done_once_and_its_failure_harms_nothing(
    framework: str, kind: str, waits: int, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()
    build: Callable[[Provider], Any] = getattr(log, framework)
    async with durable(build, wsgi=framework == "flask") as world:
        first = await ask(world, f"/{kind}/{waits}")
        if framework == "flask" and kind == "bad" and not waits:
            assert first.status_code == 500  # the test's server closes before it answers
        else:
            answer = await answered(world, first)
            assert (answer.status_code, answer.json()) == (200, "done")
            await world.provider.wait()
            await world.engine.idle()
            assert await world.status(first) == "Completed"
        for _ in range(20):  # Quart's are tasks of their own
            await asyncio.sleep(0)
    assert log.lines == [f"{kind} task"]


async def test_a_step_behind_the_response_of_a_resumed_run_is_a_plain_call() -> None:
    done: list[int] = []

    async def task() -> None:
        done.append(await step.run("late", lambda: 7))

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/")
        async def handler(tasks: BackgroundTasks) -> str:
            await step.sleep("nap", NAP)
            tasks.add_task(task)
            return "done"

        return provider.asgi(app)

    async with durable(build) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).json() == "done"
        assert await world.status(first) == "Completed"
    assert done == [7]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_commit_that_fails_behind_the_response_is_a_failure_of_the_run(waits: bool) -> None:
    """FastAPI ends dependencies when the response is sent. What fails there takes writes back."""
    engine = create_engine("sqlite://", poolclass=StaticPool)

    def build(provider: Provider) -> Any:
        app = FastAPI()

        async def session() -> Any:
            with Session(engine) as opened:
                yield opened
                if opened.in_transaction():
                    raise ConnectionError("the commit failed")

        @app.get("/")
        @provider.endpoint(retries=2)
        async def handler(db: Session = Depends(session)) -> str:  # noqa: B008
            await step.run("look", str)
            if waits:
                await step.sleep("nap", NAP)
            db.execute(text("SELECT 1"))
            return "done"

        return provider.asgi(app)

    async with durable(build) as world:
        first = await ask(world, "/")
        assert (await answered(world, first)).json() == "done"
        await world.provider.wait()
        assert await world.status(first) == "Failed"
    engine.dispose()
