"""How often a real server tries again: as often as step and endpoint say, because the SDK decides
(docs/protocol.md 13.6). The tests have the names of the rules.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from tests.integrations.worlds import NAP
from tests.realserver import RealServer


class Shop:
    """Endpoints whose steps fail `failures` times; `tries` counts."""

    def __init__(self, wsgi: bool) -> None:
        self.failures: dict[str, int] = {}
        self.tries: dict[str, int] = {}
        self.server = RealServer(wsgi=wsgi)
        self.wsgi = wsgi
        self.deploy(0)
        self.client = self.server.client()

    def deploy(self, retries: int) -> None:
        """Start a version of the application whose endpoint has so many retries."""
        provider = self.server.provider()
        app = self.flask(retries) if self.wsgi else self.fastapi(retries)
        self.server.app = provider.wsgi(app) if self.wsgi else provider.asgi(app)

    def do(self, name: str) -> str:
        self.tries[name] = self.tries.get(name, 0) + 1
        if self.tries[name] <= self.failures.get(name, 0):
            raise ConnectionError(name)
        return name

    def fastapi(self, retries: int) -> Any:
        app = FastAPI()

        @app.get("/own")
        async def own() -> str:
            return await step.options(retries=3).run("own", self.do, "own")

        @app.get("/late")
        async def late() -> str:
            await step.sleep("nap", NAP)
            return await step.options(retries=3).run("own", self.do, "own")

        @app.get("/deployed")
        async def deployed() -> str:
            stephttp.configure(retries=retries)
            await step.sleep("nap", NAP)
            return self.do("handler")

        @app.get("/varies/{number}")
        async def varies(number: int) -> str:
            stephttp.configure(id="varies", retries=number)
            await step.sleep("nap", NAP)
            return await step.run("step", self.do, f"step {number}")

        @app.get("/two")
        async def two() -> str:
            stephttp.configure(retries=2)
            both = await asyncio.gather(
                step.run("one", self.do, "one"), step.run("two", self.do, "two")
            )
            return " ".join(both)

        return app

    def flask(self, retries: int) -> Any:
        app = Flask("app")

        @app.get("/own")
        def own() -> str:
            return blocking.options(retries=3).run("own", self.do, "own")

        @app.get("/late")
        def late() -> str:
            blocking.sleep("nap", NAP)
            return blocking.options(retries=3).run("own", self.do, "own")

        @app.get("/deployed")
        def deployed() -> str:
            stephttp.configure(retries=retries)
            blocking.sleep("nap", NAP)
            return self.do("handler")

        @app.get("/varies/<int:number>")
        def varies(number: int) -> str:
            stephttp.configure(id="varies", retries=number)
            blocking.sleep("nap", NAP)
            return blocking.run("step", self.do, f"step {number}")

        @app.get("/two")
        def two() -> str:
            stephttp.configure(retries=2)
            one, other = blocking.parallel(
                (
                    lambda: blocking.run("one", self.do, "one"),
                    lambda: blocking.run("two", self.do, "two"),
                )
            )
            return f"{one} {other}"

        return app

    @property
    def ended(self) -> list[str]:
        return [run.status for run in self.server.runs.values()]


@pytest.fixture(params=[False, True], ids=["asgi", "wsgi"])
async def shop(request: pytest.FixtureRequest) -> Shop:
    return Shop(request.param)


@pytest.mark.parametrize("path", ["/own", "/late"])
@pytest.mark.parametrize(("failures", "status"), [(3, 200), (4, 500)])
async def test_r1_the_retries_of_a_step_alone_hold(
    shop: Shop, path: str, failures: int, status: int
) -> None:
    shop.failures["own"] = failures
    final = await shop.server.finish(await shop.client.get(path))
    assert (final.status_code, shop.tries["own"]) == (status, 4)
    assert shop.ended == ["Completed" if status == 200 else "Failed"]


@pytest.mark.parametrize("order", [(0, 3, 1), (3, 0, 1), (1, 3, 0)])
async def test_r1_runs_of_an_endpoint_that_declare_different_numbers(
    shop: Shop, order: tuple[int, ...]
) -> None:
    first = {}
    for number in order:
        shop.failures[f"step {number}"] = number
        first[number] = await shop.client.get(f"/varies/{number}")
    for number in order:
        assert (await shop.server.finish(first[number])).status_code == 200
        assert shop.tries[f"step {number}"] == number + 1


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (5, 1)])
async def test_r1_a_deploy_that_changes_the_retries_strands_nobody(
    shop: Shop, before: int, after: int
) -> None:
    shop.deploy(before)
    first = await shop.client.get("/deployed")
    shop.deploy(after)
    shop.failures["handler"] = 1000
    final = await shop.server.finish(first)
    assert (final.status_code, shop.tries["handler"]) == (500, after + 1)
    assert shop.ended == ["Failed"]


async def test_r3_two_steps_that_fail_in_the_first_call(shop: Shop) -> None:
    shop.failures |= {"one": 1, "two": 1}
    final = await shop.server.finish(await shop.client.get("/two"))
    assert (final.status_code, final.text.strip('"')) == (200, "one two")
    assert shop.tries == {"one": 2, "two": 2}


async def test_r4_and_r5_the_last_failure_ends_the_run(shop: Shop) -> None:
    shop.failures |= {"one": 1000, "two": 1000}
    final = await shop.server.finish(await shop.client.get("/two"))
    assert final.status_code == 500
    assert shop.ended == ["Failed"]
    assert shop.tries == {"one": 3, "two": 3}
    assert shop.server.answers[-1].headers["x-inngest-no-retry"] == "true"
