"""Waits for events by `match`, and events that came before the wait or the run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import flask
import pytest
from fastapi import FastAPI

from stephttp import step
from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.due_times import lookback_ms
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import durable

MINUTE = timedelta(minutes=1)
ODD = 'o\'1" || true || "'


def fastapi(provider: Provider) -> Any:
    app = FastAPI()

    @app.get("/match")
    async def match(id: str, n: int) -> Any:
        found = await step.wait_for_event(
            "paid", event="paid", match={"data.order-id": id, "data.n": n}, timeout=MINUTE
        )
        return found and found.data

    @app.get("/back")
    async def back(seconds: int) -> Any:
        found = await step.wait_for_event(
            "paid", event="paid", timeout=MINUTE, lookback=timedelta(seconds=seconds)
        )
        return found and found.data

    return provider.asgi(app)


def of_flask(provider: Provider) -> Any:
    app = flask.Flask("waits")

    @app.get("/match")
    def match() -> Any:
        id, n = flask.request.args["id"], int(flask.request.args["n"])
        found = blocking.wait_for_event(
            "paid", event="paid", match={"data.order-id": id, "data.n": n}, timeout=MINUTE
        )
        return flask.jsonify(found and found.data)

    @app.get("/back")
    def back() -> Any:
        lookback = timedelta(seconds=int(flask.request.args["seconds"]))
        found = blocking.wait_for_event("paid", event="paid", timeout=MINUTE, lookback=lookback)
        return flask.jsonify(found and found.data)

    return provider.wsgi(app)


@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_an_event_ends_the_wait_that_wants_its_values(wsgi: bool) -> None:
    async with durable(of_flask if wsgi else fastapi, wsgi=wsgi) as world:
        first = await world.client.get("/match", params={"id": ODD, "n": 1})
        second = await world.client.get("/match", params={"id": ODD, "n": 2})
        never = await world.client.get("/match", params={"id": "x", "n": 2})
        await world.provider.send_event("paid", {"order-id": "o'1", "n": 1})
        await world.provider.send_event("paid", {"order-id": ODD, "n": 2, "by": "card"})
        await world.engine.idle()
        assert await world.status(first) == await world.status(never) == "Running"
        paid = {"order-id": ODD, "n": 2, "by": "card"}
        assert (await world.follow(second)).json() == paid
        await world.provider.send_event("paid", {"order-id": ODD, "n": 1.0})
        assert (await world.follow(first)).json() == {"order-id": ODD, "n": 1}
        assert (await world.follow(never)).json() is None


@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_a_wait_may_look_back_further_than_its_run(wsgi: bool) -> None:
    async with durable(of_flask if wsgi else fastapi, wsgi=wsgi) as world:
        await world.provider.send_event("paid", {"n": 1})
        world.clock.advance(30)
        late = await world.client.get("/back?seconds=20")
        found = await world.client.get("/back?seconds=40")
        assert (await world.follow(found)).json() == {"n": 1}
        assert (await world.follow(late)).json() is None


@pytest.mark.parametrize("lookback", ["-1s", "soon", 5, "367d"])
def test_a_lookback_that_is_no_duration_is_refused(lookback: Any) -> None:
    op = Op(OpCode.WAIT_FOR_EVENT, "a" * 40, opts={"event": "e", "lookback": lookback})
    with pytest.raises(Refused, match=r"^steps\[0\]\.opts\.lookback: "):
        lookback_ms(op, "steps[0]")
