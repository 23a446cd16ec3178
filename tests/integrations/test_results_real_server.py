"""Results that the SDK asks a real server for, on behalf of callers (docs/protocol.md 13.10).

The double gives them as that server does: empty for a while, or forever; a failure that it has
found itself as a success.
"""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Response
from flask import Flask

import stephttp
from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.integrations.worlds import NAP, TEAPOT
from tests.realserver import RealServer

FOREVER = 1_000_000
KEY = "ab" * 16


def of_fastapi() -> Any:
    app = FastAPI()

    @app.get("/naps")
    async def naps() -> Response:
        await step.sleep("nap", NAP)
        return Response("tea", TEAPOT, {"x-own": "yes"}, "text/tea")

    @app.get("/empty")
    async def empty() -> Response:
        await step.sleep("nap", NAP)
        return Response(status_code=200, headers={"x-own": "yes"})

    @app.get("/error")
    async def error() -> Response:
        await step.sleep("nap", NAP)
        return Response('{"error":{"name":"mine"}}', 200, {"x-own": "yes"}, "application/json")

    @app.get("/lock")
    async def lock() -> str:
        await step.sleep("nap", NAP)  # in a first checkpoint a conflict would only be logged
        await step.wait_for_signal("lock", signal="lock", timeout=60 * NAP)
        return "got it"

    return app


def of_flask() -> Any:
    app = Flask("app")

    @app.get("/naps")
    def naps() -> Any:
        blocking.sleep("nap", NAP)
        return "tea", TEAPOT, {"x-own": "yes", "content-type": "text/tea"}

    @app.get("/empty")
    def empty() -> Any:
        blocking.sleep("nap", NAP)
        return "", 200, {"x-own": "yes"}

    @app.get("/error")
    def error() -> Any:
        blocking.sleep("nap", NAP)
        headers = {"x-own": "yes", "content-type": "application/json"}
        return '{"error":{"name":"mine"}}', 200, headers

    @app.get("/lock")
    def lock() -> str:
        blocking.sleep("nap", NAP)
        blocking.wait_for_signal("lock", signal="lock", timeout=60 * NAP)
        return "got it"

    return app


class Shop:
    """An application behind a real server, whose callers get results on its own origin."""

    def __init__(self, wsgi: bool, key: str = KEY) -> None:
        self.server = RealServer(key=key, wsgi=wsgi)
        self.provider: Provider = self.server.provider(result_path="/_result")
        app = of_flask() if wsgi else of_fastapi()
        self.server.app = self.provider.wsgi(app) if wsgi else self.provider.asgi(app)
        self.client = self.server.client()

    async def begin(self, path: str, **headers: str) -> httpx2.Response:
        first = await self.client.get(path, headers=headers)
        assert first.status_code == 303, (first.status_code, first.text)
        return first

    async def end(self, first: httpx2.Response) -> httpx2.Response:
        """The result of a run that ends now."""
        await self.server.work()
        return await self.client.get(first.headers["location"])

    @property
    def looked(self) -> int:
        """How often the record of a run was asked for."""
        return sum(request.url.path.startswith("/v1/runs/") for request in self.server.api)


@pytest.fixture(params=[False, True], ids=["asgi", "wsgi"])
async def shop(request: pytest.FixtureRequest) -> Shop:
    return Shop(request.param)


def is_own(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.text, answer.headers["x-own"]) == (TEAPOT, "tea", "yes")
    assert answer.headers["content-type"].startswith("text/tea")


async def test_o1_an_empty_result_is_asked_for_again(shop: Shop) -> None:
    first = await shop.begin("/naps")
    shop.server.settings.empty_outputs = 9
    before = shop.server.now
    is_own(await shop.end(first))
    assert shop.looked == 0
    assert shop.server.now - before - NAP.total_seconds() == pytest.approx(0.45, abs=0.01)


async def test_o2_a_result_that_stays_empty_is_that_of_the_record(shop: Shop) -> None:
    first = await shop.begin("/naps")
    shop.server.settings.empty_outputs = FOREVER
    before = shop.server.now
    is_own(await shop.end(first))
    assert shop.looked == 1
    assert shop.server.now - before - NAP.total_seconds() == pytest.approx(2, abs=0.01)


