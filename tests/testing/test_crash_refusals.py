"""`crash_everywhere` refuses tests that can find nothing, and is silent on the deaths it plans."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

import stephttp
from stephttp import step
from stephttp.sync import step as blocking
from stephttp.testing import DurableClient, crash_everywhere
from stephttp.testing import crash_runs as runs
from stephttp.testing.quiet_deaths import ProcessDied, quiet_deaths

logger = logging.getLogger("shop")


def shop(*, logs: bool = False) -> Any:
    provider = stephttp.setup("http://app.test")
    app = FastAPI()

    @app.post("/orders")
    async def orders() -> int:
        try:
            amount = await step.run("charge", lambda: 1200)
            await step.sleep("pack", timedelta(days=1))
        finally:
            if logs:
                logger.error("the dead say this, too")
        return amount

    @app.get("/")
    async def home() -> str:
        return "without a step"

    return provider.asgi(app)


def order(client: DurableClient) -> Any:
    return client.post("/orders").response


TESTS: list[tuple[Callable[[DurableClient], Any], str]] = [
    (lambda client: None, "came to a step, so"),
    (lambda client: client.get("/").response, "came to a step, so"),
    (lambda client: client.post("/orders").status_code and None, "the test returned nothing"),
]


@pytest.mark.parametrize(("test", "said"), TESTS)
def test_tests_that_can_find_nothing_are_refused(
    test: Callable[[DurableClient], Any], said: str
) -> None:
    with pytest.raises(stephttp.UsageError, match=said):
        crash_everywhere(test, shop())


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        ({"chargs": 1}, r"allowed: 'chargs' is not one of effects \('charge'\)"),
        ({"charge": ()}, r"allowed\['charge'\]: \(\) has no number"),
    ],
)
def test_counts_that_are_allowed_to_nothing_are_refused(allowed: Any, said: str) -> None:
    with pytest.raises(stephttp.UsageError, match=said):
        crash_everywhere(order, shop(), effects={"charge": lambda: 0}, allowed=allowed)


def test_more_boundaries_than_are_tried_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_MOST", 3)
    with pytest.raises(stephttp.UsageError, match=r"has \d+ boundaries, and 3 are tried at most"):
        crash_everywhere(order, shop())


def test_calls_and_responses_are_compared_by_what_they_say() -> None:
    def inside(client: DurableClient) -> Any:
        call = client.post("/orders")
        return {"call": call, "all": [call.response, (1, call)]}

    answer = (200, "1200")
    assert crash_everywhere(lambda client: client.post("/orders"), shop()).answer == answer
    assert crash_everywhere(inside, shop()).answer == {"call": answer, "all": [answer, (1, answer)]}


def test_planned_deaths_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    provider = stephttp.setup("http://app.test")

    def blocking_shop(environ: Any, start_response: Any) -> list[bytes]:
        blocking.sleep("think", timedelta(days=1))
        amount = blocking.run("charge", lambda: 1200)
        start_response("200 OK", [])
        return [str(amount).encode()]

    with caplog.at_level(logging.WARNING):
        assert crash_everywhere(order, shop()).boundaries
        assert crash_everywhere(order, provider.wsgi(blocking_shop)).boundaries
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        died = len(crash_everywhere(order, shop(logs=True)).boundaries)
    # Of the run without a crash, and of the calls that were not the last of their process.
    said = [record.getMessage() for record in caplog.records]
    assert set(said) == {"the dead say this, too"}
    assert len(said) < 2 * (died + 1) + died


def test_real_errors_are_logged_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    with quiet_deaths(lambda: False):
        for error in (ProcessDied(), ValueError("real")):
            try:
                raise error
            except BaseException:
                logger.exception("of the shop")
        both = BaseExceptionGroup("", [ProcessDied(), ValueError("one of two")])
        logger.error("a group", exc_info=both)
        logger.error("a group", exc_info=BaseExceptionGroup("", [ProcessDied()]))
    found = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert list(map(repr, found)) == ["ValueError('real')", repr(both)]
    assert len(caplog.records) == 2


def test_what_ends_threads_is_not_reported_if_it_is_a_death() -> None:
    seen: list[BaseException | None] = []
    before = threading.excepthook
    threading.excepthook = lambda ended: seen.append(ended.exc_value)
    try:
        with quiet_deaths(lambda: False):
            for error in (ProcessDied(), ValueError("real")):
                thread = threading.Thread(target=_raise, args=(error,))
                thread.start()
                thread.join()
    finally:
        threading.excepthook = before
    assert list(map(str, seen)) == ["real"]


def test_tasks_that_die_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    provider = stephttp.setup("http://app.test")
    app = FastAPI()
    tasks: set[asyncio.Task[int]] = set()

    @app.post("/orders")
    async def orders() -> int:
        tasks.add(asyncio.create_task(step.run("charge", lambda: 1200)))
        await step.sleep("pack", timedelta(days=1))
        return await step.run("amount", lambda: 1200)

    crash_everywhere(order, provider.asgi(app))
    tasks.clear()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def _raise(error: BaseException) -> None:
    raise error
