"""A handler that has changed while its run waited: warned of, in log and record, or failed."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, HTTPException

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from tests.durable import Durable, durable

NAP = timedelta(minutes=1)
Handler = Callable[[], Any]
did: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()
    LEFT.clear()


def note(text: str) -> str:
    did.append(text)
    return text


def serve(
    handler: Handler, method: str = "GET", *, wsgi: bool = False, path: str = "/orders"
) -> Callable[[Any], Any]:
    """A FastAPI application, or one of Flask for a handler that is not async."""
    if inspect.iscoroutinefunction(handler) and not wsgi:
        api = FastAPI()
        api.api_route(path, methods=[method])(handler)
        return lambda provider: provider.asgi(api)
    app = flask.Flask("orders")
    app.add_url_rule(path, view_func=handler, methods=[method])
    return lambda provider: provider.wsgi(app)


def deploy(world: Durable, handler: Handler, method: str = "GET", path: str = "/orders") -> None:
    """Another version of the application takes over."""
    world.to_app.app = serve(handler, method, path=path)(world.provider)


async def record(world: Durable, first: httpx2.Response) -> Any:
    answer = await world.api.get(f"/v1/stephttp/runs/{first.headers['x-run-id']}")
    return answer.json()["data"]


async def warned(world: Durable, first: httpx2.Response) -> list[tuple[str, str]]:
    return [(one["kind"], one["step"]) for one in (await record(world, first))["warnings"]]


async def charge_async() -> str:
    await step.run("charge", note, "charge")
    await step.sleep("pack", NAP)
    return "done"


async def debit_async() -> str:
    await step.run("debit", note, "debit")
    await step.sleep("pack", NAP)
    return "done"


def charge() -> str:
    blocking.run("charge", note, "charge")
    blocking.sleep("pack", NAP)
    return "done"


def debit() -> str:
    blocking.run("debit", note, "debit")
    blocking.sleep("pack", NAP)
    return "done"


RENAMED = [(charge_async, debit_async), (charge, debit)]


@pytest.mark.parametrize("method", ["GET", "POST"])  # the state is fetched, or comes along
@pytest.mark.parametrize(("old", "new"), RENAMED, ids=["fastapi", "flask"])
async def test_a_renamed_step_is_warned_of(
    old: Handler, new: Handler, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with durable(serve(old, method), wsgi=old is charge) as world:
        first = await world.client.request(method, "/orders")
        deploy(world, new, method)
        assert "done" in (await world.follow(first)).text
        assert await world.status(first) == "Completed"
        assert did == ["charge", "debit"]
        (warning,) = (await record(world, first))["warnings"]
        assert (warning["kind"], warning["step"]) == ("step_not_met", "charge")
        (logged,) = [one for one in caplog.records if one.levelno == logging.WARNING]
        text = logged.getMessage()
        assert warning["message"] in text
        assert all(part in text for part in ("'charge'", "step.run", "/orders"))
        assert first.headers["x-run-id"] in text


@pytest.mark.parametrize("how", ["setup", "configure", "endpoint", "opts"])
async def test_a_divergence_may_fail_the_run(how: str) -> None:
    options: dict[str, Any] = {"on_divergence": "fail"} if how == "setup" else {}
    async with durable(serve(charge_async), **options) as world:
        first = await world.client.get("/orders")

        async def changed() -> str:
            if how == "configure":
                stephttp.configure(on_divergence="fail")
            if how == "opts":
                stephttp.configure(stephttp.FnOpts(on_divergence="fail", retries=3))
            return await debit_async()

        if how == "endpoint":
            changed = world.provider.endpoint(on_divergence="fail")(changed)
        deploy(world, changed)
        result = await world.follow(first)
        assert (result.status_code, await world.status(first)) == (500, "Failed")
        assert "step 'charge'" in result.text
        error = (await record(world, first))["error"]
        assert error["name"] == "DivergenceError"
        assert "'charge', which was a step.run, is remembered" in error["message"]
        assert await warned(world, first) == [("step_not_met", "charge")]
        assert len(world.reentries) == 1


@pytest.mark.parametrize("value", ["error", None, 1])
def test_there_are_two_ways_to_deal_with_it(value: Any) -> None:
    with pytest.raises(stephttp.ConfigurationError, match="on_divergence must be 'warn' or 'fail'"):
        stephttp.setup("https://api.example.com", on_divergence=value)


async def slept_async() -> str:
    await step.sleep("charge", NAP)
    return "slept"


def slept() -> str:
    blocking.sleep("charge", NAP)
    return "slept"


async def charged_async() -> str:
    charged = await step.run("charge", note, "charged")
    await step.sleep("pack", NAP)
    return charged


def charged() -> str:
    result = blocking.run("charge", note, "charged")
    blocking.sleep("pack", NAP)
    return result


CHANGED = [(slept_async, charged_async), (slept, charged)]


@pytest.mark.parametrize(("old", "new"), CHANGED, ids=["fastapi", "flask"])
async def test_what_a_sleep_left_is_no_result_of_a_step(
    old: Handler, new: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    async with durable(serve(old), wsgi=old is slept) as world:
        first = await world.client.get("/orders")
        deploy(world, new)
        await world.turn()
        # The run still waits, and its record has the warning.
        assert await warned(world, first) == [("step_changed", "charge")]
        assert "charged" in (await world.follow(first)).text
        assert did == ["charged"], "once, although the handler was called twice"
        assert await warned(world, first) == [("step_changed", "charge")]
        logged = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
        assert len(logged) == 1
        assert "step 'charge' was a step.sleep and is a step.run now" in logged[0]


@pytest.mark.parametrize(("old", "new"), CHANGED, ids=["fastapi", "flask"])
async def test_a_step_of_another_kind_may_fail_the_run_before_it_runs(
    old: Handler, new: Handler
) -> None:
    async with durable(serve(old), wsgi=old is slept, on_divergence="fail") as world:
        first = await world.client.get("/orders")
        deploy(world, new)
        result = await world.follow(first)
        assert (result.status_code, did) == (500, [])
        error = (await record(world, first))["error"]
        assert error["name"] == "DivergenceError"
        assert "step 'charge' was a step.sleep and is a step.run now" in error["message"]


async def test_a_handler_that_catches_all_fails_all_the_same() -> None:
    async def catches() -> str:
        try:
            return await charged_async()
        except Exception:
            await step.run("other", note, "other")
            return "caught"

    async with durable(serve(slept_async), on_divergence="fail") as world:
        first = await world.client.get("/orders")
        deploy(world, catches)
        result = await world.follow(first)
        assert (result.status_code, did) == (500, [])
        assert await world.status(first) == "Failed"


@pytest.mark.parametrize("now", ["wait_for_event", "invoke"])
async def test_a_step_may_become_a_wait(now: str) -> None:
    async def waits() -> str:
        await step.sleep("pack", NAP)
        if now == "invoke":
            await step.invoke("charge", function="nobody")
        return str(await step.wait_for_event("charge", event="paid", timeout=NAP))

    async with durable(serve(charge_async)) as world:
        first = await world.client.get("/orders")
        deploy(world, waits)
        result = await world.follow(first)
        assert (result.status_code == 200) == (now == "wait_for_event")
        assert await warned(world, first) == [("step_changed", "charge")]


async def test_a_step_that_would_be_tried_again_may_become_a_sleep() -> None:
    def fails() -> None:
        raise ValueError("not now")

    async def old() -> None:
        stephttp.configure(retries=3)
        await step.run("charge", fails)

    async with durable(serve(old)) as world:
        first = await world.client.get("/orders")
        deploy(world, slept_async)
        assert (await world.follow(first)).json() == "slept"
        assert await warned(world, first) == [("step_changed", "charge")]


async def test_a_renamed_step_among_others_that_run_side_by_side_is_warned_of() -> None:
    def handler(second: str) -> Handler:
        async def gathers() -> list[str]:
            both = await asyncio.gather(
                step.run("mail", note, "mail"), step.run(second, note, second)
            )
            await step.sleep("pack", NAP)
            return list(both)

        return gathers

    async with durable(serve(handler("charge"))) as world:
        first = await world.client.get("/orders")
        deploy(world, handler("debit"))
        assert (await world.follow(first)).json() == ["mail", "debit"]
        assert await warned(world, first) == [("step_not_met", "charge")]


def no_alarm(handler: Handler) -> Handler:
    QUIET.append(handler)
    return handler


QUIET: list[Handler] = []
LEFT: list[asyncio.Task[None]] = []


async def own(turns: int) -> None:
    """Work outside of steps, which takes that many turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def reminds() -> None:
    # Slower in the later call, so that the handler has its answer before it comes to the step.
    await own(200 if "remind" in did else 2)
    await step.run("remind", note, "remind")
    await step.sleep("tomorrow", 10 * NAP)


