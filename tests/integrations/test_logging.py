"""What handlers log appears once, however often they are called."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

import stephttp
from stephttp import step
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.durable import durable

NAP = timedelta(minutes=1)
own = stephttp.ReplayLogger(logging.getLogger("shop"))
fails = [True]


def flaky() -> None:
    stephttp.logger.info("in the step")
    if fails and fails.pop():
        raise ValueError("no luck")


async def on_loop() -> None:
    stephttp.configure(retries=1)
    stephttp.logger.info("begins")
    await step.run("a", stephttp.logger.warning, "in a")
    own.error("between %s", "steps", extra={"order": 7})
    await asyncio.gather(step.sleep("nap", NAP), step.run("b", int))
    stephttp.logger.info("awake")
    await step.run("flaky", flaky)
    stephttp.logger.info("ends")


def in_thread() -> None:
    stephttp.configure(retries=1)
    stephttp.logger.info("begins")
    sync_step.run("a", lambda: stephttp.logger.warning("in a"))
    own.error("between %s", "steps", extra={"order": 7})
    sync_step.run("b", int)
    sync_step.sleep("nap", NAP)
    stephttp.logger.info("awake")
    sync_step.run("flaky", flaky)
    stephttp.logger.info("ends")


def application(handler: Callable[..., Any]) -> Callable[[Provider], Any]:
    app = FastAPI()
    app.get("/", response_model=None)(handler)
    return lambda provider: provider.asgi(app)


@pytest.mark.parametrize("handler", [on_loop, in_thread])
async def test_code_that_only_replays_is_silent(
    handler: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fails[:] = [True]
    async with durable(application(handler)) as world:
        first = await world.client.get("/")
        await world.follow(first)
    mine = [one for one in caplog.records if one.name in ("stephttp.handlers", "shop")]
    assert [one.getMessage() for one in mine] == [
        "begins",
        "in a",
        "between steps",
        "awake",
        "in the step",
        "awake",  # new code once more: the step after it has failed
        "in the step",
        "ends",
    ]
    assert {one.__dict__["run_id"] for one in mine} == {first.headers["x-run-id"]}
    assert mine[2].__dict__["order"] == 7
    assert mine[2].funcName in ("on_loop", "in_thread")


async def test_a_filter_does_the_same_for_any_logger(caplog: pytest.LogCaptureFixture) -> None:
    plain = logging.getLogger("shop.plain")
    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(quiet := stephttp.ReplayFilter())

    async def handler() -> None:
        plain.info("begins")
        await step.run("a", int)
        await step.sleep("nap", NAP)
        plain.info("ends")

    try:
        async with durable(application(handler)) as world:
            await world.follow(await world.client.get("/"))
        plain.info("outside")
    finally:
        caplog.handler.removeFilter(quiet)
    mine = [one.getMessage() for one in caplog.records if one.name == "shop.plain"]
    assert mine == ["begins", "ends", "outside"]


def test_outside_of_runs_it_logs_as_always(caplog: pytest.LogCaptureFixture) -> None:
    stephttp.logger.error("plain")
    (record,) = caplog.records
    assert (record.getMessage(), hasattr(record, "run_id")) == ("plain", False)
    assert record.funcName == "test_outside_of_runs_it_logs_as_always"
    logging.getLogger("stephttp.handlers").setLevel(logging.CRITICAL)
    assert not stephttp.logger.isEnabledFor(logging.ERROR)
    logging.getLogger("stephttp.handlers").setLevel(logging.NOTSET)
