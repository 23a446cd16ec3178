"""The clients of `stephttp.testing`, with applications of each kind that are not made for tests."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from fastapi import FastAPI, Request
from pydantic import BaseModel

import stephttp
from stephttp import step
from stephttp.testing import AsyncDurableClient, DurableClient, Stuck
from tests.testing.shop import MONTH, Bank, blocking_shop, fastapi_shop, flask_shop

SHOPS = pytest.mark.parametrize("shop", [fastapi_shop, blocking_shop, flask_shop])
Shop = Callable[[], tuple[Any, Bank]]
START = datetime(2030, 1, 1, tzinfo=UTC)

WATERFALL = """\
POST /orders/o1  place-order  completed
        +0s  charge    attempt failed  TimeoutError: the bank does not answer
        +1s  charge    attempt failed  TimeoutError: the bank does not answer
        +3s  charge    run ok  3 attempts  -> {"id": "charge-o1"}
        +3s  mail      run ok  -> "sent"
        +3s  crm       run ok  -> "known"
        +3s  cool-off  sleep ok  after 30d
    +30d 3s  packed    wait_for_event ok  -> {"id": "o1"}
  answered 201"""


@SHOPS
def test_blocking_client(shop: Shop) -> None:
    app, bank = shop()
    threads = set(threading.enumerate())
    with DurableClient(app, start=START) as client:
        bank.failures = 2
        call = client.post("/orders/o1")
        assert call.accepted.status_code == 303
        assert call.run.status == "waiting"
        run = call.until_waiting("packed")
        assert client.now - START == MONTH + timedelta(seconds=3)
        assert [wait.kind for wait in run.waits] == ["event"]
        assert run.waits[0].key == "order/packed"
        assert run.step("charge").attempts == 3
        assert run.step("charge").result == {"id": "charge-o1"}
        assert run.step("charge").arguments == ["o1"]
        assert run.step("packed").state == "waiting"
        client.send_event("order/packed", {"id": "another"})
        assert call.run.status == "waiting"
        client.send_event("order/packed", {"id": "o1"})
        assert call.run.completed
        assert call.response.status_code == 201
        assert call.json()["packed"] is True
        assert sorted(str(call.run).splitlines()) == sorted(WATERFALL.splitlines())
        assert bank.charged == ["o1"]

        # Without a word, time passes until the answer is there: nobody packs this one.
        answer = client.post("/orders/o2")
        assert answer.status_code == 201
        assert answer.json() == {
            "charge": {"id": "charge-o2"}, "both": ["sent", "known"], "packed": False,
        }  # fmt: skip

        waiting = client.get("/approvals/a1")
        waiting.until_waiting()
        with pytest.raises(AssertionError, match="nobody"):
            client.send_signal("nobody", "ann")
        client.send_signal("a1", "ann")
        assert waiting.json() == "approved by ann"
        cancelled = client.get("/approvals/a2")
        run = cancelled.cancel()
        assert run.cancelled
        assert [(one.tool, one.state) for one in run.steps] == [("wait_for_signal", "cancelled")]
        assert [run.status for run in client.runs] == ["completed"] * 3 + ["cancelled"]

        assert client.get("/plain", headers={"x-user": "ann"}).json() == "ann"
        with pytest.raises(LookupError, match="GET /plain has no run"):
            client.get("/plain").run  # noqa: B018
        with pytest.raises(LookupError, match="no step 'chrage'; it has: 'charge', 'mail'"):
            call.run.step("chrage")
        with pytest.raises(ZeroDivisionError, match="a bug"):
            client.get("/bug")
        with pytest.raises(Stuck, match="the run ended before it waited in step 'paid'"):
            call.until_waiting("paid")
    assert set(threading.enumerate()) == threads


@SHOPS
async def test_async_client(shop: Shop) -> None:
    app, bank = shop()
    tasks = asyncio.all_tasks()
    async with AsyncDurableClient(app, start=START) as client:
        bank.failures = 2
        call = client.post("/orders/o1")
        run = await call.until_waiting()
        assert run.waits[0].step == "cool-off"
        await client.advance(MONTH)
        assert client.now == START + MONTH + timedelta(seconds=3)
        assert (await call.run()).waits[0].step == "packed"
        await client.send_event("order/packed", {"id": "o1"})
        response = await call
        assert response.status_code == 201
        assert sorted(str(await call.run()).splitlines()) == sorted(WATERFALL.splitlines())
        assert (await client.post("/orders/o2")).json()["packed"] is False
        waiting = client.get("/approvals/a1")
        await waiting.until_waiting()
        await client.send_signal("a1", "ann")
        assert (await waiting).json() == "approved by ann"
        assert len(await client.runs()) == 3
        with pytest.raises(ZeroDivisionError):
            await client.get("/bug")
        with pytest.warns(RuntimeWarning, match="never awaited"):
            client.get("/plain")
    assert asyncio.all_tasks() == tasks


class Order(BaseModel):
    """What is ordered."""

    id: str


class Receipt(BaseModel):
    """What the customer gets."""

    charge: str
    packed: bool


def test_the_test_of_the_design_works_as_it_is_written() -> None:
    provider = stephttp.setup("https://api.example.com")
    app = FastAPI()
    app.add_middleware(stephttp.ASGIMiddleware, provider=provider)

    @app.post("/orders", status_code=201)
    @provider.endpoint(id="place-order", retries=3)
    async def place_order(order: Order) -> Receipt:
        charge = await step.run("charge", charge_card, order)
        await asyncio.gather(step.run("mail", mail, order), step.run("crm", mail, order))
        packed = await step.wait_for_event(
            "packed",
            event="order/packed",
            if_exp=f"async.data.id == '{order.id}'",
            timeout=timedelta(days=3),
        )
        return Receipt(charge=charge, packed=packed is not None)

    async def charge_card(order: Order) -> str:
        return f"charge of {order.id}"

    async def mail(order: Order) -> None: ...

    with DurableClient(app) as durable_client:
        call = durable_client.post("/orders", json={"id": "o1"})
        call.until_waiting()
        durable_client.send_event("order/packed", {"id": "o1"})
        assert call.response.status_code == 201
        assert call.run.step("charge").attempts == 1
        # It is its response, also in its rarer parts; what is not one lets no time pass.
        assert call.json() == {"charge": "charge of o1", "packed": True}
        assert (call.reason_phrase, call.is_error) == ("Created", False)  # type: ignore[attr-defined]
        other = durable_client.post("/orders", json={"id": "o2"})
        assert not hasattr(other, "get_json")
        assert not other.run.ended


def test_the_application_is_as_it_was_after_the_test() -> None:
    provider = stephttp.setup("https://shop.example.com", signing_key="ab" * 16)
    app = provider.asgi(FastAPI())
    before = vars(provider.runtime).copy()
    with DurableClient(app):
        assert provider.settings.base_url.endswith("stephttp.test")
        with pytest.raises(stephttp.UsageError, match="open in another DurableClient"):
            DurableClient(app).open()
    assert vars(provider.runtime) == before


def test_an_application_without_durable_middleware_is_refused() -> None:
    with pytest.raises(stephttp.ConfigurationError, match="found no stephttp middleware"):
        DurableClient(FastAPI())
    with pytest.raises(stephttp.ConfigurationError, match="app must be an ASGI or WSGI app"):
        DurableClient("shop:app")


async def test_the_blocking_client_does_not_stop_an_event_loop() -> None:
    with pytest.raises(stephttp.UsageError, match="AsyncDurableClient"):
        DurableClient(fastapi_shop()[0]).open()


def test_other_event_loops_are_refused() -> None:
    async def test() -> None:
        async with AsyncDurableClient(fastapi_shop()[0]):
            pass

    with pytest.raises(stephttp.UsageError, match="needs an event loop of asyncio"):
        trio.run(test)


def test_requests_need_an_open_client() -> None:
    client = DurableClient(fastapi_shop()[0])
    with pytest.raises(stephttp.UsageError, match="`with DurableClient"):
        client.get("/plain")
    with pytest.raises(stephttp.UsageError, match="`async with AsyncDurableClient"):
        AsyncDurableClient(fastapi_shop()[0]).get("/plain")


def test_a_closed_client_can_be_opened_again() -> None:
    client = DurableClient(fastapi_shop()[0], start=START)
    for day in range(2):
        client.open()
        assert client.now == START + timedelta(days=day)
        assert client.get("/plain").status_code == 200
        client.post("/orders/o1")
        assert len(client.runs) == 1
        client.advance(timedelta(days=1))
        client.close()
        client.close()
        with pytest.raises(stephttp.UsageError, match="`with DurableClient"):
            _ = client.headers


def test_a_request_ends_with_its_client() -> None:
    with DurableClient(fastapi_shop()[0]) as client:
        call = client.get("/approvals/a1")
        answer = client.get("/nothing").response
        with pytest.raises(TypeError, match=r"a timedelta, such as timedelta\(seconds=60\)"):
            client.advance(60)  # type: ignore[arg-type]
    assert answer.status_code == 404
    for use in (call.finish, call.until_waiting, call.json, lambda: call.run):
        with pytest.raises(stephttp.UsageError, match="the client of this request is closed"):
            use()


async def test_an_async_request_ends_with_its_client() -> None:
    async with AsyncDurableClient(fastapi_shop()[0]) as client:
        call = client.get("/approvals/a1")
        await call.accepted()
    for use in (call.response, call.run, call.cancel):
        with pytest.raises(stephttp.UsageError, match="closed, and its engine with it; use it ins"):
            await use()


def test_a_client_that_was_not_closed_is_named() -> None:
    app, _ = fastapi_shop()
    left = DurableClient(app).open()
    line = inspect.stack()[0].lineno - 1
    try:
        with (
            pytest.raises(stephttp.UsageError, match=rf"opened at {re.escape(__file__)}:{line};"),
            DurableClient(app),
        ):
            pass
    finally:
        left.close()
    with DurableClient(app):
        pass


def test_a_signal_that_no_run_waits_for_is_named_beside_those_that_are_awaited() -> None:
    with DurableClient(fastapi_shop()[0]) as client:
        with pytest.raises(AssertionError, match="since no run waits for it; they wait for no sig"):
            client.send_signal("approve:a1")
        client.get("/approvals/a1")
        (awaited,) = [wait.key for wait in client.runs[0].waits]
        with pytest.raises(AssertionError, match=f"they wait for '{awaited}'$"):
            client.send_signal("aprove:a1")


def test_the_lifespan_runs() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        seen.append("up")
        yield {"db": "open"}
        seen.append("down")

    seen: list[str] = []
    provider = stephttp.setup("https://shop.example.com")
    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def handler(request: Request) -> str:
        await step.sleep("nap", timedelta(hours=1))
        return str(request.state.db)

    with DurableClient(provider.asgi(app)) as client:
        assert seen == ["up"]
        assert client.get("/").json() == "open"
    assert seen == ["up", "down"]


def test_what_the_start_of_an_application_raises_is_raised() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        if not seen:
            raise ZeroDivisionError("no database")
        yield

    provider = stephttp.setup("https://shop.example.com")
    app = provider.asgi(FastAPI(lifespan=lifespan))
    for _ in range(2):  # it is given back
        with pytest.raises(ZeroDivisionError, match="no database"):
            DurableClient(app).open()


@pytest.fixture
def client() -> Generator[DurableClient]:
    with DurableClient(fastapi_shop()[0]) as client:
        yield client


def test_a_plain_pytest_fixture_is_enough(client: DurableClient) -> None:
    assert client.post("/orders/o3").status_code == 201
