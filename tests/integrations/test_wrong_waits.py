"""What is wrong with a wait is an exception at its step, and finished steps stay recorded."""

from datetime import UTC, datetime, timedelta
from typing import Any

import flask
import pytest
from fastapi import FastAPI

from stephttp import StepError, step
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import Durable, durable

NAP = timedelta(minutes=1)


def broken(names_trigger: bool) -> str:
    """A condition made of a name that has a quote in it."""
    return f"{'event' if names_trigger else 'async'}.data.name == 'O'Neil'"


class Waits:
    """Endpoints that catch what is wrong with a wait; `done` lists the step bodies that ran."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.world: Durable

    def too_far(self) -> datetime:
        return datetime.fromtimestamp(self.world.clock.now(), UTC) + timedelta(days=400)

    def asgi(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/too-far")
        async def too_far(late: bool) -> str:
            await step.run("charge", self.done.append, "charge")
            if late:
                await step.sleep("nap", NAP)
            try:
                await step.sleep_until("renewal", self.too_far())
            except ValueError as error:
                return str(error)
            return "slept"

        @app.get("/condition")
        async def condition(late: bool, names_trigger: bool) -> str:
            await step.run("charge", self.done.append, "charge")
            if late:
                await step.sleep("nap", NAP)
            try:
                await step.wait_for_event(
                    "packed", event="packed", timeout=NAP, if_exp=broken(names_trigger)
                )
            except StepError as error:
                return str(error)
            return "no event"

        @app.get("/signal")
        async def signal() -> str:
            try:
                return str(await step.wait_for_signal("ok", signal="ok", timeout=2 * NAP))
            except StepError as error:
                return str(error)

        return provider.asgi(app)

    def wsgi(self, provider: Provider) -> Any:
        app = flask.Flask("waits")

        @app.get("/too-far")
        def too_far() -> str:
            blocking.run("charge", self.done.append, "charge")
            if flask.request.args["late"] == "1":
                blocking.sleep("nap", NAP)
            try:
                blocking.sleep_until("renewal", self.too_far())
            except ValueError as error:
                return str(error)
            return "slept"

        @app.get("/condition")
        def condition() -> str:
            blocking.run("charge", self.done.append, "charge")
            if flask.request.args["late"] == "1":
                blocking.sleep("nap", NAP)
            if_exp = broken(flask.request.args["names_trigger"] == "1")
            try:
                blocking.wait_for_event("packed", event="packed", timeout=NAP, if_exp=if_exp)
            except StepError as error:
                return str(error)
            return "no event"

        @app.get("/signal")
        def signal() -> str:
            try:
                return str(blocking.wait_for_signal("ok", signal="ok", timeout=2 * NAP))
            except StepError as error:
                return str(error)

        return provider.wsgi(app)


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_a_sleep_that_ends_too_far_ahead_is_a_value_error(wsgi: bool, late: int) -> None:
    app = Waits()
    async with durable(app.wsgi if wsgi else app.asgi, wsgi=wsgi) as world:
        app.world = world
        answer = first = await world.client.get(f"/too-far?late={late}")
        if late:
            answer = await world.follow(first)
        assert answer.status_code == 200
        assert "step 'renewal': until may be 366 days ahead at most" in answer.text
        assert app.done == ["charge"]
        assert await world.provider.aclose()
        assert "charge" in await world.steps(first)


@pytest.mark.parametrize("names_trigger", [0, 1])
@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_a_condition_that_does_not_parse_is_a_step_error(
    wsgi: bool, late: int, names_trigger: int
) -> None:
    app = Waits()
    async with durable(app.wsgi if wsgi else app.asgi, wsgi=wsgi) as world:
        path = f"/condition?late={late}&names_trigger={names_trigger}"
        first = await world.client.get(path)
        answer = await world.follow(first)
        assert answer.status_code == 200
        assert "ConditionError: step 'packed': if: not a valid CEL expression" in answer.text
        assert app.done == ["charge"]
        assert {"charge", "packed"} <= set(await world.steps(first))


@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_a_signal_that_another_run_waits_for_is_a_step_error(wsgi: bool) -> None:
    app = Waits()
    async with durable(app.wsgi if wsgi else app.asgi, wsgi=wsgi) as world:
        holder, second = [await world.client.get("/signal") for _ in range(2)]
        answer = await world.follow(second)
        assert "SignalConflictError" in answer.text
        assert holder.headers["x-run-id"] in answer.text
        assert (await world.follow(holder)).text.strip('"') == "None"
