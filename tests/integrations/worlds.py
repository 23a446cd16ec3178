"""The application of the tests against a real server's double, once of each kind."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import flask
import httpx2
from fastapi import FastAPI, HTTPException, Request, Response

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from tests.realserver import RealServer

NAP = timedelta(minutes=1)
TEAPOT = 418


class World:
    """An application with endpoints of all kinds; `done` lists the step bodies that ran."""

    wsgi = False

    def __init__(self, retries: int = 0) -> None:
        self.done: list[str] = []
        self.failures: dict[str, int] = {}
        self.retries = retries
        self.app = self.make()

    def make(self) -> Any:
        app = FastAPI()

        @app.post("/sleeps")
        async def sleeps(request: Request, q: str = "") -> Response:
            await self.do("before")
            await step.sleep("nap", NAP)
            await self.do("after")
            answer = {
                "q": q,
                "body": (await request.body()).decode(),
                "authorization": request.headers.get("authorization"),
                "cookie": request.headers.get("cookie"),
            }
            return self.answer(answer)

        @app.get("/parallel")
        async def parallel() -> Response:
            await self.do("first")
            await asyncio.gather(
                self.do("one"),
                step.sleep("short", NAP),
                self.do("two"),
                step.sleep("long", 3 * NAP),
            )
            await self.do("last")
            return self.answer("parallel")

        @app.get("/loop")
        async def loop() -> Response:
            for _ in range(4):
                await self.do("turn")
                await step.sleep("nap", NAP)
            return self.answer("loop")

        @app.get("/fails")
        async def fails() -> Response:
            stephttp.configure(retries=self.retries)
            await self.do("fine")
            await self.do("bad")
            return self.answer("recovered")

        @app.get("/fails-late")
        async def fails_late() -> Response:
            stephttp.configure(retries=self.retries)
            await step.sleep("nap", NAP)
            await self.do("bad")
            return self.answer("recovered")

        @app.get("/catches")
        async def catches() -> Response:
            stephttp.configure(retries=self.retries)
            await step.sleep("nap", NAP)
            try:
                await self.do("bad")
            except (stephttp.StepError, ZeroDivisionError) as error:
                return self.answer(type(error).__name__)
            return self.answer("recovered")

        @app.get("/explodes")
        async def explodes() -> Response:
            stephttp.configure(retries=self.retries)
            await step.sleep("nap", NAP)
            self.fail_if_told("handler")
            return self.answer("recovered")

        @app.get("/step-then-explodes")
        async def step_then_explodes() -> Response:
            stephttp.configure(retries=self.retries)
            await self.do("bad")
            self.fail_if_told("handler")
            await step.sleep("nap", NAP)
            self.fail_if_told("late handler")
            return self.answer("recovered")

        @app.get("/refuses")
        async def refuses() -> Response:
            await step.sleep("nap", NAP)
            raise HTTPException(503, "try elsewhere", headers={"x-own": "yes"})

        return app

    def answer(self, value: Any) -> Response:
        response = Response(json.dumps(value), TEAPOT, {"x-own": "yes", "content-type": "text/tea"})
        response.set_cookie("a", "1")
        return response

    async def do(self, name: str) -> None:
        await step.run(name, self.work, name)

    def work(self, name: str) -> None:
        self.fail_if_told(name)
        self.done.append(name)

    def fail_if_told(self, name: str) -> None:
        if self.failures.get(name, 0):
            self.failures[name] -= 1
            raise ZeroDivisionError(name)

    def behind(self, server: RealServer, **options: Any) -> httpx2.AsyncClient:
        provider = server.provider(**options)
        server.wsgi = self.wsgi
        server.app = provider.wsgi(self.app) if self.wsgi else provider.asgi(self.app)
        return server.client()


class BlockingWorld(World):
    """The same with Flask under WSGI."""

    wsgi = True

    def make(self) -> Any:
        app = flask.Flask("world")
        app.config["PROPAGATE_EXCEPTIONS"] = True

        @app.post("/sleeps")
        def sleeps() -> flask.Response:
            self.do_now("before")
            blocking.sleep("nap", NAP)
            self.do_now("after")
            headers = flask.request.headers
            answer = {
                "q": flask.request.args.get("q", ""),
                "body": flask.request.get_data(as_text=True),
                "authorization": headers.get("authorization"),
                "cookie": headers.get("cookie"),
            }
            return self.flask_answer(answer)

        @app.get("/parallel")
        def parallel() -> flask.Response:
            self.do_now("first")
            blocking.parallel(
                (
                    lambda: self.do_now("one"),
                    lambda: blocking.sleep("short", NAP),
                    lambda: self.do_now("two"),
                    lambda: blocking.sleep("long", 3 * NAP),
                )
            )
            self.do_now("last")
            return self.flask_answer("parallel")

        @app.get("/loop")
        def loop() -> flask.Response:
            for _ in range(4):
                self.do_now("turn")
                blocking.sleep("nap", NAP)
            return self.flask_answer("loop")

        @app.get("/fails")
        def fails() -> flask.Response:
            stephttp.configure(retries=self.retries)
            self.do_now("fine")
            self.do_now("bad")
            return self.flask_answer("recovered")

        @app.get("/fails-late")
        def fails_late() -> flask.Response:
            stephttp.configure(retries=self.retries)
            blocking.sleep("nap", NAP)
            self.do_now("bad")
            return self.flask_answer("recovered")

        @app.get("/catches")
        def catches() -> flask.Response:
            stephttp.configure(retries=self.retries)
            blocking.sleep("nap", NAP)
            try:
                self.do_now("bad")
            except (stephttp.StepError, ZeroDivisionError) as error:
                return self.flask_answer(type(error).__name__)
            return self.flask_answer("recovered")

        @app.get("/explodes")
        def explodes() -> flask.Response:
            stephttp.configure(retries=self.retries)
            blocking.sleep("nap", NAP)
            self.fail_if_told("handler")
            return self.flask_answer("recovered")

        @app.get("/step-then-explodes")
        def step_then_explodes() -> flask.Response:
            stephttp.configure(retries=self.retries)
            self.do_now("bad")
            self.fail_if_told("handler")
            blocking.sleep("nap", NAP)
            self.fail_if_told("late handler")
            return self.flask_answer("recovered")

        @app.get("/refuses")
        def refuses() -> Any:
            blocking.sleep("nap", NAP)
            return {"detail": "try elsewhere"}, 503, {"x-own": "yes"}

        return app

    def do_now(self, name: str) -> None:
        blocking.run(name, self.work, name)

    def flask_answer(self, value: Any) -> flask.Response:
        answer = flask.Response(json.dumps(value), TEAPOT, {"x-own": "yes"}, mimetype="text/tea")
        answer.set_cookie("a", "1")
        return answer
