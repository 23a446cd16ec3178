"""`crash_everywhere` finds double charges wherever they are planted, and names the boundary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import pytest
from fastapi import BackgroundTasks, FastAPI

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from stephttp.testing import CrashError, crash_everywhere

NAP = timedelta(days=1)
charges: list[int] = []


def charge() -> int:
    charges.append(1)
    return len(charges)


async def in_a_background_task(later: BackgroundTasks) -> int:
    await step.sleep("nap", NAP)
    later.add_task(charge)
    return 1


async def in_a_step_of_a_background_task(later: BackgroundTasks) -> int:
    async def charge_later() -> None:
        await step.run("charge", charge)

    await step.sleep("nap", NAP)
    later.add_task(charge_later)
    return 1


async def in_a_branch() -> int:
    await step.sleep("nap", NAP)
    await asyncio.gather(step.run("charge", charge), step.run("other", lambda: 1))
    return 1


async def between_steps() -> int:
    await step.sleep("nap", NAP)
    await step.run("other", lambda: 1)
    charge()
    return 1


def when_a_response_is_closed() -> flask.Response:
    blocking.sleep("nap", NAP)
    response = flask.Response("1")
    response.call_on_close(charge)
    return response


def in_a_step_with_retries() -> str:
    blocking.sleep("nap", NAP)
    return str(blocking.options(retries=2).run("charge", lambda: charge() and 1))


ASGI: list[tuple[Callable[..., Any], str]] = [
    (in_a_background_task, "before the answer to the engine's call POST /orders"),
    (in_a_step_of_a_background_task, "behind the function of step 'charge'"),
    (in_a_branch, "behind the function of step 'charge'"),
    (between_steps, "before the answer to the engine's call POST /orders"),
]
WSGI: list[tuple[Callable[..., Any], str]] = [
    (when_a_response_is_closed, "before the answer to the engine's call POST /orders"),
    (in_a_step_with_retries, "behind the function of step 'charge'"),
]


def check(app: Any, boundary: str) -> None:
    with pytest.raises(CrashError) as raised:
        crash_everywhere(
            lambda client: client.post("/orders"), app, effects={"charge": lambda: len(charges)}
        )
    found = [(at.what, what) for at, what in raised.value.failures if at is not None]
    assert (boundary, "the side effect 'charge' happened 2 times, and not 1") in found


@pytest.mark.parametrize(("handler", "boundary"), ASGI)
def test_of_asgi(handler: Callable[..., Any], boundary: str) -> None:
    app = FastAPI()
    app.post("/orders")(handler)
    check(stephttp.setup("http://app.test").asgi(app), boundary)


@pytest.mark.parametrize(("handler", "boundary"), WSGI)
def test_of_wsgi(handler: Callable[..., Any], boundary: str) -> None:
    app = flask.Flask("shop")
    app.post("/orders")(handler)
    check(stephttp.setup("http://app.test").wsgi(app), boundary)