@no_alarm
async def a_branch_that_lost_is_cancelled() -> str:
    async def answers() -> None:
        await step.sleep("answer", NAP)

    tasks = [asyncio.create_task(reminds()), asyncio.create_task(answers())]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return "answered"


@no_alarm
async def a_branch_that_lost_is_left() -> str:
    LEFT.append(asyncio.create_task(reminds()))
    await step.sleep("answer", NAP)
    assert not LEFT[-1].done()
    return "answered"


@no_alarm
async def a_branch_that_failed_ends_the_others() -> str:
    async def fails() -> None:
        await step.sleep("answer", NAP)
        raise ValueError("no answer")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(reminds())
            group.create_task(fails())
    except* ValueError:
        pass
    return "answered"


@no_alarm
async def members_of_unions_are_kept_beside_results() -> str:
    def paid() -> timedelta | str:
        return "later"

    assert await step.run("paid", paid) == "later"
    await step.sleep("answer", NAP)
    return "answered"


@no_alarm
async def branches_are_met_in_another_order() -> str:
    async def branch(name: str, turns: int) -> None:
        await own(turns if calls() == 1 else 50 - turns)
        await step.run(name, note, name)

    first_call()
    await asyncio.gather(branch("a", 5), branch("b", 40))
    await step.sleep("answer", NAP)
    return "answered"


