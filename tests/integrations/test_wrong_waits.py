"""What is wrong with a wait is an exception at its step, and finished steps stay recorded."""

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI

from stephttp import Checkpointing, ModelAdapter, StepError, step
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import Durable, durable
from tests.styles import serving

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


HUGE = "x" * 4_300_000


def model(**other: Any) -> ModelAdapter:
    given: dict[str, Any] = {
        "url": "https://ai.test",
        "auth_key": "key",
        "format": "openai-chat",
        "model": "m",
    }
    return ModelAdapter(**given | other)


WRONG: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], str]] = {
    "signal": ("wait_for_signal", (), {"signal": "\ud800", "timeout": NAP}, "ValueError"),
    "event": ("wait_for_event", (), {"event": "\ud800", "timeout": NAP}, "ValueError"),
    "timeout": ("wait_for_event", (), {"event": "a", "timeout": 400 * 1440 * NAP}, "ValueError"),
    "unknown": ("invoke", (), {"function": "nowhere"}, "StepError"),
    "large": ("invoke", (), {"function": "nowhere", "data": {"a": HUGE}}, "ValueError"),
    "url": ("fetch", ("http://a.test:port/",), {}, "ValueError"),
    "long url": ("fetch", ("http://a.test/" + "x" * 70_000,), {}, "StepError"),
    "method": ("fetch", ("http://a.test/",), {"method": "A B"}, "ValueError"),
    "header": ("fetch", ("http://a.test/",), {"headers": {"a": "b\n"}}, "ValueError"),
    "name": ("fetch", ("http://a.test/",), {"headers": {"a b": "c"}}, "ValueError"),
    "emoji": ("fetch", ("http://a.test/",), {"headers": {"a": "😀"}}, "ValueError"),
    "number": ("fetch", ("http://a.test/",), {"headers": {"a": 1}}, "TypeError"),
    "body": ("fetch", ("http://a.test/",), {"method": "POST", "body": HUGE}, "ValueError"),
    "key": ("ai.infer", (), {"adapter": model(auth_key="a\nb"), "body": {}}, "ValueError"),
    "format": ("ai.infer", (), {"adapter": model(format="unheard-of"), "body": {}}, "StepError"),
}
"""Tool, arguments, and what is raised at the step."""


@pytest.mark.parametrize("style", ["async", "wsgi"])
async def test_what_is_wrong_with_a_wait_is_an_exception_at_its_step(style: str) -> None:
    """Each of them is caught, in the first call and after a wait, and the next one follows."""
    done: list[str] = []
    seen: dict[str, list[str]] = {}

    def note(name: str, error: Exception) -> None:
        # Of an unknown function it is the message that an Inngest server gives.
        assert name in str(error) or "could not find function" in str(error)
        seen.setdefault(name, []).append(type(error).__name__)

    async def on_loop() -> str:
        for late in (False, True):
            if late:
                await step.sleep("nap", NAP)
            for name, (tool, args, options, _) in WRONG.items():
                await step.run(f"before {name} {late}", done.append, name)
                call = attrgetter(tool)(step)
                try:
                    await call(f"{name} {late}", *args, **options)
                except (ValueError, TypeError, StepError) as error:
                    note(f"{name} {late}", error)
        return "done"

    def in_thread() -> str:
        for late in (False, True):
            if late:
                blocking.sleep("nap", NAP)
            for name, (tool, args, options, _) in WRONG.items():
                blocking.run(f"before {name} {late}", done.append, name)
                call = attrgetter(tool)(blocking)
                try:
                    call(f"{name} {late}", *args, **options)
                except (ValueError, TypeError, StepError) as error:
                    note(f"{name} {late}", error)
        return "done"

    async with serving(style, on_loop, in_thread) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).json() == "done"
        steps = await world.steps(first)
    assert done == [*WRONG] * 2
    for name, (*_, raised) in WRONG.items():
        for late in (False, True):
            assert set(seen[f"{name} {late}"]) == {raised}, name
            assert steps[f"before {name} {late}"]["status"] == "Completed"


@pytest.mark.parametrize("mode", [Checkpointing.performant, Checkpointing.safe])
@pytest.mark.parametrize("style", ["async", "wsgi"])
async def test_a_run_that_the_engine_refuses_is_recorded_as_failed(
    style: str, mode: Checkpointing
) -> None:
    """An engine of another version may refuse what this one takes."""

    async def on_loop() -> None:
        await step.run("one", int)
        await step.options(retries=2).run("two", fail)

    def in_thread() -> None:
        blocking.run("one", int)
        blocking.options(retries=2).run("two", fail)

    def fail() -> None:
        raise KeyError("declined")

    async with serving(style, on_loop, in_thread, checkpointing=mode) as world:
        send = world.to_engine.handle_async_request

        async def older(request: httpx2.Request) -> httpx2.Response:
            if b"StepError" in request.content:
                error = "steps[2]: two is one too many"
                said = {"error": error, "data": None, "status": 400}
                return httpx2.Response(400, headers={"x-stephttp-features": ""}, json=said)
            return await send(request)

        world.to_engine.handle_async_request = older  # type: ignore[method-assign]
        answer = await world.client.get("/")
        assert answer.status_code == 500
        assert "two is one too many" in answer.json()["error"]
        assert await world.provider.wait()
        run_id = answer.headers["x-run-id"]
        run = (await world.api.get(f"/v1/stephttp/runs/{run_id}")).json()["data"]
        assert run["status"] == "Failed"
        assert run["error"]["message"].endswith("two is one too many")
        assert "step 'two' has to wait" in run["error"]["message"]
        shown = [(one["id"], one["state"]) for one in run["step_list"]]
        assert shown == [("one", "completed"), ("two", "failed")]
