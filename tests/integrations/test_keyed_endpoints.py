"""A run with an idempotency key is opened before its handler begins, and is of its endpoint yet."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import flask
import pytest
from fastapi import FastAPI

from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.durable import Durable, durable

NAP = timedelta(minutes=1)


class Shop:
    """Endpoints that name themselves, that have a route only, and that fail at first."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def fail_once(self, name: str) -> str:
        """Fail in the first call that comes this far."""
        self.calls[name] += 1
        if self.calls[name] == 1:
            raise ConnectionError("not yet")
        return name

    def fastapi(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/orders/{order}/pay")
        @provider.endpoint(id="pay", retries=2)
        async def pay(order: int) -> str:
            await step.sleep("nap", NAP)
            return self.fail_once(f"pay {order}")

        @app.post("/orders/{order}/ship")
        async def ship(order: int) -> str:
            return await step.run("label", str, order)

        @app.post("/orders/{order}/pack")
        async def pack(order: int) -> str:
            return await step.options(retries=1).run("box", self.fail_once, f"pack {order}")

        return provider.asgi(app)

    def flask(self, provider: Provider) -> Any:
        app = flask.Flask(__name__)

        @app.post("/orders/<int:order>/pay")
        @provider.endpoint(id="pay", retries=2)
        def pay(order: int) -> Any:
            blocking.sleep("nap", NAP)
            return flask.jsonify(self.fail_once(f"pay {order}"))

        @app.post("/orders/<int:order>/ship")
        def ship(order: int) -> Any:
            return flask.jsonify(blocking.run("label", str, order))

        @app.post("/orders/<int:order>/pack")
        def pack(order: int) -> Any:
            boxed = blocking.options(retries=1).run("box", self.fail_once, f"pack {order}")
            return flask.jsonify(boxed)

        return provider.wsgi(app)


async def answers(world: Durable, action: str) -> list[Any]:
    got = []
    for order in (1, 2):
        headers = {"idempotency-key": f"{action} {order}"}
        answer = await world.client.post(f"/orders/{order}/{action}", headers=headers)
        if answer.status_code == 303:
            answer = await world.follow(answer)
        got.append((answer.status_code, answer.json()))
    return got


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
async def test_it_has_the_name_and_the_retries_of_its_endpoint(framework: str) -> None:
    build = getattr(Shop(), framework)
    options: Any = {"wsgi": framework == "flask", "idempotency_header": "Idempotency-Key"}
    async with durable(build, **options) as world:
        assert await answers(world, "ship") == [(200, "1"), (200, "2")]
        assert await answers(world, "pay") == [(200, "pay 1"), (200, "pay 2")]
        assert await answers(world, "pack") == [(200, "pack 1"), (200, "pack 2")]
        assert await world.provider.wait()
        names = ["pay", "POST /orders/{order}/pack", "POST /orders/{order}/ship"]
        runs = (await world.api.get("/v1/runs")).json()["data"]
        assert Counter(run["function"] for run in runs) == dict.fromkeys(names, 2)
        rows = {row.slug: row for row in await world.engine.reader.endpoints()}
        assert sorted(rows) == sorted(names), "no order is an endpoint of its own"
        assert {(row.runs, row.open_runs, row.failed_runs) for row in rows.values()} == {(2, 0, 0)}
        assert rows["pay"].retries == 2
        assert await counted(world) == {row.fn_id for row in rows.values()}


async def counted(world: Durable) -> set[str]:
    """The endpoints that anything is counted for."""

    def look(connection: Any) -> set[str]:
        return {fn_id for (fn_id,) in connection.execute("SELECT fn_id FROM counts")}

    found: set[str] = await world.engine.store.read(look)
    return found