@no_alarm
def branches_in_threads() -> str:
    blocking.parallel([lambda n=n: blocking.run(f"s{n}", note, "s") for n in range(3)])  # type: ignore[misc]
    blocking.sleep("answer", NAP)
    return "answered"


def calls() -> int:
    return did.count("called")


def first_call() -> None:
    did.append("called")


@pytest.mark.parametrize("wsgi", [False, True])
@pytest.mark.parametrize("handler", QUIET, ids=lambda handler: handler.__name__)
async def test_a_handler_that_has_not_changed_raises_no_alarm(
    handler: Handler, wsgi: bool, caplog: pytest.LogCaptureFixture
) -> None:
    wsgi = wsgi or not inspect.iscoroutinefunction(handler)
    async with durable(serve(handler, wsgi=wsgi), wsgi=wsgi) as world:
        first = await world.client.get("/orders")
        assert first.status_code == 303
        assert "answered" in (await world.follow(first)).text
        assert await warned(world, first) == []
        assert "has changed" not in caplog.text
        while LEFT:
            task = LEFT.pop()
            if not wsgi:  # whose loops have ended, with all their tasks
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("error", [HTTPException(409, "sold"), HTTPException(503), ValueError()])
async def test_an_exception_before_the_steps_is_no_divergence(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def raises() -> None:
        raise error

    async with durable(serve(charge_async), on_divergence="fail") as world:
        first = await world.client.get("/orders")
        deploy(world, raises)
        result = await world.follow(first)
        assert result.status_code == getattr(error, "status_code", 500)
        assert await warned(world, first) == []
        assert "has changed" not in caplog.text


async def test_an_engine_that_does_not_name_steps_gets_no_warnings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with durable(serve(charge_async)) as world:
        world.lacks("warnings")
        first = await world.client.get("/orders")
        deploy(world, debit_async)
        assert (await world.follow(first)).json() == "done"
        assert await warned(world, first) == []
        assert "'charge'" in caplog.text
