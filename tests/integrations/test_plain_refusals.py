"""What only the stephttp engine can do right is refused on an Inngest server, at once and with the
reason (docs/protocol.md 13.8 and 13.10)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask

import stephttp
from stephttp import UsageError, step
from stephttp._core import http_steps, waits
from stephttp._core.plain_marks import MARKER
from stephttp._wire.ids import hash_step_id
from stephttp.sync import step as blocking
from tests.durable import durable
from tests.integrations.worlds import NAP
from tests.realserver import RealServer

YEAR = timedelta(days=360)
NO_INVOKE = "step 'pack': an Inngest server cannot invoke durable endpoints"
NO_TEXT = "step 'form': body: an Inngest server sends only JSON as it is"


class Shop:
    """An application that packs; `calls` counts those after a wait."""

    def __init__(self, function: Any = "pack-order", body: str = "a=1&b=2") -> None:
        self.function, self.body = function, body
        self.calls = 0
        self.refused: list[str] = []

    def note(self, error: UsageError) -> None:
        self.refused.append(str(error))

    def asgi(self, provider: stephttp.Provider) -> Any:
        app = FastAPI()
        pack = provider.endpoint(id="pack-order")(lambda: "packed")
        function = pack if self.function is None else self.function

        @app.get("/now")
        async def now() -> Any:
            try:
                return await step.invoke("pack", function=function, timeout=YEAR)
            except UsageError as error:
                self.note(error)
                raise

        @app.get("/later")
        async def later() -> Any:
            stephttp.configure(retries=3)
            await step.sleep("nap", NAP)
            self.calls += 1
            return await step.invoke("pack", function=function, timeout=YEAR)

        @app.get("/both")
        async def both() -> Any:
            await step.sleep("nap", NAP)
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: step.fetch("form", "http://other.test/", method="POST", body=self.body),
                lambda: step.invoke("pack", function=function, timeout=YEAR),
            ]
            found: list[str] = []
            for call in calls:
                try:
                    found.append(str(getattr(await call(), "body", "packed")))
                except UsageError as error:
                    self.note(error)
            return found[0]

        @app.get("/form")
        async def form() -> Any:
            sent = await step.fetch("form", "http://other.test/", method="POST", body=self.body)
            return sent.status_code

        return provider.asgi(app)

    def wsgi(self, provider: stephttp.Provider) -> Any:
        app = Flask("app")
        pack = provider.endpoint(id="pack-order")(lambda: "packed")
        function = pack if self.function is None else self.function

        @app.get("/now")
        def now() -> Any:
            try:
                return blocking.invoke("pack", function=function, timeout=YEAR)
            except UsageError as error:
                self.note(error)
                raise

        @app.get("/later")
        def later() -> Any:
            stephttp.configure(retries=3)
            blocking.sleep("nap", NAP)
            self.calls += 1
            return blocking.invoke("pack", function=function, timeout=YEAR)

        @app.get("/both")
        def both() -> Any:
            blocking.sleep("nap", NAP)
            calls: list[Callable[[], Any]] = [
                lambda: blocking.fetch("form", "http://other.test/", method="POST", body=self.body),
                lambda: blocking.invoke("pack", function=function, timeout=YEAR),
            ]
            found: list[str] = []
            for call in calls:
                try:
                    found.append(str(getattr(call(), "body", "packed")))
                except UsageError as error:
                    self.note(error)
            return found[0]

        @app.get("/form")
        def form() -> Any:
            sent = blocking.fetch("form", "http://other.test/", method="POST", body=self.body)
            return str(sent.status_code)

        return provider.wsgi(app)

    def behind(self, wsgi: bool) -> RealServer:
        server = RealServer(wsgi=wsgi)
        provider = server.provider()
        server.app = self.wsgi(provider) if wsgi else self.asgi(provider)
        return server


BOTH = pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])


@BOTH
@pytest.mark.parametrize("function", [None, "pack-order", "POST /orders/{id}"])
async def test_i1_an_endpoint_is_not_invoked_there(wsgi: bool, function: Any) -> None:
    shop = Shop(function)
    server = shop.behind(wsgi)
    for _ in range(2):  # the server is not known yet, and then it is
        answer = await server.client().get("/now")
        assert answer.status_code == 500
    assert [text.startswith(NO_INVOKE) for text in shop.refused] == [True, True]
    asked = [request.url.path for request in server.api if request.url.path == "/health"]
    assert len(asked) == 1
    assert not server.executor.queue, "nothing waits"


@BOTH
async def test_after_a_wait_that_is_final(wsgi: bool) -> None:
    shop = Shop()
    server = shop.behind(wsgi)
    final = await server.finish(await server.client().get("/later"))
    assert (final.status_code, shop.calls) == (500, 1)
    assert [run.status for run in server.runs.values()] == ["Failed"]


@BOTH
async def test_i1_an_endpoint_of_another_provider_is_not_either(wsgi: bool) -> None:
    other = RealServer().provider()
    other.endpoint(id="other-order")(lambda: "packed")
    shop = Shop("other-order")
    assert (await shop.behind(wsgi).client().get("/now")).status_code == 500
    assert [text.startswith(NO_INVOKE) for text in shop.refused] == [True]


@BOTH
async def test_a_function_of_serve_is_invoked_there(wsgi: bool) -> None:
    shop = Shop("mail-function")
    server = shop.behind(wsgi)
    assert (await server.client().get("/now")).status_code == 303
    assert shop.refused == []


@BOTH
async def test_a_text_is_not_fetched_with_there(wsgi: bool) -> None:
    server = Shop().behind(wsgi)
    assert (await server.client().get("/form")).status_code == 500
    assert not server.executor.fetched
    assert not server.executor.queue


@BOTH
@pytest.mark.parametrize("body", ['{"a":1}', '"text"', "17"])
async def test_json_is(wsgi: bool, body: str) -> None:
    server = Shop(body=body).behind(wsgi)
    final = await server.finish(await server.client().get("/form"))
    assert (final.status_code, final.text) == (200, "200")
    assert len(server.executor.fetched) == 1


@BOTH
async def test_a_server_that_is_away_refuses_nothing_but_the_request_can_not_wait(
    wsgi: bool,
) -> None:
    shop = Shop()
    server = shop.behind(wsgi)
    server.down = lambda request: True
    assert (await server.client().get("/now")).status_code == 503
    assert shop.refused == []


@BOTH
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("done", ["form", "pack", "pack by its name"])
async def test_what_an_earlier_release_has_finished_is_not_refused(
    wsgi: bool, done: str, marked: bool
) -> None:
    """It sent such steps, and the server has answered them in its own way."""
    shop = Shop(None if done == "pack" else "pack-order")
    server = shop.behind(wsgi)
    first = await server.client().get("/both")
    (run,) = server.runs.values()
    step_id = done.partition(" ")[0]
    ended = {
        "form": {"status_code": 200, "headers": {}, "body": "sent"},
        "pack": {"status": 200, "headers": {}, "body": '"packed"'},  # of an endpoint itself
        "pack by its name": "packed",
    }
    run.memos[hash_step_id(step_id)] = {"data": ended[done]}
    if marked:
        run.memos[MARKER.op().id] = {"data": json.loads(bytes(MARKER.op().data))}  # type: ignore[arg-type]
    final = await server.finish(first)
    assert final.status_code == 200
    assert ("sent" if done == "form" else "packed") in final.text
    other = "pack" if step_id == "form" else "form"
    assert [text.partition(":")[0] for text in shop.refused] == [f"step {other!r}"]


@BOTH
async def test_our_engine_does_both(wsgi: bool) -> None:
    shop = Shop()
    async with durable(shop.wsgi if wsgi else shop.asgi, wsgi=wsgi) as world:
        for path in ("/form", "/now"):
            first: httpx2.Response = await world.client.get(path)
            assert first.status_code == 303
            await world.follow(first)  # there is nothing that could answer, but it was asked
        assert shop.refused == []


@pytest.mark.parametrize(
    ("body", "ours"),
    [(None, False), ("{}", False), ("[1]", False), ("null", False), ("hello", True), ("", True),
     ("a=1", True), ("{", True), ("[" * 100_000, True)],
)  # fmt: skip
def test_which_bodies_another_server_changes(body: str | None, ours: bool) -> None:
    wait = http_steps.fetch("form", "http://other.test/", "POST", None, body)
    assert bool(wait.only_ours and wait.only_ours(lambda _: False)) is ours


@pytest.mark.parametrize(
    ("function", "ours"), [("mail", False), ("shop-mail", False), ("GET /", True), ("get /", False)]
)
def test_which_ids_are_those_of_endpoints(function: str, ours: bool) -> None:
    wait = waits.invoke("pack", function, None, None, None)
    assert bool(wait.only_ours and wait.only_ours(lambda _: False)) is ours
