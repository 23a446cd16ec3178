"""Stubs and spies: for steps, for functions that are invoked, and for hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask
from pydantic import BaseModel
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool

import stephttp
from stephttp import Event, step
from stephttp.integrations.sqlalchemy import create_table, transaction
from stephttp.sync import step as blocking
from stephttp.testing import AsyncDurableClient, DurableClient


class Charge(BaseModel):
    """What the bank says."""

    id: str
    cents: int = 0


def charge_card(order: str, *, cents: int) -> Charge:
    """Charge a card, in production."""
    raise AssertionError("a test reached the bank")


async def charge_later(order: str, *, cents: int) -> Charge:
    """Do the same."""
    raise AssertionError("a test reached the bank")


def asgi_app() -> Any:
    """An application whose steps reach out to others."""
    provider = stephttp.setup("https://shop.example.com")
    app = FastAPI()
    app.add_middleware(stephttp.ASGIMiddleware, provider=provider)

    @app.get("/")
    async def order() -> dict[str, Any]:
        stephttp.configure(retries=2)
        charge = await step.run("charge", charge_later, "o1", cents=5)
        await step.sleep("nap", timedelta(hours=1))
        total = await step.invoke(
            "total", function="billing-total", data={"id": "o1"}, output_type=Charge
        )
        weather = await step.fetch("weather", "https://weather.example.com/oslo?day=1")
        await step.send_event("tell", Event(name="order/placed", data={"id": "o1"}))
        return {"charge": charge.id, "total": total.cents, "weather": weather.body}

    return app


def wsgi_app() -> Any:
    """The same under WSGI."""
    provider = stephttp.setup("https://shop.example.com")
    app = Flask("shop")

    @app.get("/")
    def order() -> dict[str, Any]:
        stephttp.configure(retries=2)
        charge = blocking.run("charge", charge_card, "o1", cents=5)
        blocking.sleep("nap", timedelta(hours=1))
        total = blocking.invoke(
            "total", function="billing-total", data={"id": "o1"}, output_type=Charge
        )
        weather = blocking.fetch("weather", "https://weather.example.com/oslo?day=1")
        blocking.send_event("tell", Event(name="order/placed", data={"id": "o1"}))
        return {"charge": charge.id, "total": total.cents, "weather": weather.body}

    return provider.wsgi(app)


APPS = pytest.mark.parametrize(
    ("app", "function"),
    [(asgi_app(), charge_later), (wsgi_app(), charge_card)],
    ids=["asgi", "wsgi"],
)
GOOD = {"charge": "c1", "total": 7, "weather": "rain"}


@APPS
def test_everything_outside_is_stubbed(app: Any, function: Callable[..., Any]) -> None:
    with DurableClient(app) as client:
        charge = client.stub(function, sequence=[TimeoutError("away"), {"id": "c1"}])
        total = client.stub("total", Charge(id="t", cents=7))
        weather = client.stub_url("https://weather.example.com/*", text="rain")
        call = client.get("/")
        assert call.json() == GOOD
        assert [(one.args, one.kwargs) for one in charge.calls] == [(("o1",), {"cents": 5})] * 2
        assert isinstance(charge.calls[0].error, TimeoutError)
        assert total.calls[0].args == ({"id": "o1"},)
        assert [str(one.url) for one in weather.requests] == [
            "https://weather.example.com/oslo?day=1"
        ]
        assert call.run.step("charge").attempts == 2
        (event,) = client.events
        assert (event.name, event.data) == ("order/placed", {"id": "o1"})
        assert 'tell     run ok  -> ["(id)"]' in str(call.run)


@pytest.fixture
def client() -> Generator[DurableClient]:
    """A client with the stubs that all tests need."""
    with DurableClient(asgi_app()) as client:
        client.stub("charge", {"id": "c1"}, optional=True)
        client.stub("total", {"id": "t", "cents": 7}, optional=True)
        client.stub_url("https://weather.example.com/*", text="rain")
        yield client


def test_of_two_stubs_the_last_counts(client: DurableClient) -> None:
    client.stub("charge", call=lambda order, cents: {"id": f"{order}:{cents}"})
    assert client.get("/").json()["charge"] == "o1:5"


def test_a_host_may_be_away_for_a_while(client: DurableClient) -> None:
    host = client.stub_url(
        "https://weather.example.com/*", sequence=[503, ConnectionError("no route"), "sun"]
    )
    assert client.get("/").json()["weather"] == '"sun"'
    assert len(host.requests) == 3


def test_a_host_may_be_a_function(client: DurableClient) -> None:
    client.stub_url(
        "https://weather.example.com/*", method="get",
        call=lambda request: httpx2.Response(200, text=request.url.path),
    )  # fmt: skip
    client.stub_url("https://weather.example.com/*", method="POST", json={})
    assert client.get("/").json()["weather"] == "/oslo"


def test_a_spy_lets_the_function_run(client: DurableClient) -> None:
    client.stub("charge", {"id": "c1"})
    spy = client.spy("charge")
    assert "reached the bank" in str(client.get("/").finish().error)
    assert isinstance(spy.calls[0].error, AssertionError)


def test_a_failure_that_stays_fails_the_run(client: DurableClient) -> None:
    client.stub("charge", raises=ZeroDivisionError("bug"))
    call = client.get("/")
    assert call.status_code == 500
    assert call.run.failed
    assert call.run.step("charge").attempts == 3
    assert str(call.run.step("charge").error) == "ZeroDivisionError: bug"


def test_a_stub_that_is_used_up_says_so(client: DurableClient) -> None:
    client.stub("charge", sequence=[TimeoutError()])
    with pytest.raises(AssertionError, match="stub of 'charge' has 1 outcomes, and was called"):
        client.get("/").finish()


def test_there_is_no_network() -> None:
    app = asgi_app()
    said = r"no network in tests; say .* stub_url\('https://weather"
    with DurableClient(app) as client:
        client.stub("charge", {"id": "c1"})
        client.stub("total", {"id": "t", "cents": 7})
        call = client.get("/")
        with pytest.raises(AssertionError, match=said):
            call.finish()


def test_every_problem_is_shown() -> None:
    app = FastAPI()
    provider = stephttp.setup("https://shop.example.com", signing_key="ab" * 16)

    async def page(name: str) -> str:
        try:
            return (await step.fetch(name, f"https://{name}.example.com/")).body
        except Exception:
            return "hidden"

    @app.get("/")
    async def order() -> list[str]:
        return list(await asyncio.gather(page("first"), page("second")))

    app.add_middleware(stephttp.ASGIMiddleware, provider=provider)
    with (
        DurableClient(app) as client,
        pytest.raises(AssertionError, match="no network in tests") as raised,
    ):
        client.get("/").finish()
    (note,) = raised.value.__notes__
    assert note.startswith("\nand AssertionError: GET https://")
    shown = f"{raised.value}{note}"
    assert [shown.count(f"GET https://{name}.") for name in ("first", "second")] == [1, 1]


@pytest.mark.parametrize("raises", [ZeroDivisionError, pytest.fail.Exception])
async def test_what_a_test_raises_hides_no_problem_and_has_its_runs(
    raises: type[BaseException],
) -> None:
    def fail(client: DurableClient | AsyncDurableClient) -> None:
        client._stubs.complain(AssertionError("there is no network"))
        raise raises("by the test")

    def blocking_test() -> None:
        with DurableClient(asgi_app(), raise_server_exceptions=False) as client:
            client.stub("charge", raises=stephttp.NonRetriableError)
            client.get("/")
            fail(client)

    async def async_test() -> None:
        async with AsyncDurableClient(asgi_app(), raise_server_exceptions=False) as client:
            client.stub("charge", raises=stephttp.NonRetriableError)
            await client.get("/")
            fail(client)

    for test in (asyncio.to_thread(blocking_test), async_test()):
        with pytest.raises(raises, match="by the test") as raised:
            await test
        problem, run = raised.value.__notes__
        assert problem == "\nand AssertionError: there is no network"
        assert "GET /" in run


async def test_the_async_client_has_the_same_stubs() -> None:
    async with AsyncDurableClient(asgi_app()) as client:
        charge = client.stub(charge_later, sequence=[TimeoutError("away"), Charge(id="c1")])
        client.stub("total", {"id": "t", "cents": 7})
        client.stub_url("https://weather.example.com/*", text="rain")
        assert (await client.get("/")).json() == GOOD
        assert charge.call_count == 2
        assert [event.name for event in await client.events()] == ["order/placed"]


def test_stubs_end_with_the_client() -> None:
    app = asgi_app()
    with DurableClient(app) as client:
        client.stub("charge", {"id": "c1"}, optional=True)
    with DurableClient(app) as client:
        assert "reached the bank" in str(client.get("/").finish().error)


def use(app: Any, prepare: Callable[[DurableClient], object], *, until: str = "nap") -> None:
    """Run a test with stubs of its own, up to a step."""
    with DurableClient(app) as client:
        prepare(client)
        client.get("/").until_step(until)


def test_a_stub_that_stands_for_nothing_fails_at_the_end() -> None:
    app = asgi_app()

    def misspelt(client: DurableClient) -> None:
        client.stub("charge", {"id": "c1"})
        client.stub("chrage", raises=TimeoutError())

    def left_over(client: DurableClient) -> None:
        client.stub("charge", sequence=[{"id": "c1"}, {"id": "c2"}])

    def failing(client: DurableClient) -> None:
        misspelt(client)
        raise KeyError("mine")

    def allowed(client: DurableClient) -> None:
        client.spy("refund")  # a spy may see nothing
        client.stub("charge", {"id": "c0"})  # another one takes its place
        client.stub("charge", sequence=[{"id": "c1"}, {"id": "c2"}], optional=True)

    with pytest.raises(AssertionError, match=r"'chrage' was never used.* optional=True"):
        use(app, misspelt)
    with pytest.raises(AssertionError, match=r"'charge' was used 1 times, and has 2 outcomes"):
        use(app, left_over)
    with pytest.raises(KeyError, match="mine"):  # what the test itself raises counts
        use(app, failing)
    use(app, allowed)


async def test_a_stub_that_stands_for_nothing_fails_async_tests() -> None:
    client = AsyncDurableClient(asgi_app())
    await client.__aenter__()
    client.stub("chrage", 1)
    with pytest.raises(AssertionError, match="stub of 'chrage' was never used"):
        await client.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("app", "step_id", "instead"),
    [
        (asgi_app(), "nap", "client.advance"),
        (wsgi_app(), "nap", "client.advance"),
        (asgi_app(), "weather", "client.stub_url"),
        (wsgi_app(), "weather", "client.stub_url"),
    ],
)
def test_a_wait_has_no_function_that_a_stub_could_stand_for(
    app: Any, step_id: str, instead: str
) -> None:
    def prepare(client: DurableClient) -> None:
        client.stub("charge", {"id": "c1"})
        client.stub("total", {"id": "t", "cents": 7}, optional=True)
        client.stub(step_id, 1)

    with pytest.raises(AssertionError, match=f"step '{step_id}' .* no function.*{instead}"):
        use(app, prepare, until="weather")


def test_a_transaction_is_stubbed_and_watched_like_any_step() -> None:
    def add_order(session: Session, item: str) -> int:
        session.execute(text("SELECT 1"))
        return 7

    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    create_table(engine)
    provider = stephttp.setup("https://shop.example.com")
    app = FastAPI()

    @app.post("/")
    def order() -> int:
        return transaction("add", sessionmaker(engine), add_order, "a book")

    with DurableClient(provider.asgi(app)) as client:
        spy = client.spy(add_order)
        assert client.post("/").json() == 7
        assert spy.calls[0].args == ("a book",)
        client.stub(add_order, 8)
        assert client.post("/").json() == 8
        client.stub("add", 9)
        assert client.post("/").json() == 9
    engine.dispose()


@pytest.mark.parametrize(
    "wrong", [{"returns": 1, "raises": KeyError}, {"call": abs, "sequence": []}]
)
def test_a_stub_does_one_thing(client: DurableClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="one of returns, raises, sequence and call"):
        client.stub("charge", **wrong)
    with pytest.raises(TypeError, match="for the id of a step or its function, not 3"):
        client.stub(3)  # type: ignore[arg-type]
