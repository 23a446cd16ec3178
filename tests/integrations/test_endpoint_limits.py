"""Concurrency, throttles and priority of endpoints: which waiting runs are called, and when."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask

import stephttp
from stephttp import Checkpointing, Concurrency, Provider, Throttle, UsageError, step
from stephttp.sync import step as blocking
from tests.django_settings import configured
from tests.durable import Durable, durable
from tests.engine.support import until
from tests.realserver import RealServer
from tests.wsgi import WSGITransport

P = ParamSpec("P")
R = TypeVar("R")
NAP = timedelta(minutes=1)
FRAMEWORKS = pytest.mark.parametrize(
    "framework", ["fastapi", "fastapi-threads", "flask", "django", "django-async"]
)


def by_user(number: int, user: str = "") -> str | None:
    return user or None


class Shop:
    """An endpoint that waits, and then is at work until the test ends that.

    Attributes:
        begun: the numbers of the orders whose handlers were called, also in the first call.
        calls: the numbers of those that came to work, in their order.
        at_work: what ends their work.
        most: how many were at work at a time, at most.
        hold: whether they stay at work.
    """

    def __init__(self, *, hold: bool = True, **limits: Any) -> None:
        self.begun: list[int] = []
        self.calls: list[int] = []
        self.at_work: dict[int, threading.Event] = {}
        self.most = 0
        self.hold = hold
        self.limits = limits

    def enter(self, number: int) -> threading.Event:
        self.calls.append(number)
        leave = self.at_work[number] = threading.Event()
        self.most = max(self.most, len(self.at_work))
        if not self.hold:
            leave.set()
        return leave

    def work(self, number: int) -> int:
        """Work in a thread."""
        assert self.enter(number).wait(30)
        del self.at_work[number]
        return number

    async def work_on_loop(self, number: int) -> int:
        leave = self.enter(number)
        while not leave.is_set():  # noqa: ASYNC110 - the event is one of threads
            await asyncio.sleep(0)
        del self.at_work[number]
        return number

    def endpoint(self, provider: Provider) -> Callable[[Callable[P, R]], Callable[P, R]]:
        return provider.endpoint(id="pack", **self.limits)

    def fastapi(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/pack/{number}")
        @self.endpoint(provider)
        async def pack(number: int, user: str = "") -> int:
            self.begun.append(number)
            await step.sleep("nap", NAP)
            return await self.work_on_loop(number)

        @app.get("/quick/{number}")
        @self.endpoint(provider)
        async def quick(number: int, user: str = "") -> int:
            self.begun.append(number)
            return await step.run("quick", lambda: number)

        return provider.asgi(app)

    def fastapi_threads(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/pack/{number}")
        @self.endpoint(provider)
        def pack(number: int, user: str = "") -> int:
            self.begun.append(number)
            blocking.sleep("nap", NAP)
            return self.work(number)

        return provider.asgi(app)

    def flask(self, provider: Provider) -> Any:
        app = Flask("app")
        app.config["PROPAGATE_EXCEPTIONS"] = True

        @app.get("/pack/<int:number>")
        @self.endpoint(provider)
        def pack(number: int) -> str:
            self.begun.append(number)
            blocking.sleep("nap", NAP)
            return str(self.work(number))

        return provider.wsgi(app)

    def django(self, provider: Provider) -> Any:
        from django.core.handlers.wsgi import WSGIHandler
        from django.http import HttpRequest, HttpResponse
        from django.urls import path

        @self.endpoint(provider)
        def pack(request: HttpRequest, number: int) -> HttpResponse:
            self.begun.append(number)
            blocking.sleep("nap", NAP)
            return HttpResponse(str(self.work(number)))

        URLS[:] = [path("pack/<int:number>", pack)]
        return provider.wsgi(WSGIHandler())

    def django_async(self, provider: Provider) -> Any:
        from django.core.handlers.asgi import ASGIHandler
        from django.http import HttpRequest, HttpResponse
        from django.urls import path
        from django.utils.decorators import method_decorator
        from django.views import View

        shop = self

        @method_decorator(self.endpoint(provider), name="dispatch")
        class Pack(View):
            async def get(self, request: HttpRequest, number: int) -> HttpResponse:
                shop.begun.append(number)
                await step.sleep("nap", NAP)
                return HttpResponse(str(await shop.work_on_loop(number)))

        URLS[:] = [path("pack/<int:number>", Pack.as_view())]
        return provider.asgi(ASGIHandler())


URLS: list[Any] = []
urlpatterns = URLS


@asynccontextmanager
async def serving(
    shop: Shop, framework: str = "fastapi", **options: Any
) -> AsyncGenerator[Durable]:
    """The shop in a framework, and an engine."""
    build = getattr(shop, framework.replace("-", "_"))
    wsgi = framework in ("flask", "django")
    with configured(SECRET_KEY="no", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
                    DEBUG_PROPAGATE_EXCEPTIONS=True):  # fmt: skip
        async with durable(build, wsgi=wsgi, **options) as world:
            yield world


async def ask(world: Durable, *numbers: int, user: str = "") -> list[httpx2.Response]:
    """Send requests; their runs begin to wait, each a millisecond after the other."""
    answers = []
    for number in numbers:
        world.clock.advance(0.001)
        answer = await world.client.get(f"/pack/{number}", params={"user": user} if user else {})
        assert answer.status_code == 303, answer.text
        answers.append(answer)
    return answers


async def settled(world: Durable, shop: Shop) -> None:
    """Wait until the engine has made all calls that it may, and their handlers are at work."""
    executor = world.engine.executor

    def all_arrived() -> bool:
        return len(executor.busy) == len(shop.at_work)

    while True:
        await until(all_arrived)
        await executor.looked()
        if all_arrived():
            return


async def end(world: Durable, shop: Shop, *numbers: int) -> None:
    """End the work on orders."""
    for number in numbers:
        shop.at_work[number].set()
    await until(lambda: not set(numbers) & set(shop.at_work))
    await settled(world, shop)


async def rows(world: Durable) -> dict[str, int]:
    """Count what is stored for limits."""

    def count(connection: sqlite3.Connection) -> dict[str, int]:
        tables = ("gates", "run_gates", "turns")
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in tables
        }

    counted: dict[str, int] = await world.engine.store.read(count)
    return counted


NOTHING = {"gates": 0, "run_gates": 0, "turns": 0}


@FRAMEWORKS
async def test_the_engine_calls_no_more_waiting_runs_than_an_endpoint_allows(
    framework: str,
) -> None:
    shop = Shop(concurrency=Concurrency(2))
    async with serving(shop, framework) as world:
        answers = await ask(world, *range(20))
        assert shop.begun == list(range(20))  # First calls are not limited.
        world.clock.advance(120)
        for number in range(0, 20, 2):
            await settled(world, shop)
            assert sorted(shop.calls) == list(range(number + 2))  # threads begin in any order
            await end(world, shop, number, number + 1)
        assert shop.most == 2
        assert [(await world.follow(one)).text for one in answers] == [str(n) for n in range(20)]
        assert await rows(world) == NOTHING


async def test_each_text_of_a_key_has_a_limit_of_its_own_and_so_have_requests_without() -> None:
    shop = Shop(concurrency=Concurrency(1, key=by_user))
    async with serving(shop) as world:
        await ask(world, 0, 1, user="u1")
        await ask(world, 2, 3, user="u2")
        await ask(world, 4, 5)
        world.clock.advance(120)
        await settled(world, shop)
        assert shop.calls == [0, 2, 4]
        queues = await world.engine.reader.queues()
        assert {(gate.slug, gate.key, gate.waiting) for gate in queues.gates} == {
            ("pack", "u1", 1), ("pack", "u2", 1), ("pack", "", 1)
        }  # fmt: skip
        await end(world, shop, 2)
        assert shop.calls == [0, 2, 4, 3]
        await end(world, shop, 0, 4)
        await end(world, shop, 1, 3, 5)
        assert await rows(world) == NOTHING


async def test_endpoints_with_the_same_text_share_a_limit() -> None:
    shop = Shop()

    def build(provider: Provider) -> Any:
        app = FastAPI()
        for name in ("pack", "send"):

            @app.get(f"/{name}/{{number}}")
            @provider.endpoint(id=name, concurrency=Concurrency(1, key="payments"))
            async def handler(number: int) -> int:
                await step.sleep("nap", NAP)
                return await shop.work_on_loop(number)

        return provider.asgi(app)

    async with durable(build) as world:
        assert (await world.client.get("/pack/0")).status_code == 303
        world.clock.advance(0.001)
        assert (await world.client.get("/send/1")).status_code == 303
        world.clock.advance(120)
        await settled(world, shop)
        assert shop.calls == [0]
        await end(world, shop, 0)
        assert shop.calls == [0, 1]
        await end(world, shop, 1)


async def test_two_limits_hold_together() -> None:
    shop = Shop(concurrency=[Concurrency(2), Concurrency(1, key=by_user)])
    async with serving(shop) as world:
        await ask(world, 0, 1, user="u1")
        await ask(world, 2, user="u2")
        await ask(world, 3, user="u3")
        world.clock.advance(120)
        await settled(world, shop)
        assert shop.calls == [0, 2]
        await end(world, shop, 2)
        assert shop.calls == [0, 2, 3]
        await end(world, shop, 0)
        assert shop.calls == [0, 2, 3, 1]
        await end(world, shop, 1, 3)


async def test_a_throttle_spreads_the_first_calls_by_the_engine() -> None:
    shop = Shop(hold=False, throttle=Throttle(2, timedelta(seconds=10)))
    async with serving(shop) as world:
        await ask(world, *range(5))
        world.clock.advance(60)
        await world.engine.idle()
        assert shop.calls == [0, 1]
        for seconds, count in ((4.9, 2), (0.1, 3), (5, 4), (4.9, 4), (0.1, 5)):
            world.clock.advance(seconds)
            await world.engine.idle()
            assert shop.calls == list(range(count))


async def test_a_throttle_holds_across_a_restart_of_the_engine(tmp_path: Path) -> None:
    shop = Shop(hold=False, throttle=Throttle(1, timedelta(seconds=10), burst=1))
    async with serving(shop, path=tmp_path / "runs.db") as world:
        await ask(world, *range(4))
        world.clock.advance(60)
        await world.engine.idle()
        assert shop.calls == [0, 1]
        await world.restart_engine()
        world.clock.advance(9)
        await world.engine.idle()
        assert shop.calls == [0, 1]
        world.clock.advance(1)
        await world.engine.idle()
        assert shop.calls == [0, 1, 2]


async def test_runs_take_their_turns_in_order_of_their_priority() -> None:
    shop = Shop(concurrency=Concurrency(1), priority=lambda number, user="": 60 * (number % 3))
    async with serving(shop) as world:
        await ask(world, *range(6))
        world.clock.advance(120)
        for number in (2, 5, 1, 4, 0, 3):
            await settled(world, shop)
            assert shop.calls[-1] == number
            await end(world, shop, number)


async def test_a_priority_beyond_what_is_possible_is_the_highest_possible() -> None:
    shop = Shop(concurrency=Concurrency(1), priority=lambda number, user="": number * 10_000)
    async with serving(shop) as world:
        await ask(world, 0, 1, 2)
        world.clock.advance(120)
        for number in (1, 2, 0):
            await settled(world, shop)
            assert shop.calls[-1] == number
            await end(world, shop, number)


async def test_a_run_that_ends_in_its_first_request_touches_no_gate() -> None:
    shop = Shop(concurrency=Concurrency(1), throttle=Throttle(1, NAP), priority=5)
    async with serving(shop) as world:
        for number in range(3):
            assert (await world.client.get(f"/quick/{number}")).json() == number
        assert await world.provider.wait()
        assert await rows(world) == NOTHING


@pytest.mark.parametrize("path", ["/quick/1", "/pack/1"])
async def test_a_run_that_is_saved_at_once_has_its_limits_as_long_as_it_is_open(path: str) -> None:
    shop = Shop(concurrency=Concurrency(1), hold=False)
    async with serving(shop, checkpointing=Checkpointing.safe) as world:
        answer = await world.client.get(path)
        if answer.status_code == 303:
            assert await rows(world) == {"gates": 1, "run_gates": 1, "turns": 1}
            assert (await world.follow(answer)).json() == 1
        assert await world.provider.wait()
        assert await rows(world) == NOTHING


async def test_a_run_whose_process_dies_is_taken_over_with_its_limits() -> None:
    shop = Shop()
    processes: list[Provider] = []
    death = asyncio.Event()

    def build(provider: Provider) -> Any:
        app, is_first = FastAPI(), not processes
        processes.append(provider)

        @app.get("/pack/{number}")
        @provider.endpoint(id="pack", checkpointing=Checkpointing.safe, concurrency=Concurrency(1))
        async def pack(number: int) -> int:
            await step.run("first", lambda: number)
            if is_first:
                await death.wait()
            return await shop.work_on_loop(number)

        return provider.asgi(app)

    async with durable(build) as world:
        first = [asyncio.ensure_future(world.client.get(f"/pack/{n}")) for n in range(2)]
        while (await rows(world))["turns"] < 2:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        another = world.provide()
        world.to_app.app = build(another)
        for _ in range(2):  # the lease, and the respite after it
            world.clock.advance(61)
            await settled(world, shop)
        assert len(shop.calls) == 1
        await end(world, shop, shop.calls[0])
        assert sorted(shop.calls) == [0, 1]
        await end(world, shop, shop.calls[1])
        assert await rows(world) == NOTHING
        for request in first:
            request.cancel()
        await asyncio.gather(*first, return_exceptions=True)
        assert await another.aclose()


async def test_a_run_with_an_idempotency_key_gets_the_limits_of_its_endpoint() -> None:
    shop = Shop(concurrency=Concurrency(1))

    def build(provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/pack/{number}")
        @shop.endpoint(provider)
        async def pack(number: int) -> int:
            await step.sleep("nap", NAP)
            return await shop.work_on_loop(number)

        return provider.asgi(app)

    async with durable(build, idempotency_header="Idempotency-Key") as world:
        for number in range(2):
            headers = {"idempotency-key": str(number)}
            assert (await world.client.post(f"/pack/{number}", headers=headers)).status_code == 303
        world.clock.advance(120)
        await settled(world, shop)
        assert len(shop.calls) == 1
        await end(world, shop, *shop.calls)
        assert len(shop.calls) == 2
        await end(world, shop, shop.calls[1])
        assert await rows(world) == NOTHING


async def test_a_run_that_is_cancelled_leaves_its_place() -> None:
    shop = Shop(concurrency=Concurrency(1))
    async with serving(shop) as world:
        answers = await ask(world, 0, 1, 2)
        world.clock.advance(120)
        await settled(world, shop)
        await world.provider.cancel(answers[1].headers["x-run-id"])
        await end(world, shop, 0)
        assert shop.calls == [0, 2]
        await end(world, shop, 2)
        assert await rows(world) == NOTHING


@FRAMEWORKS
async def test_another_server_is_refused_before_the_handler_begins(
    framework: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(concurrency=Concurrency(1), priority=3)
    wsgi = framework in ("flask", "django")
    server = RealServer(wsgi=wsgi)
    with configured(SECRET_KEY="no", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__):
        provider = server.provider()
        app = getattr(shop, framework.replace("-", "_"))(provider)
        transport = WSGITransport(app) if wsgi else httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
            for _ in range(2):  # the server is asked what it is, and then known
                caplog.clear()
                if framework.startswith("fastapi"):
                    with pytest.raises(UsageError) as caught:
                        await client.get("/pack/1")
                    why = str(caught.value)
                else:
                    answer = await client.get("/pack/1")
                    assert answer.status_code == 500
                    why = answer.text + caplog.text  # of Flask, the traceback; Django logs it
                assert "concurrency, priority: only the stephttp engine keeps limits" in why
                assert "take the options out of @provider.endpoint" in why
        assert shop.begun == []
        assert not server.runs
        await provider.aclose()


async def test_an_older_engine_is_refused_as_well() -> None:
    shop = Shop(throttle=Throttle(1, NAP))
    async with serving(shop) as world:
        world.lacks("run-limits")
        with pytest.raises(UsageError, match=r"throttle: the stephttp engine at .* update it"):
            await world.client.get("/pack/1")
        assert shop.begun == []


async def test_a_server_that_gives_no_answer_does_not_stop_a_handler_that_need_not_wait() -> None:
    shop = Shop(concurrency=Concurrency(1))
    async with serving(shop) as world:
        world.to_engine.down = True
        assert (await world.client.get("/quick/1")).json() == 1
        assert (await world.client.get("/pack/2")).status_code == 503
        world.to_engine.down = False
        assert (await world.client.get("/pack/3")).status_code == 303
        assert await world.provider.wait()


async def test_a_run_that_must_wait_is_refused_if_the_server_turns_out_to_be_another_one() -> None:
    shop = Shop(concurrency=Concurrency(1))
    async with serving(shop) as world:
        world.lacks("run-limits")
        send = world.to_engine.handle_async_request
        asked: Counter[str] = Counter()

        async def late(request: httpx2.Request) -> httpx2.Response:
            asked[request.url.path] += 1
            if not shop.begun:
                raise httpx2.ConnectError("connection refused", request=request)
            return await send(request)

        world.to_engine.handle_async_request = late  # type: ignore[method-assign]
        answer = await world.client.get("/pack/1")
        assert answer.status_code == 500
        assert "update it" in answer.json()["error"]
        assert shop.begun == [1]
        assert "/v1/checkpoint" not in asked


async def test_the_engine_refuses_limits_that_make_no_sense() -> None:
    shop = Shop()
    async with serving(shop) as world:
        data = {"domain": "http://app.test", "method": "GET", "path": "/pack/1"}
        body = {"run_id": "01KB0000000000000000000000", "event": {"data": data}}
        for limits, field in (
            ({"concurrency": [{"limit": 0}]}, "limits.concurrency"),
            ({"concurrency": [{"limit": 1}] * 3}, "limits.concurrency"),
            ({"throttle": {"limit": 1}}, "limits.throttle"),
            ({"throttle": {"limit": 1, "period": 0}}, "limits.throttle.period"),
            ({"throttle": {"limit": 1, "period": 604_800_000, "burst": 6000}}, "100 years"),
            ({"priority": 601}, "limits.priority"),
            ({"concurrency": [{"limit": 1, "key": "x" * 1025}]}, "limits.concurrency"),
        ):
            answer = await world.api.post("/v1/checkpoint", json={**body, "limits": limits})
            assert answer.status_code == 400
            assert field in answer.text
        assert (await world.api.get("/v1/runs")).json()["data"] == []


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"concurrency": Concurrency(1, key=lambda number, user="": number)},
         "Concurrency.key: the function must return a text or None, not int"),
        ({"throttle": Throttle(1, NAP, key=lambda number, user="": "x" * 1025)},
         "Throttle.key: the function returned 1025 characters; 1024 are possible"),
        ({"priority": lambda number, user="": "high"},
         "priority: the function must return a whole number of seconds, not str"),
        ({"priority": lambda number, user="": True},
         "priority: the function must return a whole number of seconds, not bool"),
    ],
)  # fmt: skip
async def test_a_function_that_returns_something_else_fails_the_request_first(
    limits: dict[str, Any], why: str
) -> None:
    shop = Shop(**limits)
    async with serving(shop) as world:
        with pytest.raises(stephttp.UsageError, match=why):
            await world.client.get("/pack/1")
        assert shop.begun == []


async def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "concurrency.md").read_text()
    *_, example, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    setup = 'stephttp.setup("https://api.example.com")'
    assert example.count(setup) == 1

    def build(provider: Provider) -> Any:
        names: dict[str, Any] = {"given": provider}
        exec(example.replace(setup, "given"), names)
        return names["app"]

    async with durable(build) as world:
        answer = await world.client.post("/orders/7/pack", params={"customer": "express"})
        keys = {gate.key for gate in (await world.engine.reader.queues()).gates}
        assert keys == {"", "express", "warehouse"}
        assert (await world.follow(answer)).json() == "order 7 is packed"