async def test_a_caller_who_waits_for_less_than_that_gets_it_too(shop: Shop) -> None:
    first = await shop.begin("/naps")
    shop.server.settings.empty_outputs = FOREVER
    await shop.server.work()
    headers = {"prefer": "wait=0"}
    is_own(await shop.client.get(first.headers["location"], headers=headers))


async def test_an_empty_answer_of_the_handler_is_delivered(shop: Shop) -> None:
    answer = await shop.end(await shop.begin("/empty"))
    assert (answer.status_code, answer.content, answer.headers["x-own"]) == (200, b"", "yes")


async def test_a_cancelled_run_is_said_to_be_cancelled(shop: Shop) -> None:
    first = await shop.begin("/naps")
    await shop.provider.cancel(first.headers["x-run-id"])
    answer = await shop.client.get(first.headers["location"])
    assert (answer.status_code, answer.json()["error"]["name"]) == (409, "CancelledError")


async def test_s1_a_conflict_of_signals_is_the_500_that_it_is(shop: Shop) -> None:
    runs = [await shop.begin("/lock"), await shop.begin("/lock")]
    await shop.server.work()
    answers = [await shop.client.get(first.headers["location"]) for first in runs]
    assert sorted(answer.status_code for answer in answers) == [200, 500]
    (failed,) = [answer for answer in answers if answer.status_code == 500]
    assert "Signal conflict" in failed.json()["error"]["message"]
    assert shop.looked == 1


async def test_an_error_that_the_handler_answers_with_200_is_delivered(shop: Shop) -> None:
    answer = await shop.end(await shop.begin("/error"))
    assert (answer.status_code, answer.text) == (200, '{"error":{"name":"mine"}}')
    assert answer.headers["x-own"] == "yes"


async def test_a_run_that_has_not_ended_is_waited_for(shop: Shop) -> None:
    first = await shop.begin("/naps")
    answer = await shop.client.get(first.headers["location"], headers={"prefer": "wait=0"})
    assert answer.status_code == 202
    is_own(await shop.end(first))


async def test_a_record_that_cannot_be_read_is_asked_for_later(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    first = await shop.begin("/naps")
    shop.server.settings.empty_outputs = FOREVER
    await shop.server.work()
    shop.server.down = lambda request: request.url.path.startswith("/v1/runs/")
    headers = {"prefer": "wait=0"}
    answer = await shop.client.get(first.headers["location"], headers=headers)
    assert answer.status_code == 202
    assert "the record of the run cannot be read" in caplog.text
    shop.server.down = lambda request: False
    is_own(await shop.client.get(first.headers["location"], headers=headers))


async def test_one_who_prefers_to_wait_gets_the_result_of_the_record(shop: Shop) -> None:
    shop.server.settings.empty_outputs = FOREVER
    answer = await _waited(shop, "/naps")
    is_own(answer)


async def _waited(shop: Shop, path: str) -> httpx2.Response:
    """The answer to a caller whose run ends while it waits."""
    ask = shop.server.down

    def ends(request: httpx2.Request) -> bool:
        for run in shop.server.runs.values():
            run.end("Completed", {"data": {
                "status": TEAPOT, "headers": {"x-own": "yes", "content-type": "text/tea"},
                "body": "tea",
            }})  # fmt: skip
        return ask(request)

    shop.server.down = lambda r: ends(r) if r.url.path.endswith("/output") else ask(r)
    return await shop.client.get(path, headers={"prefer": "wait=30"})


async def test_the_result_of_a_provider_is_asked_for_again_while_it_is_empty(shop: Shop) -> None:
    first = await shop.begin("/naps")
    await shop.server.work()
    shop.server.settings.late_records = 3
    result = await shop.provider.result(first.headers["x-run-id"])
    assert (result.status_code, result.text, result.headers["x-own"]) == (TEAPOT, "tea", "yes")


async def test_a_run_that_failed_without_an_output_is_a_500(shop: Shop) -> None:
    first = await shop.begin("/naps")
    (run,) = shop.server.runs.values()
    run.end("Failed", "")
    answer = await shop.client.get(first.headers["location"])
    assert (answer.status_code, json.loads(answer.text)["error"]["name"]) == (500, "Error")
    with pytest.raises(stephttp.RunFailedError):
        await shop.provider.result(first.headers["x-run-id"])
