"""Arguments of steps are checked before anything runs, and nothing is recorded of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flask
import pytest
from fastapi import FastAPI

from stephttp import step
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import durable

ran: list[str] = []


async def work() -> None:
    ran.append("work")


def hidden() -> Any:
    return work()


class Worker:
    async def __call__(self) -> None:
        ran.append("call")

    async def work(self) -> None:
        ran.append("method")


def plain() -> None:
    ran.append("plain")


NO_ID = "TypeError: a step id must be a str, not 7"
NO_TEXT = "ValueError: a step id must be valid Unicode"
NO_FUNCTION = "TypeError: step 'a': its function must be one, not 7"
IS_ASYNC = "TypeError: step 'a': the tools of stephttp.sync cannot run an async function"
OF_BOTH: list[tuple[Any, Any, str]] = [
    (7, plain, NO_ID),
    ("a\ud800b", plain, NO_TEXT),
    ("a", 7, NO_FUNCTION),
]
OF_BLOCKING: list[tuple[Any, Any, str]] = [
    ("a", work, IS_ASYNC),
    ("a", partial(work), IS_ASYNC),
    ("a", Worker(), IS_ASYNC),
    ("a", Worker().work, IS_ASYNC),
]


def shop(step_id: Any, function: Any) -> Callable[[Provider], Any]:
    app = FastAPI()

    @app.get("/")
    async def handler() -> str:
        try:
            await step.run(step_id, function)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    return lambda provider: provider.asgi(app)


def blocking_shop(step_id: Any, function: Any) -> Callable[[Provider], Any]:
    app = flask.Flask("shop")

    @app.get("/")
    def handler() -> str:
        try:
            blocking.run(step_id, function)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    return lambda provider: provider.wsgi(app)


@pytest.mark.parametrize(("step_id", "function", "message"), OF_BOTH)
async def test_the_async_tools(step_id: Any, function: Any, message: str) -> None:
    ran.clear()
    async with durable(shop(step_id, function)) as world:
        answer = await world.client.get("/")
        assert answer.json().startswith(message)
        assert not ran


@pytest.mark.parametrize(("step_id", "function", "message"), [*OF_BOTH, *OF_BLOCKING])
async def test_the_blocking_tools(step_id: Any, function: Any, message: str) -> None:
    ran.clear()
    async with durable(blocking_shop(step_id, function), wsgi=True) as world:
        answer = await world.client.get("/")
        assert answer.text.startswith(message)
        assert not ran


def test_an_async_function_is_refused_outside_of_a_run_too() -> None:
    for call in (
        lambda: blocking.run("a", work),
        lambda: blocking.run("a", hidden),
        lambda: blocking.parallel([plain, work]),
        lambda: blocking.race("a", [hidden]),
    ):
        with pytest.raises(TypeError, match="use the async tools"):
            call()


HIDDEN = "the tools of stephttp.sync cannot run an async function"


async def test_async_functions_are_refused_in_branches_and_behind_plain_ones() -> None:
    """A coroutine that came of them would never run, and nothing would say so."""
    ran.clear()
    app, seen = flask.Flask("shop"), list[str]()

    def attempt(call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")

    @app.get("/")
    def handler() -> str:
        attempt(lambda: blocking.run("a", hidden))
        attempt(lambda: blocking.parallel([work]))
        attempt(lambda: blocking.parallel([plain, hidden]))
        attempt(lambda: blocking.race("b", [Worker().work]))
        attempt(lambda: blocking.first("c", [hidden]))
        return "done"

    async with durable(lambda provider: provider.wsgi(app), wsgi=True) as world:
        assert (await world.client.get("/")).text == "done"
    assert [one.partition("; use")[0] for one in seen[:4]] == [
        f"TypeError: step 'a': {HIDDEN}",
        f"TypeError: branch 0: {HIDDEN}",
        f"TypeError: branch 1: {HIDDEN}",
        f"TypeError: branch 0: {HIDDEN}",
    ]
    assert "step 'c'" in seen[4]
    assert ran == ["plain"]
