"""Exceptions of which a framework makes an answer, so that no middleware sees them: what they say
of a further attempt counts all the same.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest

import stephttp
from stephttp import NonRetriableError, RetryAfterError, step
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import durable
from tests.integrations.test_final_failures import NAP, WSGI, Frameworks
from tests.realserver import RealServer

FRAMEWORKS = pytest.mark.parametrize(
    "name", ["flask", "falcon", "django", "django_asgi", "quart", "litestar"]
)
CLOSED = pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile")
"""Django leaves the file of the request's body to the garbage collector, if its view was ended."""


class ShopClosed(NonRetriableError):
    """A user's own."""

    def __init__(self) -> None:
        """Does not call that of its base."""


class Ending(Frameworks):
    """A handler that waits, and then ends as it is given.

    Args:
        end: is called with the number of calls after the wait so far.
    """

    def __init__(self, end: Callable[[int], None]) -> None:
        super().__init__()
        self.end = end
        self.after = 0

    async def on_loop(self) -> str:
        stephttp.configure(retries=3)
        await step.sleep("nap", NAP)
        self.after += 1
        self.end(self.after)
        return "fine"

    def in_thread(self) -> str:
        stephttp.configure(retries=3)
        blocking.sleep("nap", NAP)
        self.after += 1
        self.end(self.after)
        return "fine"


def closed(call: int) -> None:
    raise ShopClosed from ValueError("the reason")


def handled(call: int) -> None:
    try:
        raise NonRetriableError("not this")
    except NonRetriableError:
        pass
    raise ValueError("but this")


def never_raised(call: int) -> None:
    errors = [NonRetriableError("kept"), ValueError("but this")]
    raise errors[1]


def later(call: int) -> None:
    if call == 1:
        raise RetryAfterError("busy", timedelta(hours=7))


@CLOSED
@FRAMEWORKS
async def test_a_handler_that_says_so_is_not_called_again(name: str) -> None:
    ending = Ending(closed)
    async with durable(getattr(ending, name), wsgi=name in WSGI) as world:
        first = await world.client.get("/")
        answer = await world.follow(first)
        assert (answer.status_code, await world.status(first)) == (500, "Failed")
        assert ending.after == 1


@CLOSED
@FRAMEWORKS
async def test_neither_does_a_real_server_call_it_again(name: str) -> None:
    ending, server = Ending(closed), RealServer(wsgi=name in WSGI)
    provider = server.provider()
    server.app = getattr(ending, name)(provider)
    answer = await server.finish(await server.client().get("/"))
    assert (answer.status_code, [run.status for run in server.runs.values()]) == (500, ["Failed"])
    assert ending.after == 1
    await provider.aclose()


@CLOSED
@FRAMEWORKS
@pytest.mark.parametrize("end", [handled, never_raised])
async def test_another_failure_is_retried(name: str, end: Callable[[int], None]) -> None:
    ending = Ending(end)
    async with durable(getattr(ending, name), wsgi=name in WSGI) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).status_code == 500
        assert ending.after == 4


@CLOSED
@FRAMEWORKS
async def test_a_handler_says_when_it_is_called_again(name: str) -> None:
    ending = Ending(later)
    async with durable(getattr(ending, name), wsgi=name in WSGI) as world:
        began_ms = world.clock.now_ms()
        answer = await world.follow(await world.client.get("/"))
        assert (answer.status_code, ending.after) == (200, 2)
        assert (world.clock.now_ms() - began_ms) / 3_600_000 == pytest.approx(7, abs=0.1)


async def decorated(error: Exception, **options: object) -> tuple[httpx2.Response, int]:
    """The answer of a decorated handler of Flask that raises, and how often it was called."""
    frameworks, calls = Frameworks(), 0

    def build(provider: Provider) -> object:
        @provider.endpoint(retries=3, **options)  # type: ignore[arg-type]
        def handler() -> str:
            nonlocal calls
            blocking.sleep("nap", NAP)
            calls += 1
            raise error

        frameworks.in_thread = handler  # type: ignore[method-assign]
        return frameworks.flask(provider)

    async with durable(build, wsgi=True) as world:
        return await world.follow(await world.client.get("/")), calls


async def test_the_options_of_a_decorated_handler_judge_what_leaves_it() -> None:
    answer, calls = await decorated(ValueError("bad"), give_up_on=ValueError)
    assert (answer.status_code, calls) == (500, 1)
    answer, calls = await decorated(KeyError("bad"), give_up_on=ValueError)
    assert (answer.status_code, calls) == (500, 4)
    answer, calls = await decorated(KeyError("bad"), retry_on=ValueError)
    assert (answer.status_code, calls) == (500, 1)


def test_an_exception_that_is_made_outside_of_a_request_is_kept_by_nothing() -> None:
    error = NonRetriableError("nobody hears it")
    seen = weakref.ref(error)
    del error
    gc.collect()
    assert seen() is None
